"""Gopher's quality and repetition rules (Rae et al. 2021, appendix A)."""

from __future__ import annotations

import numpy as np

from pipelines.filters.facts import Facts, ratio


def mean_word_length(facts: Facts) -> np.ndarray:
    """Characters a word; about 1 in Chinese, so rules use it for spaced scripts only."""
    return ratio(facts["word_characters"], facts["words"], most=1e6)


def symbol_word_ratio(facts: Facts) -> np.ndarray:
    """Hash signs or ellipses, whichever are more, over words and marks, at most 1."""
    return ratio(np.maximum(facts["hashes"], facts["ellipses"]), facts.in_words())


MEASURES = {
    "gopher.mean_word_length": mean_word_length,
    "gopher.symbol_word_ratio": symbol_word_ratio,
    "gopher.bullet_line_fraction": lambda facts: facts.share("bullet_lines", "lines"),
    "gopher.ellipsis_line_fraction": lambda facts: facts.share("ellipsis_lines", "lines"),
    "gopher.letter_word_fraction": lambda facts: ratio(facts.in_words("letter_words"), facts.in_words()),
    "gopher.stop_words": lambda facts: facts.listed("stop_words_en", "distinct"),
    "gopher.dup_line_fraction": lambda facts: facts.share("duplicate_lines", "lines"),
    "gopher.dup_line_char_fraction": lambda facts: facts.share("duplicate_line_characters", "length"),
    "gopher.dup_paragraph_fraction": lambda facts: facts.share("duplicate_paragraphs", "paragraphs"),
    "gopher.dup_paragraph_char_fraction": lambda facts: facts.share("duplicate_paragraph_characters", "length"),
    **{f"gopher.top_{n}_gram": lambda facts, n=n: facts.share(f"top_{n}", "length") for n in (2, 3, 4)},
    **{f"gopher.dup_{n}_gram": lambda facts, n=n: facts.share(f"repeated_{n}", "length") for n in range(5, 11)},
}
