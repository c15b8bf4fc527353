"""What a quality classifier sees of a text: one line of lower-case words and marks.

Han and kana count a character at a time, so that Chinese needs no word segmenter; everything else goes by
words. Underscores separate, so that no text can hold a fastText label.
"""

from __future__ import annotations

import re

MAX_CHARACTERS = 20_000  # what a classifier needs of the longest book
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
    r"|[^\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]{1,40}"
    r"|[^\s\w]"
)


def words(text: str | None) -> str:
    """Words, single Han characters and punctuation marks, separated by spaces; "" for null."""
    return " ".join(_WORD.findall((text or "")[:MAX_CHARACTERS].lower()))
