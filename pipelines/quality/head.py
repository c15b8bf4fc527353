"""The head: a logistic model over the classifier's lead and over how far the measures of form lie outside of good text.

A measure enters as three distances, below the low, below the middle and above the high quantile of good texts of the
same kind of script, in units of their spread. Weights are bounded to one sign: being outside never speaks for a text.
So the head cannot learn that one template's oddity is good, and an oddity that no training page had still counts
against a text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.errors import IntegrityError
from pipelines.quality.features import FEATURES

LOW, MIDDLE, HIGH = 0.10, 0.50, 0.90
MOST_DISTANCE = 4.0
MOST_LEAD = 6.0
LEAST_GOOD = 30  # pages of a kind of script; with fewer it is measured beside all
_STEPS = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """`low`, `middle`, `high`, `spread`: (2, features) by kind of script.

    `weights`: of the lead, then of the distances below the low, above the high and below the middle quantile.
    """

    low: np.ndarray
    middle: np.ndarray
    high: np.ndarray
    spread: np.ndarray
    weights: np.ndarray
    bias: float

    def inputs(self, lead: np.ndarray, values: np.ndarray, script: np.ndarray) -> np.ndarray:
        """(n,), (n, features), (n,) -> (n, 1 + 3 * features): all growing towards good."""
        spread = self.spread[script]
        below = np.clip((self.low[script] - values) / spread, 0, MOST_DISTANCE)
        above = np.clip((values - self.high[script]) / spread, 0, MOST_DISTANCE)
        under = np.clip((self.middle[script] - values) / spread, 0, MOST_DISTANCE)
        return np.concatenate([np.clip(lead, -MOST_LEAD, MOST_LEAD)[:, None], -below, -above, -under], axis=1)

    def lead(self, lead: np.ndarray, values: np.ndarray, script: np.ndarray) -> np.ndarray:
        """(n,) the head's log-odds of good."""
        return self.inputs(lead, values, script) @ self.weights + self.bias

    def to_json(self) -> dict[str, Any]:
        """As it stands in quality.json."""
        return {
            "features": list(FEATURES),
            "low": self.low.tolist(),
            "middle": self.middle.tolist(),
            "high": self.high.tolist(),
            "spread": self.spread.tolist(),
            "weights": self.weights.tolist(),
            "bias": self.bias,
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> Head:
        """The head of a quality.json; IntegrityError where it was made for other features."""
        size = len(FEATURES)
        if value.get("features") != list(FEATURES):
            raise IntegrityError(
                f"the head knows the features {value.get('features')}", mend="train the model anew: train_quality"
            )
        low, middle, high, spread = (np.array(value[name], np.float64) for name in ("low", "middle", "high", "spread"))
        weights = np.array(value["weights"], np.float64)
        if any(a.shape != (2, size) for a in (low, middle, high, spread)) or weights.shape != (1 + 3 * size,):
            raise IntegrityError("the arrays of the head have other sizes than its features")
        return Head(low=low, middle=middle, high=high, spread=spread, weights=weights, bias=float(value["bias"]))


def fit_head(
    lead: np.ndarray, values: np.ndarray, script: np.ndarray, good: np.ndarray, weight: np.ndarray, *, l2: float = 2.0
) -> Head:
    """The head of labelled pages, whose leads and measures must come from models that did not see them.

    `good` (n,) bool; `weight` (n,) of each page in the loss. Weights are at least 0 (projected gradient).
    """
    low, middle, high, spread = (np.zeros((2, values.shape[1])) for _ in range(4))
    for kind in (0, 1):
        mine = good & (script == kind)
        mine = mine if mine.sum() >= LEAST_GOOD else good
        chosen, mass = values[mine], weight[mine]
        low[kind], middle[kind], high[kind] = np.quantile(
            chosen, [LOW, MIDDLE, HIGH], axis=0, weights=mass, method="inverted_cdf"
        )
        spread[kind] = np.maximum(np.maximum(high[kind] - low[kind], 0.02 * np.abs(middle[kind])), 1e-3)
    size = 1 + 3 * values.shape[1]
    blank = Head(low=low, middle=middle, high=high, spread=spread, weights=np.zeros(size), bias=0.0)
    inputs = blank.inputs(lead, values, script)
    weights, bias = _fit(inputs, good.astype(np.float64), weight / weight.sum(), l2 / len(good))
    return Head(low=low, middle=middle, high=high, spread=spread, weights=weights, bias=bias)


def _fit(x: np.ndarray, y: np.ndarray, weight: np.ndarray, l2: float) -> tuple[np.ndarray, float]:
    """Logistic regression with weights >= 0 by accelerated projected gradient (Beck and Teboulle 2009)."""
    extended = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    lipschitz = 0.25 * float(np.linalg.eigvalsh((extended * weight[:, None]).T @ extended)[-1]) + l2
    now = np.zeros(extended.shape[1])
    ahead, momentum = now.copy(), 1.0
    for _ in range(_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(extended @ ahead, -60, 60)))
        gradient = extended.T @ (weight * (p - y))
        gradient[:-1] += l2 * ahead[:-1]
        after = ahead - gradient / lipschitz
        after[:-1] = np.maximum(after[:-1], 0.0)
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = after + (momentum - 1) / following * (after - now)
        now, momentum = after, following
    return np.round(now[:-1], 6), round(float(now[-1]), 6)
