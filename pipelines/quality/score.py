"""A trained scorer: texts of an Arrow array in, P(good) out, on a grid of 1e-4, so that cuts compare what is stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.errors import IntegrityError
from pipelines.quality.features import features
from pipelines.quality.head import Head
from pipelines.quality.order import OrderModel
from pipelines.quality.reading import FACTS, read_texts
from pipelines.quality.scorers import FORMAT
from pipelines.quality.vocabulary import LineModel, read_line_model

_TOKENS = FACTS.index("tokens")


def lead_of(line: LineModel, sums: np.ndarray, label: str) -> np.ndarray:
    """(n, labels) outputs -> (n,) log-odds of the label."""
    if len(line.labels) == 2:
        return sums[:, 0] if line.labels[0] == label else -sums[:, 0]
    p = np.clip(line.probability(sums, label), 1e-9, 1 - 1e-9)
    return np.log(p / (1 - p))


def to_grid(lead: np.ndarray, calibration: tuple[float, float]) -> np.ndarray:
    """Calibrated probability of log-odds, on the grid of 1e-4."""
    slope, offset = calibration
    return np.round(1.0 / (1.0 + np.exp(-np.clip(slope * lead + offset, -60, 60))), 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityModel:
    """A loaded scorer. Without `head` the classifier's own log-odds count; `cut` is the one chosen in training."""

    line: LineModel
    order: OrderModel | None = None
    head: Head | None = None
    calibration: tuple[float, float] = (1.0, 0.0)
    cut: float = 0.5
    label: str = "good"

    def scores(self, texts: pa.Array | pa.ChunkedArray) -> pa.DoubleArray:
        """(n,) -> (n,) P(label) in [0, 1]; null for null and for text without words."""
        sums, facts = read_texts(texts, self.line, self.order)
        lead = lead_of(self.line, sums, self.label)
        if self.head is not None:
            lead = self.head.lead(lead, *features(facts))
        return pa.array(to_grid(lead, self.calibration), mask=facts[:, _TOKENS] == 0)

    def files(self, body: bytes) -> dict[str, bytes]:
        """The files of the artifact; `body` is the fastText file."""
        told: dict[str, Any] = {
            "format": FORMAT,
            "kind": "fasttext",
            "label": self.label,
            "calibration": list(self.calibration),
            "cut": self.cut,
            "head": self.head.to_json() if self.head else None,
        }
        files = {"model.bin": body, "quality.json": json.dumps(told, indent=1, sort_keys=True).encode()}
        if self.order is not None:
            files["order.bin"] = self.order.to_bytes()
        return files


def read_quality_model(names: Collection[str], read: Callable[[str], bytes]) -> QualityModel:
    """The scorer in an artifact of the kind fasttext: `names` of its files and how to read one.

    A fastText file alone will do: it is taken as it is, with its label `good`, else its first one.
    """
    line = read_line_model(read("model.bin"))
    if "quality.json" not in names:
        label = "good" if "good" in line.labels else line.labels[0]
        return QualityModel(line=line, label=label)
    told = json.loads(read("quality.json"))
    if told.get("format") != FORMAT or told.get("kind") != "fasttext":
        raise IntegrityError(f"a scorer of format {told.get('format')} and kind {told.get('kind')}, not {FORMAT}")
    label = str(told["label"])
    if label not in line.labels:
        raise IntegrityError(
            f"the model knows the labels {list(line.labels)}, not {label}", mend="use a model made by train_quality"
        )
    slope, offset = told["calibration"]
    return QualityModel(
        line=line,
        order=OrderModel.from_bytes(read("order.bin")) if "order.bin" in names else None,
        head=Head.from_json(told["head"]) if told.get("head") else None,
        calibration=(float(slope), float(offset)),
        cut=float(told["cut"]),
        label=label,
    )
