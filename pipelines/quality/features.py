"""What the head of a quality model looks at beside the classifier: measures of form that do not know the subject.

Each is a rate, so that long and short texts are alike, and none is tied to a word list. The head asks how far a
measure lies outside of what good texts of the same kind of script have; so a kind of bad text that was never seen is
noticed by what it lacks.
"""

from __future__ import annotations

import numpy as np

from pipelines.quality.reading import FACTS

FACT = {name: at for at, name in enumerate(FACTS)}
FEATURES = (
    "gain", "seen", "known", "surprise", "repeats", "pair_repeats", "marks", "ends", "digits", "capitals",
    "word_length", "gap", "short_lines", "contrast", "common",
    "glue", "odd",
)  # fmt: skip
_FEW_PAIRS, _USUAL_GAIN = 5.0, 1.0
UNSPACED_SHARE = 0.25  # Han and kana among the tokens: from here on a text is measured beside unspaced ones


def features(facts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, len(FACTS)) -> ((n, len(FEATURES)) float64, (n,) int64 kind of script: 0 spaced, 1 unspaced).

    A text without tokens has zeros.
    """
    f = {name: facts[:, at] for name, at in FACT.items()}
    tokens = np.maximum(f["tokens"], 1.0)
    pairs = np.maximum(f["pairs"], 1.0)
    windows = np.maximum(f["window_tokens"], 1.0)
    letters = np.maximum(f["letters"], 1.0)
    columns = {
        "gain": f["gain"] / pairs,
        "seen": f["seen"] / np.maximum(np.minimum(f["known"], pairs), 1.0),
        "known": f["known"] / tokens,
        "surprise": f["surprise"] / tokens,
        # a short window repeats less: in natural text about as a power of its length
        "repeats": f["window_repeats"] / windows - _natural(windows / np.maximum(f["windows"], 1.0)),
        "pair_repeats": f["pair_repeats"] / windows,
        "marks": f["marks"] / tokens,
        "ends": f["ends"] / tokens,
        "digits": f["digits"] / tokens,
        "capitals": f["capitals"] / letters,
        "word_length": f["word_characters"] / letters,
        "gap": np.log2(1.0 + f["longest_gap"]),
        "short_lines": f["short_lines"] / tokens,
        "contrast": f["gain"] / pairs - f["far_gain"] / np.maximum(f["far_pairs"], 1.0),
        "common": f["common_gain"] / np.maximum(f["common_pairs"], 1.0),
        # beside a few pairs of prose, so that a text with hardly any is not judged by them
        "glue": (f["glue_gain"] + _FEW_PAIRS * _USUAL_GAIN) / (f["glue_pairs"] + _FEW_PAIRS),
        "odd": f["glue_odd"] / (f["glue_pairs"] + _FEW_PAIRS),
    }
    unspaced = (f["singles"] >= UNSPACED_SHARE * tokens).astype(np.int64)
    return np.stack([columns[name] for name in FEATURES], axis=1), unspaced


def _natural(length: np.ndarray) -> np.ndarray:
    """Share of tokens that came before among `length` tokens of natural text (Heaps' law, exponent 0.8)."""
    return 1.0 - np.power(np.maximum(length, 1.0), -0.2)
