"""The tables of the fast encoder: which symbols merge, in which order, and between which characters none ever does.

SentencePiece's BPE looks at a whole text as one unit: of all neighbours whose joined text is a piece it joins those
with the highest score, the leftmost first. A symbol never spans two characters that stand side by side in no piece, so
a text may be cut there: the merges on both sides neither see nor wait for each other. Chinese clauses fall into runs of
two or three characters so, English into words.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np

from pipelines.errors import IntegrityError
from pipelines.tokens.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, Vocabulary, read_vocabulary

SPACE_MARK = "\u2581"
SYMBOL_BITS = 17
MOST_SYMBOLS = (1 << SYMBOL_BITS) - 1
ONLY_ADJACENT = MOST_SYMBOLS  # in the place of an order: side by side in a piece, but no piece together
CUT = MOST_SYMBOLS + 1  # side by side in no piece
NO_SYMBOL = -1
_CODE_POINTS = 0x110000
HASH_FACTOR = -7046029254386353131  # 2^64 / golden ratio, as a signed number
HASH_SHIFT = 24
FILTER_BITS = 20  # 128 KiB: it stays in a core's own cache, where the table of pairs does not
FILTER_SHIFT = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeTables:
    """What the kernel reads. A symbol is a piece's id or, from the vocabulary's size on, a character without piece."""

    symbols: np.ndarray  # (0x110000,) int32: the symbol of a code point, NO_SYMBOL where no piece holds it
    by_order: np.ndarray  # (k,) int32: the piece that the merge of each order makes; order 0 is merged first
    pairs: np.ndarray  # (2^b,) int64: left, right and order in one number, -1 for an empty slot
    adjacent: np.ndarray  # (2^17,) uint8: a bit for each hash of two characters that may stand side by side in a piece
    ascii_pairs: np.ndarray  # (128 * 128,) int32: the order of two ASCII characters, ONLY_ADJACENT or CUT
    byte_ids: np.ndarray  # (256,) int32
    lone: np.ndarray  # (c,) int32: code points of the symbols from the vocabulary's size on
    vocab_size: int


@functools.lru_cache(maxsize=2)
def tables_of(model: bytes) -> MergeTables:
    """`build_tables` of a `.model` file, once a process: half a second for 65,536 pieces."""
    return build_tables(read_vocabulary(model))


def build_tables(vocabulary: Vocabulary) -> MergeTables:
    """The tables of a vocabulary; IntegrityError, with the reason, where the fast encoder does not serve it."""
    _check(vocabulary)
    normal = vocabulary.normal
    by_order = normal[np.argsort(-vocabulary.scores[normal], kind="stable")].astype(np.int32)
    order = np.zeros(len(vocabulary.pieces), np.int64)
    order[by_order] = np.arange(len(by_order))
    known = {vocabulary.pieces[i]: int(i) for i in normal}
    lone = _lone(known, len(vocabulary.pieces))
    symbol = known | lone
    merges, adjacent = _merges(known, symbol, order)
    symbols = np.full(_CODE_POINTS, NO_SYMBOL, np.int32)
    for character, i in symbol.items():
        if len(character) == 1:
            symbols[ord(character)] = i
    symbols[0x20] = symbols[ord(SPACE_MARK)]
    symbols[ord(SPACE_MARK)] = NO_SYMBOL  # the mark itself goes by its bytes: it cannot be told from a space else
    return MergeTables(
        symbols=symbols,
        by_order=by_order,
        pairs=_hashed(merges),
        adjacent=adjacent,
        ascii_pairs=_ascii_pairs(symbols, merges),
        byte_ids=np.array([vocabulary.pieces.index(f"<0x{byte:02X}>") for byte in range(256)], np.int32),
        lone=np.array([ord(character) for character in lone], np.int32),
        vocab_size=len(vocabulary.pieces),
    )


def _check(vocabulary: Vocabulary) -> None:
    if not vocabulary.has_distinct_scores:
        raise IntegrityError("pieces have equal scores: the order of merges is not plain")
    if set(vocabulary.kinds.tolist()) - {NORMAL, UNKNOWN, CONTROL, BYTE}:
        raise IntegrityError("the vocabulary has pieces that are neither merged, bytes nor control symbols")
    if int((vocabulary.kinds == BYTE).sum()) != 256:
        raise IntegrityError("the vocabulary has no piece for each byte")
    if any("\x00" in vocabulary.pieces[i] or " " in vocabulary.pieces[i] for i in vocabulary.normal):
        raise IntegrityError("a piece holds NUL or a plain space")
    if SPACE_MARK not in (vocabulary.pieces[i] for i in vocabulary.normal):
        raise IntegrityError("the vocabulary has no piece for the space")


def _lone(known: dict[str, int], first: int) -> dict[str, int]:
    """Symbols, from `first` on, of the characters that stand in pieces and are none."""
    lone: dict[str, int] = {}
    for piece in known:
        for character in piece:
            if character not in known and character not in lone:
                lone[character] = first + len(lone)
    if first + len(lone) >= MOST_SYMBOLS:
        raise IntegrityError(f"the fast encoder takes {MOST_SYMBOLS - 1} symbols at most")
    return lone


def _merges(
    known: dict[str, int], symbol: dict[str, int], order: np.ndarray
) -> tuple[dict[tuple[int, int], int], np.ndarray]:
    """The order of each two symbols that stand side by side in a piece, and the filter of the characters among them."""
    merges: dict[tuple[int, int], int] = {}
    adjacent = np.zeros(1 << FILTER_BITS - 3, np.uint8)
    for piece in known:
        for left, right in itertools.pairwise(piece):
            pair = symbol[left], symbol[right]
            if pair not in merges:
                merges[pair] = ONLY_ADJACENT
                bit = _hash(pair[0] << SYMBOL_BITS | pair[1]) >> FILTER_SHIFT & (1 << FILTER_BITS) - 1
                adjacent[bit >> 3] |= 1 << (bit & 7)
    for piece, made in known.items():
        for at in range(1, len(piece)):
            left, right = symbol.get(piece[:at]), symbol.get(piece[at:])
            if left is not None and right is not None:
                merges[left, right] = int(order[made])
    return merges, adjacent


def _hashed(merges: dict[tuple[int, int], int]) -> np.ndarray:
    """Open addressing, at most half full."""
    size = 1 << max(8, (2 * len(merges)).bit_length())
    table = np.full(size, -1, np.int64)
    for (left, right), order in merges.items():
        key = left << SYMBOL_BITS | right
        at = _hash(key) >> HASH_SHIFT & size - 1
        while table[at] >= 0:
            at = (at + 1) & (size - 1)
        table[at] = key << SYMBOL_BITS | order
    return table


def _hash(key: int) -> int:
    """The kernel reckons the same in 64 bits."""
    return key * HASH_FACTOR & (1 << 64) - 1


def _ascii_pairs(symbols: np.ndarray, merges: dict[tuple[int, int], int]) -> np.ndarray:
    table = np.full(128 * 128, CUT, np.int32)
    for left in range(128):
        for right in range(128):
            table[left * 128 + right] = merges.get((int(symbols[left]), int(symbols[right])), CUT)
    return table
