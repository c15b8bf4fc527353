"""A small fastText classifier of good and bad pages (Joulin et al. 2016; CCNet and DCLM filter so too).

Trained on one thread, since more make another model each time. Pages of a domain are either all trained on or
all tested on: a model that has seen a site's template would otherwise be praised for knowing it again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fasttext
import xxhash

from pipelines.errors import ConfigError, InputError
from pipelines.quality.score import QualityModel
from pipelines.quality.words import words

LABELS = ("good", "bad")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPage:
    """One row of training data."""

    text: str
    label: str
    language: str
    domain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRules:
    """How the classifier is trained."""

    dimensions: int = 16
    epochs: int = 25
    learning_rate: float = 0.5
    word_ngrams: int = 2
    buckets: int = 1 << 16  # 4 MiB at 16 dimensions
    min_count: int = 2
    test_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what fastText would crash on."""
        if min(self.dimensions, self.epochs, self.word_ngrams, self.buckets, self.min_count) < 1:
            raise ConfigError("dimensions, epochs, word_ngrams, buckets and min_count must each be 1 or more")
        if not 0.0 <= self.test_fraction < 1.0:
            raise ConfigError(f"test_fraction is {self.test_fraction}; expected a fraction in [0, 1)")


def is_test_domain(domain: str, rules: QualityRules) -> bool:
    """Whether the pages of this domain are kept for the test."""
    return xxhash.xxh3_64_intdigest(domain.encode(), rules.seed) < rules.test_fraction * 2.0**64


def train(pages: Sequence[LabelledPage], rules: QualityRules) -> tuple[bytes, dict[str, Any]]:
    """(model file, metrics on the test domains); equal bytes for equal pages in any order.

    InputError where a label is unknown, or where either label is missing from the pages to learn from.
    """
    unknown = sorted({page.label for page in pages} - set(LABELS))
    if unknown:
        raise InputError(f"labels {unknown} in the quality data; expected {list(LABELS)}")
    learned = [page for page in pages if not is_test_domain(page.domain, rules)]
    held = [page for page in pages if is_test_domain(page.domain, rules)]
    missing = [label for label in LABELS if not any(page.label == label for page in learned)]
    if missing:
        raise InputError(
            f"no page labelled {missing[0]!r} among the {len(learned)} to learn from",
            mend="give more labelled pages, of more domains, or lower test_fraction",
        )
    model = _fit(sorted(f"__label__{page.label} {words(page.text)}" for page in learned), rules)
    return model, {"learned_pages": len(learned), **measure(QualityModel(model), held)}


def _fit(lines: Sequence[str], rules: QualityRules) -> bytes:
    # fastText reads the lines in order and on one thread a run of one label at the end would bias it: mix
    # them.
    mixed = sorted(lines, key=lambda line: xxhash.xxh3_64_intdigest(line.encode(), rules.seed))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "pages.txt"), Path(folder, "model.bin")
        source.write_text("\n".join(mixed) + "\n", "utf-8")
        model = fasttext.train_supervised(
            input=str(source),
            dim=rules.dimensions,
            epoch=rules.epochs,
            lr=rules.learning_rate,
            wordNgrams=rules.word_ngrams,
            bucket=rules.buckets,
            minCount=rules.min_count,
            loss="softmax",
            thread=1,
            seed=rules.seed,
            verbose=0,
        )
        model.save_model(str(target))
        return target.read_bytes()


def measure(model: QualityModel, pages: Sequence[LabelledPage], threshold: float = 0.5) -> dict[str, Any]:
    """Precision and recall of "good" at the threshold, in all and by language; null where they are 0 / 0."""
    scores = model.scores([page.text for page in pages])
    outcomes = [
        (page.language, page.label == "good", (score or 0.0) >= threshold)
        for page, score in zip(pages, scores, strict=True)
    ]
    languages = sorted({language for language, _, _ in outcomes})
    return {
        "test_pages": len(pages),
        "threshold": threshold,
        **_rates(outcomes),
        "by_language": {name: _rates([row for row in outcomes if row[0] == name]) for name in languages},
    }


def _rates(outcomes: Sequence[tuple[str, bool, bool]]) -> dict[str, float | int | None]:
    right = sum(good and called for _, good, called in outcomes)
    called = sum(called for _, _, called in outcomes)
    good = sum(good for _, good, _ in outcomes)
    return {
        "pages": len(outcomes),
        "precision": round(right / called, 4) if called else None,
        "recall": round(right / good, 4) if good else None,
    }
