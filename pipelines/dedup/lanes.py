"""Three loops as vector code of a fixed width, which the compiler does not find by itself.

Numba hands LLVM scalar loops and LLVM chooses the vectors: it spills running minima, pads, and keeps a loop scalar that
compacts. Here the vectors stand in the code (LLVM IR, no machine's own instructions), so that LLVM has only to cut
them to what the machine has.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

MULTIPLIERS = 16  # at a time: with what is found of them in ORDERS they fill the registers of a machine that has 16
ORDERS = 4
LETTERS = 32  # at a time; a text's buffers hold so many more
_LANES = 8

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _data(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return context.make_array(kind)(context, builder, value).data


def _vector_at(builder: Any, data: Any, index: Any, width: int) -> Any:
    return builder.bitcast(builder.gep(data, [index]), ir.VectorType(_I32, width).as_pointer())


def _load(builder: Any, data: Any, index: Any, width: int) -> Any:
    return builder.load(_vector_at(builder, data, index, width), align=4)


def _broadcast(builder: Any, value: Any, width: int, lane: int = 0) -> Any:
    """A scalar, or one lane of a vector, in all lanes."""
    vector = ir.VectorType(_I32, width)
    if value.type == _I32:
        value = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_I32, 0))
    lanes = ir.Constant(ir.VectorType(_I32, width), [lane] * width)
    return builder.shuffle_vector(value, ir.Constant(vector, ir.Undefined), lanes)


@intrinsic
def minima_of_block(
    _typing: Any, narrow: Any, count: Any, multipliers: Any, addends: Any, out: Any, at: Any, apart: Any
) -> Any:
    """Minima in four orders, over j < count (1 or more), of y = narrow[j] * multipliers + addends (uint32).

    For the MULTIPLIERS from `at` on, and so many values of `out` from `at` + k * `apart` on: those of y, of its
    complement, of y with its halves changed about, of the complement of that.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        hashes, factors, terms, target = (_data(context, builder, kinds[i], arguments[i]) for i in (0, 2, 3, 4))
        count, at, apart = arguments[1], arguments[5], arguments[6]
        vector, halves = ir.VectorType(_I32, MULTIPLIERS), ir.VectorType(ir.IntType(16), 2 * MULTIPLIERS)
        ones = ir.Constant(vector, [0xFFFFFFFF] * MULTIPLIERS)
        about = ir.Constant(ir.VectorType(_I32, 2 * MULTIPLIERS), [place ^ 1 for place in range(2 * MULTIPLIERS)])
        factor, term = (_load(builder, data, at, MULTIPLIERS) for data in (factors, terms))
        before = builder.basic_block
        loop, after = builder.append_basic_block("minima"), builder.append_basic_block("minima.end")
        builder.branch(loop)
        builder.position_at_end(loop)
        j = builder.phi(_I64)
        ends = [builder.phi(vector) for _ in range(ORDERS)]  # least and greatest: a complement's least is a greatest's
        shingle = _broadcast(builder, builder.load(builder.gep(hashes, [j])), MULTIPLIERS)
        value = builder.add(builder.mul(factor, shingle), term)
        cut = builder.bitcast(value, halves)
        turned = builder.bitcast(builder.shuffle_vector(cut, cut, about), vector)
        following = builder.add(j, ir.Constant(_I64, 1))
        j.add_incoming(ir.Constant(_I64, 0), before)
        j.add_incoming(following, loop)
        found = []
        for order, end in enumerate(ends):
            mine, beats = (value, turned)[order // 2], "<>"[order % 2]
            found.append(builder.select(builder.icmp_unsigned(beats, mine, end), mine, end))
            end.add_incoming(ir.Constant(vector, None) if order % 2 else ones, before)
            end.add_incoming(found[-1], loop)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
        builder.position_at_end(after)
        for order, end in enumerate(found):
            place = builder.add(at, builder.mul(apart, ir.Constant(_I64, order)))
            least = builder.xor(end, ones) if order % 2 else end
            builder.store(least, _vector_at(builder, target, place, MULTIPLIERS)).align = 4
        return context.get_dummy_value()

    return types.void(narrow, count, multipliers, addends, out, at, apart), generate


@intrinsic
def running_sums(_typing: Any, codes: Any, blocks: Any, factors: Any, sums: Any, gaps: Any) -> Any:
    """sums[j] = sum over i <= j of codes[i] * factors[i] (uint32), and bit j % LETTERS of gaps[j // LETTERS] tells
    whether codes[j] is zero, for all j < blocks * LETTERS; blocks >= 1."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        letters, powers, target, marks = (_data(context, builder, kinds[i], arguments[i]) for i in (0, 2, 3, 4))
        blocks = arguments[1]
        vector = ir.VectorType(_I32, _LANES)
        zero = ir.Constant(vector, [0] * _LANES)
        before = builder.basic_block
        loop, after = builder.append_basic_block("sums"), builder.append_basic_block("sums.end")
        builder.branch(loop)
        builder.position_at_end(loop)
        block, carry = builder.phi(_I64), builder.phi(vector)
        first = builder.mul(block, ir.Constant(_I64, LETTERS))
        every = _load(builder, letters, first, LETTERS)
        is_gap = builder.icmp_unsigned("==", every, ir.Constant(ir.VectorType(_I32, LETTERS), [0] * LETTERS))
        builder.store(builder.bitcast(is_gap, _I32), builder.gep(marks, [block]))
        running: Any = carry
        for start in range(0, LETTERS, _LANES):
            at = builder.add(first, ir.Constant(_I64, start))
            value = builder.mul(_load(builder, letters, at, _LANES), _load(builder, powers, at, _LANES))
            for shift in (1, 2, 4):
                moved = ir.Constant(vector, [lane + _LANES - shift if lane >= shift else 0 for lane in range(_LANES)])
                value = builder.add(value, builder.shuffle_vector(zero, value, moved))
            value = builder.add(value, running)
            builder.store(value, _vector_at(builder, target, at, _LANES)).align = 4
            running = _broadcast(builder, value, _LANES, _LANES - 1)
        following = builder.add(block, ir.Constant(_I64, 1))
        block.add_incoming(ir.Constant(_I64, 0), before)
        block.add_incoming(following, loop)
        carry.add_incoming(zero, before)
        carry.add_incoming(running, loop)
        builder.cbranch(builder.icmp_signed("<", following, blocks), loop, after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(codes, blocks, factors, sums, gaps), generate


@intrinsic
def fold_ascii(_typing: Any, utf8: Any, i: Any, out: Any, k: Any) -> Any:
    """Fold the ASCII that utf8[i : i + LETTERS] begins with into out[k:], which has room for LETTERS values.

    Letters become lower case, digits stay, all else is zero. Returns how many bytes those are in the lower half of a
    uint64, and how many of them are letters in the upper.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, target = (_data(context, builder, signature.args[n], arguments[n]) for n in (0, 2))
        byte = ir.VectorType(ir.IntType(8), LETTERS)

        def each(value: int) -> Any:
            return ir.Constant(byte, [value] * LETTERS)

        place = builder.bitcast(builder.gep(source, [arguments[1]]), byte.as_pointer())
        codes = builder.load(place, align=1)
        lower = builder.or_(codes, each(0x20))
        is_letter = builder.icmp_unsigned("<", builder.sub(lower, each(0x61)), each(26))
        is_digit = builder.icmp_unsigned("<", builder.sub(codes, each(0x30)), each(10))
        folded = builder.select(is_letter, lower, builder.select(is_digit, codes, each(0)))
        wide = builder.zext(folded, ir.VectorType(_I32, LETTERS))
        builder.store(wide, _vector_at(builder, target, arguments[3], LETTERS)).align = 4
        other = builder.bitcast(builder.icmp_signed("<", codes, each(0)), _I32)
        count = builder.cttz(builder.zext(other, _I64), ir.Constant(ir.IntType(1), 0))
        is_whole = builder.icmp_unsigned(">", count, ir.Constant(_I64, LETTERS))
        count = builder.select(is_whole, ir.Constant(_I64, LETTERS), count)
        among = builder.sub(builder.shl(ir.Constant(_I64, 1), count), ir.Constant(_I64, 1))
        letters = builder.ctpop(builder.and_(builder.zext(builder.bitcast(is_letter, _I32), _I64), among))
        return builder.or_(builder.shl(letters, ir.Constant(_I64, 32)), count)

    return types.uint64(utf8, i, out, k), generate


@intrinsic
def lowest_bit(_typing: Any, bits: Any) -> Any:
    """The place of the lowest bit that is set in a uint32, which is not zero."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint32(types.uint32), generate
