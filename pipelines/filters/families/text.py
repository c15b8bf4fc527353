"""Sizes and shares of characters."""

from __future__ import annotations

import numpy as np

from pipelines.filters.facts import Facts, ratio


def mean_line_length(facts: Facts) -> np.ndarray:
    """Characters a line, at most 100,000."""
    return ratio(facts["line_characters"], facts["lines"], most=100_000)


def distinct_fraction(facts: Facts) -> np.ndarray:
    """Distinct words among the first 400; 1.0 where there are fewer than 100, which say little."""
    return np.where(facts["distinct_of"] < 100, 1.0, facts.share("distinct_words", "distinct_of")) * (
        facts["words"] > 0
    )


def prose_fraction(facts: Facts) -> np.ndarray:
    """Characters on lines longer than 30 (10 without spaces) that end as sentences do or hold two sentences."""
    return facts.share("prose_characters", "line_characters")


MEASURES = {
    "text.characters": lambda facts: facts["visible"],
    "text.words": lambda facts: facts["words"],
    "text.lines": lambda facts: facts["lines"],
    "text.unspaced_fraction": lambda facts: facts.share("unspaced", "alphanumeric"),
    "text.letter_fraction": lambda facts: facts.share("letters", "head_visible"),
    "text.digit_fraction": lambda facts: facts.share("digits", "head_visible"),
    "text.capital_fraction": lambda facts: facts.share("capitals", "letters"),
    "text.broken_fraction": lambda facts: facts.share("replacement_characters", "head_visible"),
    "text.mean_line_length": mean_line_length,
    "text.distinct_fraction": distinct_fraction,
    "text.prose_fraction": prose_fraction,
}
