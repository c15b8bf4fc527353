"""The normal form of a text: what two copies of a page have in common.

Case, width, punctuation and spacing are folded away, so that a re-typeset copy has the same normal form. Text
in a script that is written without spaces (Han, kana, Thai, Lao, Khmer, Burmese) loses its spaces, since they
carry nothing there; any other text keeps one space between words. Simplified and traditional characters stay
apart.

Character classes come from Unicode 3.2, the frozen database that every Python carries, so that the form of a
text does not change with the interpreter; what was assigned later counts as a letter, emoji as punctuation.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
import pyarrow as pa

from pipelines.dedup.lanes import LETTERS, fold_ascii
from pipelines.kernels import kernel

SEPARATOR = np.uint32(0)
VANISH = np.uint32(1 << 29)  # a bit that no other value has
_CODE = np.uint32((1 << 21) - 1)
_1, _2, _3, _4 = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
_BLOCK = np.uint64(LETTERS)
_LETTER = 1 << 30
_UNSPACED = 1 << 31

# A document is written without spaces where these make up a quarter of its letters: one of them carries about
# as much as three Latin letters, so at a quarter half of what is said is said in them.
UNSPACED_FRACTION = 0.25

_UNSPACED_BLOCKS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # Han radicals
    (0x3005, 0x3007),
    (0x3021, 0x312F),  # Han numerals, kana, bopomofo
    (0x31A0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),
)


@cache
def fold_table() -> np.ndarray:
    """(65536,) uint32: SEPARATOR, VANISH, or the folded code point with its letter and unspaced bits."""
    category, normalize = unicodedata.ucd_3_2_0.category, unicodedata.ucd_3_2_0.normalize
    table = np.empty(0x10000, np.uint32)
    for code in range(0x10000):
        character = chr(code)
        if 0xFF00 <= code <= 0xFFEF:
            narrow = normalize("NFKC", character)
            character = narrow if len(narrow) == 1 else character
        kind = category(character)
        if kind == "Cf" or code in (0x00AD, 0x200B):  # soft hyphen and zero-width space had other classes
            table[code] = VANISH
        elif kind in ("Cc", "Cs", "Zs", "Zl", "Zp") or kind[0] in "PS":
            table[code] = SEPARATOR
        else:
            lower = character.lower() if kind[0] == "L" else character
            folded = ord(lower) if len(lower) == 1 else ord(character)
            table[code] = folded | (_LETTER if kind[0] == "L" or kind == "Cn" else 0)
    for first, last in _UNSPACED_BLOCKS:
        block = table[first : last + 1]
        block[(block != SEPARATOR) & (block != VANISH)] |= np.uint32(_UNSPACED | _LETTER)
    table.flags.writeable = False
    return table


@kernel
def _fold_astral(code):
    """The table's rule above U+FFFF: emoji and pictographs separate, tags vanish, planes 2 and 3 are Han."""
    if 0x1F000 <= code <= 0x1FAFF:
        return np.uint32(0)
    if code >= 0xE0000:
        return VANISH
    if 0x20000 <= code <= 0x3FFFF:
        return np.uint32(code | (1 << 30) | (1 << 31))
    return np.uint32(code | (1 << 30))


@kernel
def fold_raw(utf8, start, end, table, out):  # noqa: C901 - a branch a length of UTF-8
    """A folded code point, or zero for a separator, for each character of utf8[start:end] that does not vanish.

    Returns (length, unspaced): whether the text counts as written without spaces. `out` must hold end - start values.
    Bytes that are not UTF-8 count as separators and never read outside the range. Indices are unsigned: a signed one
    is tested for being negative at every access.
    """
    k = np.uint64(0)
    end = np.uint64(end)
    letters = np.uint64(0)
    unspaced = np.uint64(0)
    i = np.uint64(start)
    while i < end:
        byte = np.uint32(utf8[i])
        if byte < 0x80:
            while i + _BLOCK <= end:
                folded = fold_ascii(utf8, i, out, k)
                letters += folded >> np.uint64(32)
                folded &= np.uint64(0xFFFFFFFF)
                i += folded
                k += folded
                if folded < _BLOCK:
                    break
            while i < end:
                byte = np.uint32(utf8[i])
                if byte >= 0x80:
                    break
                value = table[byte]  # nothing of ASCII vanishes, and none of it is unspaced
                out[k] = value & _CODE
                k += _1
                letters += np.uint64(value >> np.uint32(30))
                i += _1
            continue
        if byte >= 0xE0 and byte < 0xF0 and i + _2 < end:
            while True:
                code = ((byte & np.uint32(0x0F)) << np.uint32(12)) | (
                    (np.uint32(utf8[i + _1]) & np.uint32(0x3F)) << np.uint32(6)
                )
                value = table[code | (np.uint32(utf8[i + _2]) & np.uint32(0x3F))]
                out[k] = value & _CODE
                k += np.uint64(value != VANISH)
                letters += np.uint64((value >> np.uint32(30)) & np.uint32(1))
                unspaced += np.uint64(value >> np.uint32(31))
                i += _3
                if i + _2 >= end:
                    break
                byte = np.uint32(utf8[i])
                if byte < 0xE0 or byte >= 0xF0:
                    break
            continue
        if byte >= 0xC0 and byte < 0xE0 and i + _1 < end:
            value = table[((byte & np.uint32(0x1F)) << np.uint32(6)) | (np.uint32(utf8[i + _1]) & np.uint32(0x3F))]
            i += _2
        elif byte >= 0xF0 and byte < 0xF8 and i + _3 < end:
            code = ((byte & np.uint32(0x07)) << np.uint32(18)) | (
                (np.uint32(utf8[i + _1]) & np.uint32(0x3F)) << np.uint32(12)
            )
            code |= ((np.uint32(utf8[i + _2]) & np.uint32(0x3F)) << np.uint32(6)) | (
                np.uint32(utf8[i + _3]) & np.uint32(0x3F)
            )
            value = _fold_astral(code) if code >= 0x10000 else table[code]
            i += _4
        else:
            value = np.uint32(0)
            i += _1
        out[k] = value & _CODE
        k += np.uint64(value != VANISH)
        letters += np.uint64((value >> np.uint32(30)) & np.uint32(1))
        unspaced += np.uint64(value >> np.uint32(31))
    return np.int64(k), unspaced > np.uint64(0) and unspaced >= UNSPACED_FRACTION * letters


@kernel
def tighten(codes, length, unspaced):
    """Drop the separators that mean nothing, in place: all of an unspaced text, else all but one between two words."""
    kept = np.uint64(0)
    if unspaced:
        for j in range(np.uint64(length)):
            code = codes[j]
            codes[kept] = code
            kept += np.uint64(code != np.uint32(0))
        return np.int64(kept)
    before = np.uint32(0)
    for j in range(np.uint64(length)):
        code = codes[j]
        codes[kept] = code
        kept += np.uint64((code | before) != np.uint32(0))
        before = code
    if kept > np.uint64(0) and codes[kept - _1] == np.uint32(0):
        kept -= _1
    return np.int64(kept)


@kernel
def fold(utf8, start, end, table, out):
    """Folded code points of utf8[start:end] into `out`; separators are single zeros, none at either end.

    Returns (length, unspaced): whether the text counts as written without spaces; then it has no separators left.
    `out` must hold end - start + 1 values.
    """
    length, unspaced = fold_raw(utf8, start, end, table, out)
    return tighten(out, length, unspaced), unspaced


@kernel
def encode(codes, length, out, k):
    """UTF-8 of codes[:length], raw or tight, into out from k, with one space for a run of zeros; returns the new k."""
    first = k
    before = np.uint32(0)
    for j in range(length):
        code = codes[j]
        if code < 0x80:
            out[k] = code if code != np.uint32(0) else np.uint32(0x20)
            k += (code | before) != np.uint32(0)
        elif code < 0x800:
            out[k] = 0xC0 | (code >> np.uint32(6))
            out[k + 1] = 0x80 | (code & np.uint32(0x3F))
            k += 2
        elif code < 0x10000:
            out[k] = 0xE0 | (code >> np.uint32(12))
            out[k + 1] = 0x80 | ((code >> np.uint32(6)) & np.uint32(0x3F))
            out[k + 2] = 0x80 | (code & np.uint32(0x3F))
            k += 3
        else:
            out[k] = 0xF0 | (code >> np.uint32(18))
            out[k + 1] = 0x80 | ((code >> np.uint32(12)) & np.uint32(0x3F))
            out[k + 2] = 0x80 | ((code >> np.uint32(6)) & np.uint32(0x3F))
            out[k + 3] = 0x80 | (code & np.uint32(0x3F))
            k += 4
        before = code
    return k - 1 if before == np.uint32(0) and k > first else k


@kernel
def _normal_forms(utf8, offsets, table, out, out_offsets):
    longest = 0
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    codes = np.empty(longest + 1, np.uint32)
    k = 0
    for d in range(len(offsets) - 1):
        length, _ = fold(utf8, offsets[d], offsets[d + 1], table, codes)
        k = encode(codes, length, out, k)
        out_offsets[d + 1] = k


def utf8_of(texts: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """(bytes uint8, offsets int64 of n + 1) of a string array; a null reads as empty text."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    texts = texts.cast(pa.large_string())
    if texts.null_count:  # a copy of all bytes
        texts = texts.fill_null("")
    if len(texts) == 0:
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, body = texts.buffers()
    bounds = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return (np.frombuffer(body, np.uint8) if body is not None else np.zeros(0, np.uint8)), bounds


def normal_forms(texts: pa.Array | pa.ChunkedArray) -> pa.LargeStringArray:
    """The normal form of each text; "" for null and for text without a letter or digit. (n,) -> (n,)."""
    utf8, offsets = utf8_of(texts)
    # A lower-case letter can be longer than its capital in UTF-8 (two bytes to three): half as much again is
    # enough.
    out = np.empty(int(offsets[-1] - offsets[0]) * 3 // 2 + 8, np.uint8)
    out_offsets = np.zeros(len(offsets), np.int64)
    _normal_forms(utf8, offsets, fold_table(), out, out_offsets)
    body = pa.py_buffer(out[: out_offsets[-1]].copy())
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(out_offsets), body)
