"""FineWeb's rules (Penedo et al. 2024, section 3.6) and FineWeb-2's for Mandarin."""

from __future__ import annotations

import numpy as np

from pipelines.filters.facts import Facts, ratio


def short_line_fraction(facts: Facts) -> np.ndarray:
    """Lines of at most 30 characters (10 where the text is written without spaces)."""
    short = np.where(facts.is_unspaced, facts["short_lines_10"], facts["short_lines_30"])
    return ratio(short, facts["lines"])


def dup_line_char_fraction(facts: Facts) -> np.ndarray:
    """Characters of lines that occurred before, over characters without line ends."""
    return ratio(facts["duplicate_line_characters"], facts["length"] - facts["newlines"])


MEASURES = {
    "fineweb.line_end_fraction": lambda facts: facts.share("ended_lines", "lines"),
    "fineweb.line_stop_fraction": lambda facts: facts.share("terminal_lines", "lines"),
    "fineweb.short_line_fraction": short_line_fraction,
    "fineweb.dup_line_char_fraction": dup_line_char_fraction,
    "fineweb.newline_word_ratio": lambda facts: ratio(facts["newlines"], facts.in_words()),
    "fineweb2.stop_words": lambda facts: facts.listed("stop_words_zh", "distinct"),
}
