"""Measures of a text, each a column: text in, numbers out; what they mean for the document is `rules.py`'s.

Words are runs of letters and digits; in scripts written without spaces (Han, kana) each character is a unit.
Every measure of an empty or null text is 0.0, never null or NaN; values are on a grid of 1e-4.  Sources:
Gopher (Rae et al. 2021, appendix A), FineWeb (Penedo et al. 2024); character forms for Chinese are ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from pipelines.filters import repetition

LOOKED_AT_CHARACTERS = 200_000  # a longer text is measured by its first part; `characters` counts all
UNSPACED_SHARE = 0.2  # of the letters; from here on a text counts as written without spaces
_UNSPACED = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNSPACED_CHARACTER = re.compile(f"[{_UNSPACED}]")
_UNIT = re.compile(f"[{_UNSPACED}]|(?:(?![{_UNSPACED}])[^\\W_])+(?:['’](?:(?![{_UNSPACED}])[^\\W_])+)*")
_LETTER_OR_DIGIT = re.compile(f"[{_UNSPACED}]|[^\\W_]")
_BULLETS = ("•", "‣", "▪", "◦", "·", "●", "○", "■", "*", "-", "–", "—")
_SENTENCE_END = tuple('.!?。！？…；;:："”’』」）)')
_STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
_FILLER = re.compile(r"lorem\s+ipsum", re.IGNORECASE)
_SHORT_LINE_CHARACTERS = 30


@dataclass(frozen=True)
class TextView:
    """A text with what several measures share, computed once."""

    text: str

    @cached_property
    def head(self) -> str:
        """The part that is looked at."""
        return self.text[:LOOKED_AT_CHARACTERS]

    @cached_property
    def lines(self) -> list[str]:
        """Lines with something on them, stripped."""
        return [line for raw in self.head.split("\n") if (line := raw.strip())]

    @cached_property
    def paragraphs(self) -> list[str]:
        """Blocks between empty lines, stripped."""
        return [block for raw in re.split(r"\n\s*\n", self.head) if (block := raw.strip())]

    @cached_property
    def units(self) -> list[str]:
        """Words, and characters of scripts without spaces, in lower case."""
        return [unit.lower() for unit in _UNIT.findall(self.head)]

    @cached_property
    def unspaced_fraction(self) -> float:
        """Share of letters and digits that are Han or kana."""
        letters = len(_LETTER_OR_DIGIT.findall(self.head))
        return len(_UNSPACED_CHARACTER.findall(self.head)) / letters if letters else 0.0

    @cached_property
    def visible_characters(self) -> int:
        """Characters that are no white space, in the part that is looked at."""
        return sum(map(len, self.head.split()))

    @cached_property
    def grams(self) -> repetition.Grams:
        """The n-gram counter; one step is a word, or two characters of a script without spaces."""
        return repetition.Grams(self.units, step=2 if self.unspaced_fraction >= UNSPACED_SHARE else 1)


def characters(view: TextView) -> float:
    """Characters that are no white space, of the whole text."""
    return float(sum(map(len, view.text.split())))


def words(view: TextView) -> float:
    """Words, a character of a script without spaces counted as one."""
    return float(len(view.units))


def mean_word_length(view: TextView) -> float:
    """Characters a word; about 1 in Chinese, so rules use it for spaced scripts only."""
    return sum(map(len, view.units)) / len(view.units) if view.units else 0.0


def symbol_word_ratio(view: TextView) -> float:
    """Hash signs and ellipses over words, at most 1."""
    symbols = view.head.count("#") + view.head.count("...") + view.head.count("…")
    return min(symbols / len(view.units), 1.0) if view.units else 0.0


def bullet_line_fraction(view: TextView) -> float:
    """Lines that begin with a bullet."""
    return _fraction(sum(line.startswith(_BULLETS) for line in view.lines), len(view.lines))


def ellipsis_line_fraction(view: TextView) -> float:
    """Lines that end in an ellipsis."""
    return _fraction(sum(line.endswith(("...", "…")) for line in view.lines), len(view.lines))


def letter_fraction(view: TextView) -> float:
    """Letters of any script over visible characters."""
    return _fraction(sum(map(str.isalpha, view.head)), view.visible_characters)


def stop_words(view: TextView) -> float:
    """How many of Gopher's eight English stop words occur, 0 to 8."""
    return float(len(_STOP_WORDS.intersection(view.units)))


def filler_phrases(view: TextView) -> float:
    """How often the filler text of page templates occurs."""
    return float(len(_FILLER.findall(view.head)))


def line_end_fraction(view: TextView) -> float:
    """Lines that end as sentences do."""
    return _fraction(sum(line.endswith(_SENTENCE_END) for line in view.lines), len(view.lines))


def short_line_fraction(view: TextView) -> float:
    """Lines of at most 30 characters (10 where the text is written without spaces)."""
    unspaced = view.unspaced_fraction >= UNSPACED_SHARE
    bound = _SHORT_LINE_CHARACTERS // 3 if unspaced else _SHORT_LINE_CHARACTERS
    return _fraction(sum(len(line) <= bound for line in view.lines), len(view.lines))


def unspaced_fraction(view: TextView) -> float:
    """Share of letters and digits that are Han or kana; it decides which bounds hold."""
    return view.unspaced_fraction


Measure = Callable[[TextView], float]
MEASURES: Mapping[str, Measure] = {
    "text.characters": characters,
    "text.words": words,
    "text.unspaced_fraction": unspaced_fraction,
    "text.letter_fraction": letter_fraction,
    "gopher.mean_word_length": mean_word_length,
    "gopher.symbol_word_ratio": symbol_word_ratio,
    "gopher.bullet_line_fraction": bullet_line_fraction,
    "gopher.ellipsis_line_fraction": ellipsis_line_fraction,
    "gopher.stop_words": stop_words,
    "c4.filler_phrases": filler_phrases,
    "fineweb.line_end_fraction": line_end_fraction,
    "fineweb.short_line_fraction": short_line_fraction,
    "fineweb.dup_line_char_fraction": lambda view: repetition.duplicate_characters(view.lines),
    "gopher.dup_line_fraction": lambda view: repetition.duplicate_fraction(view.lines),
    "gopher.dup_paragraph_fraction": lambda view: repetition.duplicate_fraction(view.paragraphs),
    "gopher.dup_paragraph_char_fraction": lambda view: repetition.duplicate_characters(view.paragraphs),
    **{f"gopher.top_{n}_gram": lambda view, n=n: view.grams.top_fraction(n) for n in (2, 3, 4)},
    **{f"gopher.dup_{n}_gram": lambda view, n=n: view.grams.repeated_fraction(n) for n in range(5, 11)},
}
MEASURE_SCHEMA = pa.schema([pa.field(name, pa.float64()) for name in MEASURES])


def measure(text: pa.Array | pa.ChunkedArray) -> pa.Table:
    """(n,) texts -> (n,) rows of MEASURE_SCHEMA, same order, whatever the chunks."""
    columns: dict[str, list[float]] = {name: [] for name in MEASURES}
    for value in text:
        view = TextView(value.as_py() or "")
        for name, function in MEASURES.items():
            columns[name].append(round(function(view), 4) + 0.0)
    return pa.table(columns, schema=MEASURE_SCHEMA)


def _fraction(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
