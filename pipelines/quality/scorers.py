"""The contract of a scorer: an artifact of a kind, opened once a process, that gives one number for each text.

A scorer gives the column `quality.NAME` of the documents it is run on; the manifest of these annotations names the
artifact with its version and the sha256 of its files. What the number means is the artifact's affair: P(good) of a
classifier, P(toxic) of another one that was trained on other labels. `filter_documents` cuts later, by any such column.

| kind | artifact made by | files |
| --- | --- | --- |
| fasttext | train_quality | model.bin, quality.json, order.bin |
| hf_classifier | import_classifier | quality.json, config.json, tokenizer.json, model.safetensors |
| ensemble | combine_scores | quality.json |
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from typing import Any, Protocol

import pyarrow as pa

from pipelines.errors import ConfigError, IntegrityError

FORMAT = "gristmill.quality/1"
KINDS = ("fasttext", "hf_classifier", "ensemble")
SETTINGS = "quality.json"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Scorer(Protocol):
    """A loaded model: `cut` is the score that its training chose, None where it chose none."""

    @property
    def cut(self) -> float | None:
        """Where good begins, or what else the scorer looks for."""
        ...

    def scores(self, texts: pa.Array | pa.ChunkedArray) -> pa.DoubleArray:
        """(n,) -> (n,), on a grid of 1e-4; null where there is nothing to score."""
        ...


def check_name(name: str) -> str:
    """The name of a score's column; ConfigError where it cannot be one."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"no scorer can be called {name!r}", mend="lower-case letters, digits and _, a letter first: toxicity"
        )
    return name


def score_schema(name: str) -> pa.Schema:
    """Columns of the annotations of a scorer of this name."""
    return pa.schema(
        [
            pa.field("id", pa.string(), metadata={"doc": "document id, as a check of the alignment"}),
            pa.field(f"quality.{name}", pa.float64(), metadata={"doc": "the score on 1e-4; null without words"}),
        ]
    )


def score_column(names: Collection[str]) -> str:
    """The column of scores among the columns of an annotations part; ConfigError where there is none or more."""
    found = [name for name in names if name.startswith("quality.") and name.count(".") == 1]
    if len(found) != 1:
        raise ConfigError(
            f"columns of scores: {sorted(found)}; expected one quality.NAME", mend="name annotations of score_quality"
        )
    return found[0]


def settings_of(names: Collection[str], read: Callable[[str], bytes]) -> dict[str, Any]:
    """The `quality.json` of an artifact; a fastText file alone is of the kind fasttext."""
    if SETTINGS not in names:
        return {"format": FORMAT, "kind": "fasttext"}
    try:
        told = json.loads(read(SETTINGS))
    except ValueError as error:
        raise IntegrityError(f"{SETTINGS} is no JSON: {error}") from None
    if not isinstance(told, dict) or told.get("format") != FORMAT or told.get("kind") not in KINDS:
        raise IntegrityError(
            f"{SETTINGS} is none of {FORMAT} with a kind of {', '.join(KINDS)}", mend="make the artifact anew"
        )
    return told


def open_scorer(
    names: Collection[str], read: Callable[[str], bytes], forward: Callable[..., Any] | None = None
) -> Scorer:
    """The scorer of an artifact: `names` of its files, and how to read one.

    `forward` makes a classifier's network of (config, weights): torch is not known here.
    """
    told = settings_of(names, read)
    if told["kind"] == "fasttext":
        from pipelines.quality.score import read_quality_model

        return read_quality_model(names, read)
    if told["kind"] == "hf_classifier" and forward is not None:
        from pipelines.quality.classifier import open_classifier

        return open_classifier(told, read, forward)
    raise ConfigError(f"a scorer of the kind {told['kind']} does not read texts by itself")
