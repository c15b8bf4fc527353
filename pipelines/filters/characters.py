"""What each character is, as one number: its lower-case form and its classes, for the kernels of this package.

A table of 2^18 uint32 covers every plane that holds letters; the low 18 bits are the folded code point (lower case,
full-width forms narrowed), the bits above are classes. Built once a process from `unicodedata` and `str`.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np

CODES = 1 << 18
FOLD = np.uint32(CODES - 1)
SPACE = np.uint32(1 << 18)
LETTER = np.uint32(1 << 19)
DIGIT = np.uint32(1 << 20)  # any character that is alphanumeric and no letter
UNSPACED = np.uint32(1 << 21)  # Han and kana: written without spaces
UPPER = np.uint32(1 << 22)
LOWER = np.uint32(1 << 23)
PEEL = np.uint32(1 << 24)  # punctuation, quotes, currency: a token of its own at the edge of a word
SYMBOL = np.uint32(1 << 25)  # punctuation, symbols and controls: a token of these alone is no word
TERMINAL = np.uint32(1 << 26)  # Unicode's Sentence_Terminal
END = np.uint32(1 << 27)  # what a line of prose may end with: also quotes, brackets, colons
BULLET = np.uint32(1 << 28)
PLAIN_END = np.uint32(1 << 29)  # . ? ! and straight quotes: the line ends of C4
PEEL_DASH = np.uint32(1 << 30)  # hyphens and dashes

_UNSPACED_BLOCKS = (
    (0x3005, 0x3007), (0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2FFFF),
    (0x30000, 0x323AF),
)  # fmt: skip
# Sentence_Terminal of PropList.txt (Unicode 15), the blocks in use
_TERMINALS = (
    "!.?։؝؞؟۔܀܁܂߹।॥၊။።፧፨᙮᜵᜶‼‽⁇⁈⁉⸮⸼。꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉﹒﹖﹗！．？｡"
    "\u0837\u0839\u083d\u083e\u1362\u1367\u1368\u1803\u1809\u1944\u1945\u1aa8\u1aa9\u1aaa\u1aab\u1b5a\u1b5b\u1b5e\u1b5f"
    "\u1c3b\u1c3c\u1c7e\u1c7f\u2e53\u2e54\ua60e\ua60f\uaa5d\uaa5e\uaa5f\uaaf0\uaaf1\uabeb\u17d4\u17d5"
)
_ENDS = ".!?。！？…；;:：\"'”’』」）)】》"
_BULLETS = "•‣▪◦·●○■*-–—"
_PEEL = "…,:;!?¿¡()[]{}<>_#*&。？！，、；：～·।،؟؛٪\"'“”`‘´’‚„«»「」『』（）〔〕【】《》〈〉⟦⟧$£€¥฿₽₩＄§%=＝％"
_DASHES = "-–—~―‐‑"


@cache
def table() -> np.ndarray:
    """(2^18,) uint32: folded code point and class bits of each character."""
    made = np.zeros(CODES, np.uint32)
    for code in range(CODES):
        if 0xD800 <= code <= 0xDFFF or 0xE000 <= code <= 0xF8FF or code >= 0x323B0:
            made[code] = code | int(SYMBOL)
        elif 0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or code >= 0x20000:
            made[code] = code | int(LETTER | UNSPACED)
        elif 0xAC00 <= code <= 0xD7A3:
            made[code] = code | int(LETTER)
        else:
            made[code] = _classes(code)
    for low, high in _UNSPACED_BLOCKS:
        made[low : min(high + 1, CODES)] |= UNSPACED
    for characters, bit in ((_TERMINALS, TERMINAL), (_ENDS, END), (_BULLETS, BULLET), (_PEEL, PEEL),
                            (".?!\"'", PLAIN_END), (_DASHES, PEEL_DASH)):  # fmt: skip
        for character in characters:
            made[ord(character)] |= bit
    made.setflags(write=False)
    return made


def _classes(code: int) -> int:
    character = chr(code)
    narrow = unicodedata.normalize("NFKC", character) if 0xFF00 <= code <= 0xFFEF else character
    lower = (narrow if len(narrow) == 1 else character).lower()
    value = ord(lower) if len(lower) == 1 and ord(lower) < CODES else code
    category = unicodedata.category(character)
    if character.isspace():
        value |= int(SPACE)
    if character.isalpha():
        value |= int(LETTER)
    elif character.isalnum():
        value |= int(DIGIT)
    if category == "Lu":
        value |= int(UPPER)
    elif category == "Ll":
        value |= int(LOWER)
    if category[0] in "PSC":
        value |= int(SYMBOL)
    if category == "So":
        value |= int(PEEL)
    return value
