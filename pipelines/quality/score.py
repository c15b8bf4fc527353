"""Scores of a quality classifier: P(good), on a grid of 1e-4, so that cuts compare what is stored."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import fasttext
import pyarrow as pa

from pipelines.errors import IntegrityError
from pipelines.quality.words import words


class QualityModel:
    """A loaded classifier."""

    def __init__(self, model: bytes) -> None:
        """Load the bytes of a fastText model; IntegrityError where they are not one of ours."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.bin")
            path.write_bytes(model)
            try:
                self._model = fasttext.load_model(str(path))
            except ValueError as error:
                raise IntegrityError(f"not a fastText model ({len(model)} bytes): {error}") from error
        if "__label__good" not in self._model.labels:
            raise IntegrityError(
                f"the model knows the labels {self._model.labels}, not __label__good",
                mend="use a model made by train_quality",
            )

    def score(self, text: str | None) -> float | None:
        """P(good), rounded to 1e-4, in [0, 1]; None for a text without words."""
        line = words(text)
        if not line:
            return None
        labels, probabilities = self._model.predict(line, k=len(self._model.labels))
        good = dict(zip(labels, probabilities, strict=True)).get("__label__good", 0.0)
        return min(1.0, max(0.0, round(float(good), 4)))

    def scores(self, texts: Sequence[str | None]) -> list[float | None]:
        """The score of each text."""
        return [self.score(text) for text in texts]


def score_column(model: QualityModel, texts: pa.Array | pa.ChunkedArray) -> pa.DoubleArray:
    """(n,) -> (n,); null for null and for text without words."""
    return pa.array(model.scores(texts.to_pylist()), pa.float64())
