"""Rule by rule: of the texts that datatrove's filter or ours drops, the share that both drop.

datatrove's filters run with one rule switched on at its published value; ours is the same rule over our measures. For
Chinese its words are those of jieba, its values FineWeb-2's; ours are the same on characters, but for
one that is recalibrated (`ZH` below, the marking bounds of thresholds.yaml).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.filters.measures import measure

# rule: (peer filter, its settings, our column, side, our bound)
Rule = tuple[str, dict[str, Any], str, str, float]
_QUALITY_OFF = {
    "min_doc_words": None, "max_doc_words": None, "min_avg_word_length": None, "max_avg_word_length": None,
    "max_symbol_word_ratio": None, "max_bullet_lines_ratio": None, "max_ellipsis_lines_ratio": None,
    "max_non_alpha_words_ratio": None, "min_stop_words": None,
}  # fmt: skip
_REPETITION_OFF = {
    "dup_line_frac": None, "dup_para_frac": None, "dup_line_char_frac": None, "dup_para_char_frac": None,
    "top_n_grams": (), "dup_n_grams": (),
}  # fmt: skip
_C4_OFF = {
    "filter_no_terminal_punct": False, "min_num_sentences": -1, "min_words_per_line": -1, "max_word_length": -1,
    "filter_lorem_ipsum": False, "filter_javascript": False, "filter_curly_bracket": False, "filter_policy": False,
}  # fmt: skip
_FINEWEB_OFF = {"line_punct_thr": -1.0, "short_line_thr": 2.0, "char_duplicates_ratio": 2.0, "new_line_ratio": 1e9}
_OFF = {"quality": _QUALITY_OFF, "repetition": _REPETITION_OFF, "c4": _C4_OFF, "fineweb": _FINEWEB_OFF}
_GOPHER_TOP = {2: 0.20, 3: 0.18, 4: 0.16}
_GOPHER_DUP = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
EN: dict[str, Rule] = {
    "gopher.few_words": ("quality", {"min_doc_words": 50}, "text.words", "min", 50),
    "gopher.word_length_min": ("quality", {"min_avg_word_length": 3}, "gopher.mean_word_length", "min", 3),
    "gopher.word_length_max": ("quality", {"max_avg_word_length": 10}, "gopher.mean_word_length", "max", 10),
    "gopher.symbols": ("quality", {"max_symbol_word_ratio": 0.1}, "gopher.symbol_word_ratio", "max", 0.1),
    "gopher.bullet_lines": ("quality", {"max_bullet_lines_ratio": 0.9}, "gopher.bullet_line_fraction", "max", 0.9),
    "gopher.ellipsis_lines": (
        "quality", {"max_ellipsis_lines_ratio": 0.3}, "gopher.ellipsis_line_fraction", "max", 0.3
    ),
    "gopher.letter_words": ("quality", {"max_non_alpha_words_ratio": 0.8}, "gopher.letter_word_fraction", "min", 0.8),
    "gopher.stop_words": ("quality", {"min_stop_words": 2}, "gopher.stop_words", "min", 2),
    "gopher.dup_lines": ("repetition", {"dup_line_frac": 0.3}, "gopher.dup_line_fraction", "max", 0.3),
    "gopher.dup_line_chars": ("repetition", {"dup_line_char_frac": 0.2}, "gopher.dup_line_char_fraction", "max", 0.2),
    "gopher.dup_paragraphs": ("repetition", {"dup_para_frac": 0.3}, "gopher.dup_paragraph_fraction", "max", 0.3),
    "gopher.dup_paragraph_chars": (
        "repetition", {"dup_para_char_frac": 0.2}, "gopher.dup_paragraph_char_fraction", "max", 0.2
    ),
    **{
        f"gopher.top_{n}_gram": ("repetition", {"top_n_grams": ((n, b),)}, f"gopher.top_{n}_gram", "max", b)
        for n, b in _GOPHER_TOP.items()
    },
    **{
        f"gopher.dup_{n}_gram": ("repetition", {"dup_n_grams": ((n, b),)}, f"gopher.dup_{n}_gram", "max", b)
        for n, b in _GOPHER_DUP.items()
    },
    "c4.filler": ("c4", {"filter_lorem_ipsum": True}, "c4.filler_phrases", "max", 0),
    "c4.curly_bracket": (
        "c4",
        {"filter_curly_bracket": True, "filter_no_terminal_punct": True, "min_words_per_line": 3},
        "c4.curly_lines", "max", 0,
    ),
    "c4.sentences": (
        "c4",
        {"min_num_sentences": 5, "filter_no_terminal_punct": True, "min_words_per_line": 3, "max_word_length": 1000,
         "filter_javascript": True, "filter_policy": True},
        "c4.sentences", "min", 5,
    ),
    "fineweb.line_stops": ("fineweb", {"line_punct_thr": 0.12}, "fineweb.line_stop_fraction", "min", 0.12),
    "fineweb.short_lines": ("fineweb", {"short_line_thr": 0.67}, "fineweb.short_line_fraction", "max", 0.67),
    "fineweb.dup_line_chars": (
        "fineweb", {"char_duplicates_ratio": 0.01}, "fineweb.dup_line_char_fraction", "max", 0.01
    ),
    "fineweb.newlines": ("fineweb", {"new_line_ratio": 0.3}, "fineweb.newline_word_ratio", "max", 0.3),
}  # fmt: skip
_F2_TOP = {2: 0.256, 3: 0.201, 4: 0.171}
_F2_DUP = {5: 0.198, 6: 0.182, 7: 0.167, 8: 0.154, 9: 0.140, 10: 0.127}
ZH: dict[str, Rule] = {
    "gopher.symbols": ("quality", {"max_symbol_word_ratio": 0.1}, "gopher.symbol_word_ratio", "max", 0.1),
    "gopher.bullet_lines": ("quality", {"max_bullet_lines_ratio": 0.9}, "gopher.bullet_line_fraction", "max", 0.9),
    "gopher.ellipsis_lines": (
        "quality",
        {"max_ellipsis_lines_ratio": 0.3},
        "gopher.ellipsis_line_fraction",
        "max",
        0.3,
    ),
    "gopher.letter_words": (
        "quality",
        {"max_non_alpha_words_ratio": 0.735},
        "gopher.letter_word_fraction",
        "min",
        0.755,
    ),
    "gopher.dup_lines": ("repetition", {"dup_line_frac": 0.287}, "gopher.dup_line_fraction", "max", 0.287),
    **{
        f"gopher.top_{n}_gram": ("repetition", {"top_n_grams": ((n, b),)}, f"gopher.top_{n}_gram", "max", b)
        for n, b in _F2_TOP.items()
    },
    **{
        f"gopher.dup_{n}_gram": ("repetition", {"dup_n_grams": ((n, b),)}, f"gopher.dup_{n}_gram", "max", b)
        for n, b in _F2_DUP.items()
    },
    "fineweb.line_stops": ("fineweb", {"line_punct_thr": 0.106}, "fineweb.line_stop_fraction", "min", 0.106),
    "fineweb.dup_line_chars": ("fineweb", {"char_duplicates_ratio": 0.1}, "fineweb.dup_line_char_fraction", "max", 0.1),
    "fineweb.newlines": ("fineweb", {"new_line_ratio": 0.178}, "fineweb.newline_word_ratio", "max", 0.178),
}
LEAST_FIRED = 50


def peer_drops(rules: dict[str, Rule], texts: Sequence[str], language: str) -> dict[str, np.ndarray]:
    """(n,) bool by rule: what datatrove's filter drops with that one rule on."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    made = {
        "quality": GopherQualityFilter, "repetition": GopherRepetitionFilter, "c4": C4QualityFilter,
        "fineweb": FineWebQualityFilter,
    }  # fmt: skip
    filters = {
        name: made[kind](**{**_OFF[kind], **settings}, language=language)
        for name, (kind, settings, *_) in rules.items()
    }
    drops: dict[str, list[bool]] = {name: [] for name in rules}
    for text in texts:
        for name, each in filters.items():
            verdict = each.filter(Document(text=text, id=""))
            drops[name].append(not (verdict[0] if isinstance(verdict, tuple) else verdict))
    return {name: np.array(found) for name, found in drops.items()}


def our_drops(rules: dict[str, Rule], texts: Sequence[str]) -> dict[str, np.ndarray]:
    """(n,) bool by rule: what ours drops."""
    table = measure(pa.array(texts, pa.large_string()))
    drops = {}
    for name, (_, _, column, side, bound) in rules.items():
        values = table[column].to_numpy()
        drops[name] = values < bound if side == "min" else values > bound
    return drops


def agreement(
    rules: dict[str, Rule], texts: Sequence[tuple[str, str]], language: str, note: Callable[[str], None]
) -> dict[str, Any]:
    """By rule: agreement, how often each side fires, and the faults of the texts on which they differ."""
    plain = [text for _, text in texts]
    theirs, ours = peer_drops(rules, plain, language), our_drops(rules, plain)
    found = {}
    for name in rules:
        either, both = theirs[name] | ours[name], theirs[name] & ours[name]
        differ = Counter(texts[at][0] for at in np.flatnonzero(either & ~both))
        share = float(both.sum() / either.sum()) if either.any() else float("nan")
        found[name] = {
            "agreement": round(share, 4), "peer": int(theirs[name].sum()), "ours": int(ours[name].sum()),
            "only_peer": int((theirs[name] & ~ours[name]).sum()), "only_ours": int((ours[name] & ~theirs[name]).sum()),
            "differ_on": dict(differ.most_common(3)),
        }  # fmt: skip
        row = found[name]
        note(f"  {name:28} {share:7.4f}  peer {row['peer']:5}  ours {row['ours']:5}  {row['differ_on']}")
    return found
