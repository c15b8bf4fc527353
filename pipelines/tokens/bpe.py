"""Exact BPE over the bytes of an Arrow column: cut where nothing can merge, merge what is left, remember words.

A run of characters between two cuts is a segment. Segments of one or two characters, most of Chinese, need no search;
short ones are looked up among those met before, by their very bytes; the rest merge by a scan of the orders, or over a
heap where the segment is long, so that no text costs more than n log n.
"""

from __future__ import annotations

import numpy as np

from pipelines.kernels import kernel, subkernel
from pipelines.tokens.merges import (
    CUT,
    FILTER_BITS,
    FILTER_SHIFT,
    HASH_FACTOR,
    HASH_SHIFT,
    NO_SYMBOL,
    ONLY_ADJACENT,
    SYMBOL_BITS,
)

HAS_NUL, HAS_MARK, NOT_UTF8, HAS_LONG_SEGMENT = 1, 2, 4, 8
LONG_SEGMENT = 1 << 16  # characters
KNOWN_SLOTS = 1 << 15
_LOW = (1 << SYMBOL_BITS) - 1
_SHORT = 24  # characters that a scan merges faster than a heap
_KEY_BYTES = 16
_KEPT = 3  # ids that a remembered segment may have
_MARK = 0x2581
_KEY_FACTOR = -4417276706812531889


@subkernel
def _order_of(pairs: np.ndarray, left: int, right: int) -> int:
    """The order in which two symbols merge; ONLY_ADJACENT or CUT where they do not."""
    mask = len(pairs) - 1
    key = left << SYMBOL_BITS | right
    at = (key * HASH_FACTOR >> HASH_SHIFT) & mask
    while True:
        found = pairs[at]
        if found < 0:
            return CUT
        if found >> SYMBOL_BITS == key:
            return found & _LOW
        at = (at + 1) & mask


@subkernel
def _order_between(pairs: np.ndarray, adjacent: np.ndarray, left: int, right: int) -> int:
    """The same of two characters, nearly all of which that stand in no piece together are told by the filter."""
    bit = (left << SYMBOL_BITS | right) * HASH_FACTOR >> FILTER_SHIFT & (1 << FILTER_BITS) - 1
    if adjacent[bit >> 3] >> (bit & 7) & 1 == 0:
        return CUT
    return _order_of(pairs, left, right)


@subkernel
def _merge_short(symbols: np.ndarray, orders: np.ndarray, n: int, pairs: np.ndarray, by_order: np.ndarray) -> int:
    """Merge in place; orders[i] is of symbols i and i + 1. Symbols left."""
    while n > 1:
        best, at = ONLY_ADJACENT, 0
        for i in range(n - 1):
            if orders[i] < best:
                best, at = orders[i], i
        if best == ONLY_ADJACENT:
            break
        symbols[at] = by_order[best]
        n -= 1
        for i in range(at + 1, n):
            symbols[i] = symbols[i + 1]
            orders[i - 1] = orders[i]
        if at > 0:
            orders[at - 1] = _order_of(pairs, symbols[at - 1], symbols[at])
        if at < n - 1:
            orders[at] = _order_of(pairs, symbols[at], symbols[at + 1])
    return n


@subkernel
def _push(heap: np.ndarray, size: int, entry: int) -> None:
    at = size
    while at > 0 and heap[(at - 1) >> 1] > entry:
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = entry


@subkernel
def _pop(heap: np.ndarray, size: int) -> int:
    """The least entry; the others fill the heap's first size - 1 places."""
    least, last, at = heap[0], heap[size - 1], 0
    size -= 1
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= last:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = last
    return least


@subkernel
def _merge_long(symbols: np.ndarray, orders: np.ndarray, n: int, pairs: np.ndarray, by_order: np.ndarray) -> int:
    """The same over a heap of (order, place); an entry is stale where its place has another order by now."""
    heap = np.empty(3 * n, np.int64)
    before, after = np.arange(-1, n - 1), np.arange(1, n + 1)
    size = 0
    orders[n - 1] = CUT
    for i in range(n - 1):
        if orders[i] < ONLY_ADJACENT:
            _push(heap, size, orders[i] << 32 | i)
            size += 1
    while size > 0:
        entry = _pop(heap, size)
        size -= 1
        at = entry & 0xFFFFFFFF
        if orders[at] != entry >> 32:
            continue
        symbols[at] = by_order[orders[at]]
        gone = after[at]
        orders[gone] = CUT
        symbols[gone] = -1
        after[at] = after[gone]
        orders[at] = CUT
        if after[at] < n:
            before[after[at]] = at
            orders[at] = _order_of(pairs, symbols[at], symbols[after[at]])
            if orders[at] < ONLY_ADJACENT:
                _push(heap, size, orders[at] << 32 | at)
                size += 1
        left = before[at]
        if left >= 0:
            orders[left] = _order_of(pairs, symbols[left], symbols[at])
            if orders[left] < ONLY_ADJACENT:
                _push(heap, size, orders[left] << 32 | left)
                size += 1
    kept = 0
    for i in range(n):
        if symbols[i] >= 0:
            symbols[kept] = symbols[i]
            kept += 1
    return kept


@subkernel
def _put_bytes(out: np.ndarray, w: int, point: int, byte_ids: np.ndarray) -> int:
    """The ids of a code point's UTF-8 bytes."""
    if point < 0x80:
        out[w] = byte_ids[point]
        return w + 1
    if point < 0x800:
        out[w] = byte_ids[0xC0 | point >> 6]
        out[w + 1] = byte_ids[0x80 | point & 0x3F]
        return w + 2
    if point < 0x10000:
        out[w] = byte_ids[0xE0 | point >> 12]
        out[w + 1] = byte_ids[0x80 | point >> 6 & 0x3F]
        out[w + 2] = byte_ids[0x80 | point & 0x3F]
        return w + 3
    out[w] = byte_ids[0xF0 | point >> 18]
    out[w + 1] = byte_ids[0x80 | point >> 12 & 0x3F]
    out[w + 2] = byte_ids[0x80 | point >> 6 & 0x3F]
    out[w + 3] = byte_ids[0x80 | point & 0x3F]
    return w + 4


@subkernel
def _put_symbols(
    out: np.ndarray, w: int, symbols: np.ndarray, n: int, lone: np.ndarray, byte_ids: np.ndarray, vocab_size: int
) -> int:
    for i in range(n):
        symbol = symbols[i]
        if symbol < vocab_size:
            out[w] = symbol
            w += 1
        else:
            w = _put_bytes(out, w, lone[symbol - vocab_size], byte_ids)
    return w


@subkernel
def _merge(symbols: np.ndarray, orders: np.ndarray, n: int, pairs: np.ndarray, by_order: np.ndarray) -> int:
    if n <= _SHORT:
        return _merge_short(symbols, orders, n, pairs, by_order)
    return _merge_long(symbols, orders, n, pairs, by_order)


@kernel
def encode_column(
    data: np.ndarray,
    offsets: np.ndarray,
    symbol_of: np.ndarray,
    by_order: np.ndarray,
    pairs: np.ndarray,
    adjacent: np.ndarray,
    ascii_pairs: np.ndarray,
    byte_ids: np.ndarray,
    lone: np.ndarray,
    vocab_size: int,
    known: np.ndarray,
    symbols: np.ndarray,
    orders: np.ndarray,
    out: np.ndarray,
    ends: np.ndarray,
    risks: np.ndarray,
    first_id: int,
    last_id: int,
) -> int:
    """Ids of the texts data[offsets[i]:offsets[i + 1]] one after another in `out`; how many were written.

    first_id and last_id stand around each text that has any bytes; none where negative. `symbols` and `orders` are
    scratch as long as the longest text has bytes; `out` needs a place for each byte and two for each text. ends[i] is
    set to where text i ends, risks[i] to what the text has of the classes above (HAS_NUL, ...).
    """
    w = 0
    for text in range(len(offsets) - 1):
        at, end = offsets[text], offsets[text + 1]
        risk = 0
        if first_id >= 0 and end > at:
            out[w] = first_id
            w += 1
        is_filled = end > at
        n = 0
        before, previous = np.int64(0), np.int64(0)
        key_high, key_low, start = np.int64(0), np.int64(0), at
        while True:
            here, symbol, point, order = at, np.int64(NO_SYMBOL), np.int64(0), np.int64(CUT)
            if at < end:
                first = np.int64(data[at])
                if first < 0x80:
                    point = first
                    at += 1
                    symbol = np.int64(symbol_of[point])
                    if n > 0 and symbol >= 0:
                        if previous < 0x80:
                            order = np.int64(ascii_pairs[previous << 7 | point])
                            if order != CUT:
                                orders[n - 1] = order
                                symbols[n] = symbol
                                n += 1
                                before, previous = symbol, point
                                if at - start <= _KEY_BYTES:
                                    key_high = key_high << 8 | key_low >> 56 & 0xFF
                                    key_low = key_low << 8 | point
                                continue
                        else:
                            order = _order_between(pairs, adjacent, before, symbol)
                else:
                    second = np.int64(data[at + 1]) ^ 0x80 if at + 1 < end else np.int64(0x80)
                    third = np.int64(data[at + 2]) ^ 0x80 if at + 2 < end else np.int64(0x80)
                    if first < 0xE0:
                        point = (first & 0x1F) << 6 | second
                        is_bad = point < 0x80 or second > 0x3F or first < 0xC2
                        at += 2
                    elif first < 0xF0:
                        point = (first & 0x0F) << 12 | second << 6 | third
                        is_bad = point < 0x800 or (second | third) > 0x3F or 0xD800 <= point < 0xE000
                        at += 3
                    else:
                        fourth = np.int64(data[at + 3]) ^ 0x80 if at + 3 < end else np.int64(0x80)
                        point = (first & 0x07) << 18 | second << 12 | third << 6 | fourth
                        is_bad = point < 0x10000 or (second | third | fourth) > 0x3F or point > 0x10FFFF or first > 0xF4
                        at += 4
                    if is_bad:
                        risk |= NOT_UTF8
                        break
                    symbol = np.int64(symbol_of[point])
                    if n > 0 and symbol >= 0:
                        order = _order_between(pairs, adjacent, before, symbol)
            if order == CUT:
                if n == 1 and before < vocab_size:
                    out[w] = before
                    w += 1
                elif n == 2 and orders[0] < ONLY_ADJACENT:
                    out[w] = by_order[orders[0]]
                    w += 1
                elif n > 2:
                    slot = ((key_low ^ key_high * _KEY_FACTOR) * HASH_FACTOR >> 32) & (KNOWN_SLOTS - 1)
                    if here - start <= _KEY_BYTES and known[slot, 0] == key_high and known[slot, 1] == key_low:
                        ids = known[slot, 2]
                        out[w] = ids >> 2 & _LOW
                        out[w + 1] = ids >> 2 + SYMBOL_BITS & _LOW
                        out[w + 2] = ids >> 2 + 2 * SYMBOL_BITS & _LOW
                        w += ids & 3
                    else:
                        if n > LONG_SEGMENT:
                            risk |= HAS_LONG_SEGMENT
                        n = _merge(symbols, orders, n, pairs, by_order)
                        since = w
                        w = _put_symbols(out, w, symbols, n, lone, byte_ids, vocab_size)
                        if here - start <= _KEY_BYTES and w - since <= _KEPT:
                            ids = np.int64(0)
                            for i in range(w - 1, since - 1, -1):
                                ids = ids << SYMBOL_BITS | np.int64(out[i])
                            known[slot, 0], known[slot, 1] = key_high, key_low
                            known[slot, 2] = ids << 2 | w - since
                elif n > 0:
                    w = _put_symbols(out, w, symbols, n, lone, byte_ids, vocab_size)
                if here >= end:
                    break
                n, key_high, key_low, start = 0, np.int64(0), np.int64(0), here
                if symbol < 0:
                    if point == 0:
                        risk |= HAS_NUL
                    elif point == _MARK:
                        risk |= HAS_MARK
                    w = _put_bytes(out, w, point, byte_ids)
                    continue
            else:
                orders[n - 1] = order
            symbols[n] = symbol
            n += 1
            before, previous = symbol, point
            if at - start <= _KEY_BYTES:
                for i in range(here, at):
                    key_high = key_high << 8 | key_low >> 56 & 0xFF
                    key_low = key_low << 8 | np.int64(data[i])
        if last_id >= 0 and is_filled:
            out[w] = last_id
            w += 1
        ends[text] = w
        risks[text] = risk
    return w
