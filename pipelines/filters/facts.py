"""Facts: what one pass counts in every text; measures are ratios of these, a vector a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FACTS = (
    # characters; `visible` is of the whole text, all else of the part that is looked at
    "length", "visible", "head_visible", "letters", "alphanumeric", "unspaced", "digits", "capitals",
    "hashes", "ellipses", "stops", "replacement_characters",
    # lines with something on them, stripped
    "newlines", "lines", "line_characters", "bullet_lines", "ended_lines", "terminal_lines", "ellipsis_lines",
    "short_lines_30", "short_lines_10", "longest_line", "prose_characters", "capital_lines", "numeric_lines",
    # units: words, ideograms, marks
    "units", "unit_characters", "words", "word_characters", "letter_words", "digit_words", "ideograms",
    "distinct_words", "distinct_of",
    # C4: lines that end as sentences, with three words or more, and their sentences
    "c4_lines", "c4_sentences", "c4_curly_lines", "sentences",
    # line rules: words on lines that RefinedWeb's rules flag, on boilerplate lines
    "flagged_words", "flagged_lines", "boilerplate_words", "boilerplate_lines",
    # repetition
    "duplicate_lines", "duplicate_line_characters", "paragraphs", "duplicate_paragraphs",
    "duplicate_paragraph_characters", "paragraph_characters",
    "top_2", "top_3", "top_4", "repeated_5", "repeated_6", "repeated_7", "repeated_8", "repeated_9", "repeated_10",
)  # fmt: skip
FACT = {name: index for index, name in enumerate(FACTS)}
CHARACTERS_A_WORD = 1.6  # ideograms of a segmented word of Mandarin, in running text
UNSPACED_SHARE = 0.2  # of the letters and digits; from here on a text counts as written without spaces


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Counts of a batch of n texts.

    `counts` is (n, FACTS) int64; `hits` is (n, lists, 3) int64: hits of a word list, units in them, distinct entries.
    `raw` is (n,) texts, for a measure that wants to look for itself.
    """

    counts: np.ndarray
    hits: np.ndarray
    lists: tuple[str, ...]
    raw: object = None

    def __getitem__(self, name: str) -> np.ndarray:
        """(n,) float64 of one fact."""
        return self.counts[:, FACT[name]].astype(np.float64)

    def listed(self, name: str, what: str = "hits") -> np.ndarray:
        """(n,) float64: `hits`, `units` or `distinct` of one word list."""
        return self.hits[:, self.lists.index(name), ("hits", "units", "distinct").index(what)].astype(np.float64)

    def share(self, part: str, whole: str) -> np.ndarray:
        """(n,) part over whole, 0.0 where the whole is 0, at most 1."""
        return ratio(self[part], self[whole])

    def with_rows(self, rows: Sequence[int], others: Facts, raw: object) -> Facts:
        """These facts with `rows` replaced by those of `others`, in order; `raw` are the texts that they are now of."""
        counts, hits = self.counts.copy(), self.hits.copy()
        counts[list(rows)], hits[list(rows)] = others.counts, others.hits
        return Facts(counts=counts, hits=hits, lists=self.lists, raw=raw)

    def in_words(self, units: str = "units") -> np.ndarray:
        """(n,) units, or some of them, with ideograms counted as the words that segmentation would make of them."""
        ideograms = np.where(self.is_unspaced, self["ideograms"], 0.0)
        return self[units] - ideograms + ideograms / CHARACTERS_A_WORD

    @property
    def is_unspaced(self) -> np.ndarray:
        """(n,) bool: written without spaces (Han, kana)."""
        return self.share("unspaced", "alphanumeric") >= UNSPACED_SHARE


def ratio(part: np.ndarray, whole: np.ndarray, most: float = 1.0) -> np.ndarray:
    """part / whole, 0.0 where the whole is 0, at most `most`."""
    return np.minimum(np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0), most)
