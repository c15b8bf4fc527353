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

from pipelines.kernels import kernel

SEPARATOR = np.uint32(0)
VANISH = np.uint32(1 << 29)  # a bit that no other value has
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
def fold(utf8, start, end, table, out):
    """Folded code points of utf8[start:end] into `out`; separators are single zeros, none at either end.

    Returns (length, unspaced): whether the text counts as written without spaces; then it has no separators
    left. `out` must hold end - start + 1 values. Bytes that are not UTF-8 never read outside the range.
    """
    k = 0
    letters = 0
    unspaced = 0
    before = np.uint32(0)
    i = start
    while i < end:
        byte = np.uint32(utf8[i])
        if byte < 0x80:
            value = table[byte]
            i += 1
        elif byte >= 0xE0 and byte < 0xF0 and i + 2 < end:
            code = ((byte & np.uint32(0x0F)) << np.uint32(12)) | (
                (np.uint32(utf8[i + 1]) & np.uint32(0x3F)) << np.uint32(6)
            )
            value = table[code | (np.uint32(utf8[i + 2]) & np.uint32(0x3F))]
            i += 3
        elif byte >= 0xC0 and byte < 0xE0 and i + 1 < end:
            value = table[((byte & np.uint32(0x1F)) << np.uint32(6)) | (np.uint32(utf8[i + 1]) & np.uint32(0x3F))]
            i += 2
        elif byte >= 0xF0 and byte < 0xF8 and i + 3 < end:
            code = ((byte & np.uint32(0x07)) << np.uint32(18)) | (
                (np.uint32(utf8[i + 1]) & np.uint32(0x3F)) << np.uint32(12)
            )
            code |= ((np.uint32(utf8[i + 2]) & np.uint32(0x3F)) << np.uint32(6)) | (
                np.uint32(utf8[i + 3]) & np.uint32(0x3F)
            )
            value = _fold_astral(code) if code >= 0x10000 else table[code]
            i += 4
        else:
            value = np.uint32(0)
            i += 1
        # Without branches, which would miss at every border of a word.
        stays = value != VANISH and (value | before) != np.uint32(0)
        out[k] = value & np.uint32((1 << 21) - 1)
        k += stays
        letters += (value >> np.uint32(30)) & np.uint32(1)
        unspaced += (value >> np.uint32(31)) & np.uint32(1)
        before = before if value == VANISH else value
    if k > 0 and out[k - 1] == np.uint32(0):
        k -= 1
    if unspaced > 0 and unspaced >= UNSPACED_FRACTION * letters:
        kept = 0
        for j in range(k):
            out[kept] = out[j]
            kept += out[j] != np.uint32(0)
        return kept, True
    return k, False


@kernel
def _encode(codes, length, out, k):
    """UTF-8 of codes[:length] (zero = space) into out from k; returns the new k."""
    for j in range(length):
        code = codes[j]
        if code == np.uint32(0):
            out[k] = 0x20
            k += 1
        elif code < 0x80:
            out[k] = code
            k += 1
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
    return k


@kernel
def _normal_forms(utf8, offsets, table, out, out_offsets):
    longest = 0
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    codes = np.empty(longest + 1, np.uint32)
    k = 0
    for d in range(len(offsets) - 1):
        length, _ = fold(utf8, offsets[d], offsets[d + 1], table, codes)
        k = _encode(codes, length, out, k)
        out_offsets[d + 1] = k


def utf8_of(texts: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """(bytes uint8, offsets int64 of n + 1) of a string array; a null reads as empty text."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    texts = texts.cast(pa.large_string()).fill_null("")
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
