"""Train a scorer: a fastText classifier, a model of word order, and a head over both.

Joulin et al. 2016; stacking after Wolpert 1992.

Domains (or groups) are either all trained on or all tested on: a model that has seen a site's template would otherwise
be praised for knowing it again. The head, the calibration and the cut are made on folds: on scores of models that did
not see the page's group. The test part is scored once, at the end, and decides nothing. One thread, since more make
another model each time.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from pipelines.errors import ConfigError, InputError
from pipelines.quality.examples import LABELS, LabelledPage, check_labels, folds_of, is_test_side, without_copies
from pipelines.quality.features import FEATURES, features
from pipelines.quality.glue import count_glue
from pipelines.quality.head import Head, fit_head
from pipelines.quality.metrics import auc, by_name, cut_for_precision, length_matched_auc, platt, rates, reliability
from pipelines.quality.order import OrderModel, count_order
from pipelines.quality.reading import FACTS, read_texts, token_hashes
from pipelines.quality.score import QualityModel, lead_of, to_grid
from pipelines.quality.vocabulary import read_line_model
from pipelines.quality.words import words

_LEAST_FOR_FOLDS = 40  # pages; with fewer there is no head and the cut is 0.5


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
    folds: int = 4
    form: bool = True
    target_precision: float = 0.9
    near_copies: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what fastText would crash on."""
        if min(self.dimensions, self.epochs, self.word_ngrams, self.buckets, self.min_count) < 1:
            raise ConfigError("dimensions, epochs, word_ngrams, buckets and min_count must each be 1 or more")
        if not 0.0 <= self.test_fraction < 1.0:
            raise ConfigError(f"test_fraction is {self.test_fraction}; expected a fraction in [0, 1)")
        if self.folds < 2 or not 0.0 < self.target_precision <= 1.0 or not 0.0 < self.near_copies <= 1.0:
            raise ConfigError("folds must be 2 or more, target_precision and near_copies in (0, 1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """Models of some pages, and what they tell of others."""

    body: bytes
    order: OrderModel | None

    def read(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(lead, features, script, tokens) of texts, each (n, ...)."""
        line = read_line_model(self.body)
        sums, facts = read_texts(texts, line, self.order)
        values, script = features(facts)
        return lead_of(line, sums, "good"), values, script, facts[:, FACTS.index("tokens")]


def train(pages: Sequence[LabelledPage], rules: QualityRules) -> tuple[dict[str, bytes], dict[str, Any]]:
    """(files of the artifact, metrics on the test groups); equal bytes for equal pages in any order.

    InputError where a label is unknown, or where either label is missing from the pages to learn from.
    """
    check_labels(pages)
    given = Counter(page.label for page in pages)
    kept, gone = without_copies(pages, near=rules.near_copies)
    learned = [page for page in kept if not is_test_side(page.side, rules.test_fraction, rules.seed)]
    held = [page for page in kept if is_test_side(page.side, rules.test_fraction, rules.seed)]
    missing = [label for label in LABELS if not any(page.label == label for page in learned)]
    if missing:
        raise InputError(
            f"no page labelled {missing[0]!r} among the {len(learned)} to learn from",
            mend="give more labelled pages, of more domains, or lower test_fraction",
        )
    head, calibration, cut, seen = _stack(learned, rules)
    parts = fit_parts(learned, rules)
    order = parts.order if head else None
    line = read_line_model(parts.body)
    model = QualityModel(line=line, order=order, head=head, calibration=calibration, cut=cut)
    return model.files(parts.body), {
        "given_pages": dict(sorted(given.items())),
        **gone,
        "learned_pages": len(learned),
        "learned_languages": dict(sorted(Counter(page.language for page in learned).items())),
        "cut": cut,
        "target_precision": rules.target_precision,
        "folds": seen,
        **measure(model, held, cut),
    }


def fit_parts(pages: Sequence[LabelledPage], rules: QualityRules) -> _Parts:
    """The classifier of these pages and, of the good ones, the order model."""
    lines = [f"__label__{page.label} {words(page.text)}" for page in pages]
    order = None
    if rules.form:
        good = pa.array([page.text for page in pages if page.label == "good"], pa.large_string())
        hashes, bounds = token_hashes(good)
        glue = count_glue((page.side, words(page.text)) for page in pages if page.label == "good")
        edges = zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
        order = count_order((hashes[a:b] for a, b in edges), glue)
    return _Parts(body=_fit_line(sorted(lines), rules), order=order)


def _stack(
    pages: Sequence[LabelledPage], rules: QualityRules
) -> tuple[Head | None, tuple[float, float], float, dict[str, Any]]:
    """(head, calibration, cut, figures of the folds) from scores of models that did not see the page's group."""
    good = np.array([page.label == "good" for page in pages])
    folds = folds_of(pages, rules.folds, rules.seed)
    sides = [{p.side for p, g in zip(pages, good, strict=True) if g == kind} for kind in (True, False)]
    if len(pages) < _LEAST_FOR_FOLDS or min(map(len, sides)) < rules.folds:
        return None, (1.0, 0.0), 0.5, {"pages": 0, "why": "too few pages or groups for folds"}
    texts = np.array([page.text for page in pages], object)
    lead, values = np.zeros(len(pages)), np.zeros((len(pages), len(FEATURES)))
    script = np.zeros(len(pages), np.int64)
    for fold in range(rules.folds):
        mine = folds == fold
        parts = fit_parts([page for page, m in zip(pages, mine.tolist(), strict=True) if not m], rules)
        lead[mine], values[mine], script[mine], _ = parts.read(pa.array(texts[mine].tolist(), pa.large_string()))
    weight = page_weights(pages)
    head = fit_head(lead, values, script, good, weight) if rules.form else None
    combined = head.lead(lead, values, script) if head else lead
    calibration = platt(combined, good, np.ones(len(pages)))
    scores = to_grid(combined, calibration)
    cut = cut_for_precision(scores, good, rules.target_precision)
    told = {"pages": len(pages), "auc": _round(auc(scores, good)), "at_cut": rates(scores, good, cut)}
    return head, calibration, cut, told


def page_weights(pages: Sequence[LabelledPage]) -> np.ndarray:
    """(n,) weights: both labels weigh the same, and a group by the root of its pages, so that no template rules."""
    sizes = Counter((page.label, page.side) for page in pages)
    weight = np.array([sizes[(page.label, page.side)] ** -0.5 for page in pages])
    labels = np.array([page.label for page in pages])
    for label in set(labels.tolist()):
        weight[labels == label] /= weight[labels == label].sum()
    return weight * len(pages) / 2


def _fit_line(lines: Sequence[str], rules: QualityRules) -> bytes:
    import fasttext

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


def measure(model: QualityModel, pages: Sequence[LabelledPage], cut: float) -> dict[str, Any]:
    """What the model is worth on these pages: ranking, cut, calibration, bias by length, language and domain."""
    texts = pa.array([page.text for page in pages], pa.large_string())
    scores = np.array([score or 0.0 for score in model.scores(texts).to_pylist()], np.float64)
    good = np.array([page.label == "good" for page in pages], bool)
    lengths = np.array([len(page.text) for page in pages], np.float64)
    languages = np.array([page.language for page in pages], object)
    found: dict[str, Any] = {"test_pages": len(pages), "auc": _round(auc(scores, good)), **rates(scores, good, cut)}
    found.pop("pages")
    found["auc_length_matched"] = _round(length_matched_auc(scores, good, lengths)) if len(pages) else None
    found["calibration"] = reliability(scores, good)
    found["by_language"] = {
        str(name): {**rates(scores[languages == name], good[languages == name], cut),
                    "auc": _round(auc(scores[languages == name], good[languages == name]))}
        for name in sorted(set(languages.tolist()))
    }  # fmt: skip
    found["by_length"] = _by_length(scores, good, lengths, cut)
    found["by_group"] = by_name([page.side for page in pages], scores, good, cut) if pages else {}
    return found


def _by_length(scores: np.ndarray, good: np.ndarray, lengths: np.ndarray, cut: float) -> list[dict[str, Any]]:
    """Quarters of the pages by length: a recall that grows with length alone is a bias."""
    if len(scores) < 8:
        return []
    edges = np.quantile(lengths, [0.25, 0.5, 0.75])
    which = np.searchsorted(edges, lengths, side="right")
    return [
        {"characters_up_to": int(lengths[which == q].max()), **rates(scores[which == q], good[which == q], cut),
         "auc": _round(auc(scores[which == q], good[which == q]))}
        for q in range(4) if (which == q).any()
    ]  # fmt: skip


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
