"""How good a scorer is: ranking, cut, calibration, and where it is unfair. All on pages that no part of it saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

TENTHS = 10


def auc(scores: np.ndarray, good: np.ndarray, weight: np.ndarray | None = None) -> float | None:
    """Chance that a good page scores above a bad one, ties half; None where either is missing.

    (n,), (n,) bool; `weight` (n,) of each page.
    """
    weight = np.ones(len(scores)) if weight is None else weight
    if not good.any() or good.all():
        return None
    levels, place = np.unique(scores, return_inverse=True)
    up = np.bincount(place[good], weight[good], len(levels))
    down = np.bincount(place[~good], weight[~good], len(levels))
    below = np.cumsum(down) - down
    return float((up * (below + down / 2)).sum() / (up.sum() * down.sum()))


def length_matched_auc(scores: np.ndarray, good: np.ndarray, lengths: np.ndarray, bins: int = 10) -> float | None:
    """AUC among pages of like length: within bins of the logarithm of the length, weighted by their pairs.

    A scorer that only measures length is at 0.5 here.
    """
    logs = np.log2(1.0 + lengths)
    edges = np.quantile(logs, np.linspace(0, 1, bins + 1)[1:-1])
    which = np.searchsorted(edges, logs, side="right")
    total, sum_ = 0.0, 0.0
    for b in range(bins):
        mine = which == b
        pairs = float(good[mine].sum()) * float((~good[mine]).sum())
        if pairs and (value := auc(scores[mine], good[mine])) is not None:
            total += pairs
            sum_ += pairs * value
    return sum_ / total if total else None


def rates(scores: np.ndarray, good: np.ndarray, cut: float) -> dict[str, float | int | None]:
    """Pages, precision and recall of "good" at scores of `cut` and above; null where they are 0 / 0."""
    called = scores >= cut
    right = int((called & good).sum())
    return {
        "pages": len(scores),
        "precision": round(right / int(called.sum()), 4) if called.any() else None,
        "recall": round(right / int(good.sum()), 4) if good.any() else None,
    }


def cut_for_precision(scores: np.ndarray, good: np.ndarray, target: float) -> float:
    """The highest cut of those with most recall among cuts whose precision is at least `target`; 1.0: there is none."""
    order = np.argsort(-scores, kind="stable")
    precision = np.cumsum(good[order]) / np.arange(1, len(order) + 1)
    ends = np.append(scores[order][1:] != scores[order][:-1], True)  # a cut cannot part equal scores
    reached = np.flatnonzero((precision >= target) & ends)
    if not len(reached):
        return 1.0
    last_good = np.flatnonzero(good[order][: reached[-1] + 1])[-1]  # what lies between it and the cut was bad
    return float(scores[order][last_good])


def reliability(scores: np.ndarray, good: np.ndarray) -> dict[str, Any]:
    """By tenths of the score: pages, mean score, share of good pages; `ece` is the mean gap between the two."""
    which = np.minimum((scores * TENTHS).astype(np.int64), TENTHS - 1)
    rows, gap = [], 0.0
    for tenth in range(TENTHS):
        mine = which == tenth
        if mine.any():
            mean, share = float(scores[mine].mean()), float(good[mine].mean())
            gap += mine.sum() * abs(mean - share)
            rows.append(
                {"from": tenth / TENTHS, "pages": int(mine.sum()), "score": round(mean, 4), "good": round(share, 4)}
            )
    return {"ece": round(gap / max(1, len(scores)), 4), "tenths": rows}


def platt(lead: np.ndarray, good: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """(slope, offset) of Platt's logistic calibration of log-odds (Platt 1999), with his smoothed targets; Newton."""
    positives, negatives = float(good.sum()), float((~good).sum())
    target = np.where(good, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    x = np.stack([lead, np.ones(len(lead))], axis=1)
    theta = np.array([1.0, 0.0])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ theta, -60, 60)))
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, x.T @ (weight * (p - target)))
        theta = theta - np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-9:
            break
    return round(max(float(theta[0]), 1e-3), 6), round(float(theta[1]), 6)


def by_name(names: Sequence[str], scores: np.ndarray, good: np.ndarray, cut: float, most: int = 40) -> dict[str, Any]:
    """Pages and mean score of the largest groups, by name; for a look at what the scorer likes."""
    groups, place, counts = np.unique(np.array(names, object), return_inverse=True, return_counts=True)
    chosen = sorted(range(len(groups)), key=lambda g: (-counts[g], groups[g]))[:most]
    return {
        str(groups[g]): {
            "pages": int(counts[g]),
            "good": int(good[place == g].sum()),
            "mean_score": round(float(scores[place == g].mean()), 4),
            "above_cut": round(float((scores[place == g] >= cut).mean()), 4),
        }
        for g in chosen
    }
