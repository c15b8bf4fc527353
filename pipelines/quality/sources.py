"""Labelled pages out of datasets: a dataset, or its rows where a column is above or below a bound.

A column is the documents' own, or NAME/COLUMN of annotations beside them: another scorer's, a filter's, dedup's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from pipelines.datasets import Dataset, aligned_parts
from pipelines.errors import ConfigError, InputError
from pipelines.quality.ensemble import GRID, histogram
from pipelines.quality.examples import LabelledPage
from pipelines.quality.scorers import score_column

_SOURCE = re.compile(r"(?P<name>\S+)(?: +where +(?P<column>\S+) *(?P<op>>=|<=|==|>|<) *(?P<value>.+))?")
_OPERATORS: dict[str, Callable[..., pa.ChunkedArray]] = {
    ">=": pc.greater_equal, "<=": pc.less_equal, "==": pc.equal, ">": pc.greater, "<": pc.less,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSource:
    """Documents under a label; `column` of `beside` (None: of the documents) compares with `value` by `op`."""

    documents: Dataset
    label: str
    column: str = ""
    op: str = ">="
    value: float | str = 0.0
    beside: Dataset | None = None

    def datasets(self) -> list[Dataset]:
        """What is read."""
        return [self.documents, *([self.beside] if self.beside is not None else [])]


Source = DatasetSource


def parse_source(text: str, label: str, open_: Callable[[str], Dataset]) -> DatasetSource:
    """`NAME`, `NAME where COLUMN >= X` or `NAME where ANNOTATIONS/COLUMN >= X`; ConfigError where it is none."""
    match = _SOURCE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            f"no source of pages: {text!r}", mend="a file, a dataset, or 'documents where quality/quality.bert >= 0.9'"
        )
    documents = open_(match["name"])
    if match["column"] is None:
        return DatasetSource(documents=documents, label=label)
    beside, slash, column = match["column"].rpartition("/")
    value: float | str = match["value"].strip().strip("\"'")
    try:
        value = float(value)
    except ValueError:
        if match["op"] != "==":
            raise ConfigError(f"{text!r}: {value!r} is no number", mend="compare text with ==") from None
    return DatasetSource(
        documents=documents, label=label, column=column, op=match["op"], value=value,
        beside=open_(beside) if slash else None,
    )  # fmt: skip


def distilled(documents: Dataset, scores: Dataset, share: float) -> list[DatasetSource]:
    """The highest and the lowest `share` of a teacher's scores as good and bad."""
    if not 0.0 < share <= 0.5:
        raise ConfigError(f"distil_share is {share}", mend="above 0, at most 0.5")
    column = score_column([field["name"] for field in scores.manifest.schema])
    counts = np.zeros(GRID, np.int64)
    for key in scores.parts()["key"].to_pylist():
        counts += histogram(scores.read_part(key, [column])[column])
    if not counts.any():
        raise InputError(f"{scores.name} holds no score", mend="run score_quality with the teacher first")
    reached = np.cumsum(counts) / counts.sum()
    low = int(np.searchsorted(reached, share)) / (GRID - 1)
    high = int(np.searchsorted(reached, 1.0 - share, side="right")) / (GRID - 1)
    if high <= low:
        raise InputError(f"{scores.name}: the teacher's scores hardly differ ({low} to {high})")
    asked = {"documents": documents, "column": column, "beside": scores}
    return [
        DatasetSource(label="good", op=">=", value=round(high, 4), **asked),
        DatasetSource(label="bad", op="<=", value=round(low, 4), **asked),
    ]


def read_source(source: DatasetSource, most: int, group_column: str, seed: int) -> list[LabelledPage]:
    """At most about `most` pages, chosen by hash of the id; a scan of the small columns, then of the texts chosen."""
    fraction = min(1.0, most / max(1, _rows(source)))
    pages: list[LabelledPage] = []
    for key, mask, table in _parts(source):
        ids = table["id"].to_pylist()
        drawn = [xxhash.xxh3_64_intdigest((i or "").encode(), seed) < fraction * 2.0**64 for i in ids]
        chosen = pc.and_(mask, pa.array(drawn))
        if not pc.any(chosen).as_py():
            continue
        names = dict.fromkeys(["text", "language", "domain", group_column])
        rows = source.documents.read_part(key, list(names)).filter(chosen).to_pylist()
        pages += [
            LabelledPage(
                text=row["text"],
                label=source.label,
                language=row["language"] or "",
                domain=row["domain"] or "",
                group=str(row[group_column] or ""),
            )
            for row in rows
            if row["text"]
        ]
    return pages


def _rows(source: DatasetSource) -> int:
    return sum(int(pc.sum(mask.cast(pa.int64())).as_py() or 0) for _, mask, _ in _parts(source))


def _parts(source: DatasetSource) -> Iterator[tuple[str, pa.Array, pa.Table]]:
    """(key of the documents part, (n,) bool of the rows that are meant, table of ids)."""
    if source.beside is not None:
        pairs: Sequence[tuple[dict[str, Any], dict[str, Any] | None]] = aligned_parts(source.documents, source.beside)
    else:
        pairs = [(row, None) for row in source.documents.parts().to_pylist()]
    for mine, theirs in pairs:
        own = source.column if source.column and theirs is None else ""
        table = source.documents.read_part(mine["key"], ["id", *([own] if own and own != "id" else [])])
        column = None
        if theirs is not None and source.beside is not None:
            column = source.beside.read_part(theirs["key"], [source.column])[source.column]
        elif own:
            column = table[own]
        mask = pa.array(np.ones(table.num_rows, bool))
        if column is not None:
            mask = pc.fill_null(_OPERATORS[source.op](column, pa.scalar(source.value, column.type)), False)
            mask = mask.combine_chunks() if isinstance(mask, pa.ChunkedArray) else mask
        yield mine["key"], mask, table
