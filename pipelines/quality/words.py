"""What a quality classifier sees of a text: one line of lower-case words and marks.

Han and kana count a character at a time, so that Chinese needs no word segmenter; everything else goes by
words. Underscores and NUL separate, so that no text can hold a fastText label or a second line.

`words` is the definition, which training and the bare library use. `tables` says the same character by character for
the compiled reader (`reading.py`), which makes no Python string.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np

MAX_CHARACTERS = 20_000  # what a classifier needs of the longest book
MAX_WORD = 40  # a longer run of letters is cut
_SINGLE_BLOCKS = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_SINGLE = "".join(f"{chr(low)}-{chr(high)}" for low, high in _SINGLE_BLOCKS)
_WORD = re.compile(rf"[{_SINGLE}]|[^\W_{_SINGLE}]{{1,{MAX_WORD}}}|[^\s\w\x00]")

# classes of a character
SPACE, LETTER, SINGLE, MARK = 0, 1, 2, 3
DIGIT = 4  # a bit beside the class: alphanumeric and no letter
CAPITAL = 8
ENDS = 16  # closes a sentence
_ENDS = ".!?。！？…"
CODES = 0x20000  # above: planes 2 and 3 are Han, what is left are marks


def words(text: str | None) -> str:
    """Words, single Han characters and punctuation marks, separated by spaces; "" for null.

    Capital sigma and dotted I are folded first: they are the two characters whose lower case depends on what follows
    or is more than one character.
    """
    head = (text or "")[:MAX_CHARACTERS].replace("\u0130", "i").replace("\u03a3", "\u03c3")
    return " ".join(_WORD.findall(head.lower()))


def is_single(word: str) -> bool:
    """Whether it is a character of a script without spaces."""
    return len(word) == 1 and any(low <= ord(word) <= high for low, high in _SINGLE_BLOCKS)


@cache
def tables() -> tuple[np.ndarray, np.ndarray]:
    """((CODES,) uint8 class and bits, (CODES,) uint32 lower case) of each character."""
    kinds, lower = np.zeros(CODES, np.uint8), np.arange(CODES, dtype=np.uint32)
    for code in range(CODES):
        if 0xD800 <= code <= 0xF8FF:
            kinds[code] = MARK
            continue
        kinds[code], lower[code] = _of(chr(code))
    for low, high in _SINGLE_BLOCKS[:-1]:
        block = kinds[low : high + 1]
        block[:] = np.where((block & 3) == SPACE, SPACE, SINGLE)
    for table in (kinds, lower):
        table.setflags(write=False)
    return kinds, lower


def _of(character: str) -> tuple[int, int]:
    folded = "i" if character == "\u0130" else character.lower()
    if character in ("_", "\0") or folded.isspace():
        return SPACE, ord(folded)
    if folded.isalnum():
        is_digit = 0 if folded.isalpha() else DIGIT
        return LETTER | is_digit | (CAPITAL if character != folded else 0), ord(folded)
    return MARK | (ENDS if character in _ENDS else 0), ord(folded)
