"""What a trained scorer is worth on kinds of bad text and domains of good text that it never saw.

`python -m tests.benchmarks.quality --data FOLDER` prints tables on stderr and one JSON line on stdout. The labelled
texts (quality_pages) are dealt to four parts by group: good by domain, bad by template family. Each part is scored by a
scorer trained on the other three, with head, calibration and cut made inside of these; so every text is tested once,
and no family or domain is ever on both sides. The baseline is a logistic model of length and punctuation, trained and
tested on the same parts. AUCs are means over the parts; a family's is against the good texts of its part; precision and
recall are at the cut of each part's own training, over all parts.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.quality.examples import LabelledPage, folds_of, without_copies
from pipelines.quality.metrics import auc, length_matched_auc, rates, reliability
from pipelines.quality.scorers import open_scorer
from pipelines.quality.train import QualityRules, page_weights, train
from tests.benchmarks.quality_pages import labelled
from tests.pack import FOLDER

PARTS = 4
SMALL = 5  # pages; a family with fewer is shown and not ranked


def note(line: str) -> None:
    """One line of the table."""
    sys.stderr.write(line + "\n")


def plain(pages: list[LabelledPage]) -> np.ndarray:
    """(n, 5): length and punctuation, their squares and product."""
    length = np.log1p([len(page.text) for page in pages])
    marks = np.array([sum(not c.isalnum() and not c.isspace() for c in p.text) / max(1, len(p.text)) for p in pages])
    return np.stack([length, marks, length**2, marks**2, length * marks], axis=1)


def baseline(learned: list[LabelledPage], tested: list[LabelledPage]) -> np.ndarray:
    """(tested,) log-odds of a logistic model of length and punctuation (Newton's method, a little ridge)."""
    x, y, weight = plain(learned), np.array([p.label == "good" for p in learned], float), page_weights(learned)
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-9
    x = np.concatenate([(x - mean) / spread, np.ones((len(x), 1))], axis=1)
    theta = np.zeros(x.shape[1])
    for _ in range(60):
        p = 1 / (1 + np.exp(-x @ theta))
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x + 1e-3 * np.eye(len(theta))
        theta -= np.linalg.solve(hessian, x.T @ (weight * (p - y)) + 1e-3 * theta)
    z = (plain(tested) - mean) / spread
    return np.concatenate([z, np.ones((len(z), 1))], axis=1) @ theta


def over_baseline(ours: float, theirs: float) -> float:
    """The gain, divided by the smaller of .05 and half of the gap to 1."""
    return (ours - theirs) / min(0.05, (1 - theirs) / 2) if theirs < 1 else 0.0


def main() -> None:
    """Train on three parts, test on the fourth, four times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=FOLDER)
    parser.add_argument("--epochs", type=int, default=QualityRules().epochs)
    arguments = parser.parse_args()
    begun = time.process_time()
    pages, gone = without_copies(labelled(arguments.data))
    note(f"{len(pages)} texts, {sum(p.label == 'good' for p in pages)} of them good; left out as copies: {gone}")
    rules = QualityRules(epochs=arguments.epochs, test_fraction=0.0)
    parts = folds_of(pages, PARTS, 7)
    found: list[dict[str, Any]] = []
    families: dict[str, tuple[int, float, float]] = {}
    called: list[tuple[np.ndarray, np.ndarray]] = []
    for part in range(PARTS):
        learned = [p for p, k in zip(pages, parts.tolist(), strict=True) if k != part]
        tested = [p for p, k in zip(pages, parts.tolist(), strict=True) if k == part]
        files, told = train(learned, rules)
        model = open_scorer(files, files.__getitem__)
        scores = np.asarray(model.scores(pa.array([p.text for p in tested], pa.large_string())).fill_null(0.0))
        good = np.array([p.label == "good" for p in tested])
        lengths = np.array([len(p.text) for p in tested], float)
        plainly = baseline(learned, tested)
        row = {
            "auc": auc(scores, good), "matched": length_matched_auc(scores, good, lengths),
            "baseline": auc(plainly, good), "cut": told["cut"], "ece": reliability(scores, good)["ece"],
            **rates(scores, good, told["cut"]),
        }  # fmt: skip
        found.append(row)
        called.append((scores >= told["cut"], good))
        for family in sorted({p.side for p in tested if p.label == "bad"}):
            mine = np.array([p.side == family for p in tested])
            some = mine | good
            families[family] = (int(mine.sum()), auc(scores[some], good[some]), auc(plainly[some], good[some]))
        told_row = ", ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
        note(f"part {part}: {told_row}")
    note(f"{'family':<48}{'pages':>6}{'AUC':>8}{'plain':>8}")
    for family, (size, ours, theirs) in sorted(families.items(), key=lambda item: item[1][1]):
        note(f"{family:<48}{size:>6}{ours:>8.3f}{theirs:>8.3f}{'  (too few to rank)' if size < SMALL else ''}")
    mean = {key: float(np.mean([row[key] for row in found])) for key in ("auc", "matched", "baseline", "ece")}
    right = sum(int((c & g).sum()) for c, g in called)
    ranked = {name: value for name, value in families.items() if value[0] >= SMALL}
    worst = min(ranked, key=lambda name: ranked[name][1])
    result = {
        "auc_unseen": round(mean["auc"], 4),
        "worst_family": round(ranked[worst][1], 4),
        "worst_family_name": worst,
        "auc_length_matched": round(mean["matched"], 4),
        "auc_over_baseline": round(over_baseline(mean["auc"], mean["baseline"]), 3),
        "auc_baseline": round(mean["baseline"], 4),
        "precision": round(right / max(1, sum(int(c.sum()) for c, _ in called)), 4),
        "recall": round(right / max(1, sum(int(g.sum()) for _, g in called)), 4),
        "calibration_error": round(mean["ece"], 4),
        "pages": len(pages),
        "families": len(families),
        "cpu_s": round(time.process_time() - begun, 1),
        "versions": {n: importlib.metadata.version(n) for n in ("fasttext-community", "numba", "numpy", "pyarrow")}
        | {"python": platform.python_version()},
    }
    for name, bar in (
        ("auc_unseen", 0.90),
        ("worst_family", 0.85),
        ("auc_length_matched", 0.80),
        ("auc_over_baseline", 1),
    ):
        note(f"{name}: {result[name]} ({'reaches' if result[name] >= bar else 'MISSES'} {bar})")
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
