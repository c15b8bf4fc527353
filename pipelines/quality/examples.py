"""Labelled texts: one row of training data, its file forms, duplicates, and the split by group."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from pipelines.errors import InputError

LABELS = ("good", "bad")
_BUCKET = 8
_MEND = 'each row is {"text": ..., "label": "good" or "bad", "language": ..., "domain": ...} and, if wished, "group"'


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPage:
    """One row of training data. `group`: what must not be on both sides of a split; the domain unless told."""

    text: str
    label: str
    language: str
    domain: str
    group: str = ""

    @property
    def side(self) -> str:
        """The name by which it is split."""
        return self.group or self.domain


def parse_pages(body: bytes, name: str, label: str = "") -> list[LabelledPage]:
    """Labelled pages of a file of JSON lines (also zstd) or Parquet, by its name; InputError that names a bad row.

    `label` is that of rows which have none.
    """
    plain = _inflate(body, name) if name.endswith(".zst") else body
    rows = _parquet_rows(plain, name) if name.endswith(".parquet") else _json_rows(plain, name)
    return [_page(row, place, label) for place, row in rows]


def _page(row: Any, place: str, label: str) -> LabelledPage:
    try:
        row = {**({"label": label} if label else {}), **{key: value for key, value in row.items() if value is not None}}
        known = {key: str(row[key]) for key in ("text", "label")}
        domain = str(row.get("domain", "")) if label else str(row["domain"])
        language = str(row.get("language", "")) if label else str(row["language"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{place}: no labelled page: {error!r}", mend=_MEND) from None
    return LabelledPage(**known, language=language, domain=domain, group=str(row.get("group", "")))


def _json_rows(body: bytes, name: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(io.BytesIO(body), 1):
        if line.strip():
            try:
                yield f"{name}, line {number}", json.loads(line)
            except ValueError as error:
                raise InputError(f"{name}, line {number}: no labelled page: {error!r}", mend=_MEND) from None


def _parquet_rows(body: bytes, name: str) -> Iterator[tuple[str, Any]]:
    from pipelines.datasets.parts import read_parquet

    try:
        table = read_parquet(body)
    except pa.ArrowException as error:
        raise InputError(f"{name} is no Parquet file: {error}") from None
    wanted = [c for c in ("text", "label", "language", "domain", "group") if c in table.column_names]
    for number, row in enumerate(table.select(wanted).to_pylist(), 1):
        yield f"{name}, row {number}", row


def _inflate(body: bytes, name: str) -> bytes:
    import zstandard

    try:
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body)).read()
    except zstandard.ZstdError as error:
        raise InputError(f"{name} is no zstd file: {error}") from error


def check_labels(pages: Iterable[LabelledPage]) -> None:
    """InputError where a label is not one of LABELS."""
    unknown = sorted({page.label for page in pages} - set(LABELS))
    if unknown:
        raise InputError(f"labels {unknown} in the quality data; expected {list(LABELS)}")


def in_order(pages: Iterable[LabelledPage]) -> list[LabelledPage]:
    """The pages in an order of their own, whatever order they came in."""
    return sorted(pages, key=lambda p: (xxhash.xxh3_64_intdigest(p.text.encode("utf-8", "replace")), p.label, p.side))


def without_copies(pages: Sequence[LabelledPage], *, near: float = 0.8) -> tuple[list[LabelledPage], dict[str, int]]:
    """The pages without exact and near copies, and what went: of copies the first by hash stays.

    Exact: the same normal form. Near: estimated Jaccard similarity of `near` and above among pages that share a band of
    their signatures. Texts under both labels go altogether: they teach nothing.
    """
    from pipelines.dedup.normalize import normal_forms

    pages = in_order(pages)
    forms = normal_forms(pa.array([page.text for page in pages], pa.large_string())).to_pylist()
    labels: dict[str, set[str]] = defaultdict(set)
    for form, page in zip(forms, pages, strict=True):
        labels[form].add(page.label)
    counts = {"exact_copies": 0, "near_copies": 0, "two_labels": 0, "empty": 0}
    seen: set[str] = set()
    kept: list[LabelledPage] = []
    for form, page in zip(forms, pages, strict=True):
        if not form:
            counts["empty"] += 1
        elif len(labels[form]) > 1:
            counts["two_labels"] += 1
        elif form in seen:
            counts["exact_copies"] += 1
        else:
            seen.add(form)
            kept.append(page)
    stays = _no_near_copies(kept, near) if near < 1.0 else np.ones(len(kept), bool)
    counts["near_copies"] = int((~stays).sum())
    return [page for page, is_kept in zip(kept, stays.tolist(), strict=True) if is_kept], counts


def _no_near_copies(pages: Sequence[LabelledPage], near: float) -> np.ndarray:
    """(n,) bool: no earlier page that stays is estimated to be so similar."""
    from pipelines.dedup.bands import BandPlan
    from pipelines.dedup.signature import signatures

    plan = BandPlan()
    minima, shingles = signatures(pa.array([page.text for page in pages], pa.large_string()), plan.num_permutations)
    stays = np.ones(len(pages), bool)
    buckets: dict[bytes, list[int]] = defaultdict(list)
    for at in range(len(pages)):
        if shingles[at] == 0:
            continue
        rows = minima[at].reshape(plan.num_bands, plan.rows_per_band)
        keys = [bytes([band]) + rows[band].tobytes() for band in range(plan.num_bands)]
        others = {other for key in keys for other in buckets.get(key, ())}
        if any(float((minima[at] == minima[other]).mean()) >= near for other in others):
            stays[at] = False
            continue
        for key in keys:
            if len(buckets[key]) < _BUCKET:  # a template: its first pages stand for it
                buckets[key].append(at)
    return stays


def is_test_side(side: str, fraction: float, seed: int) -> bool:
    """Whether the pages of this domain or group are kept for the test."""
    return xxhash.xxh3_64_intdigest(side.encode(), seed) < fraction * 2.0**64


def folds_of(pages: Sequence[LabelledPage], count: int, seed: int) -> np.ndarray:
    """(n,) fold of each page: whole groups, dealt to the fold with fewest pages of their label, large ones first."""
    sizes: dict[tuple[str, str], int] = defaultdict(int)
    for page in pages:
        sizes[(page.label, page.side)] += 1
    loads = {label: [0] * count for label in {p.label for p in pages}}
    fold: dict[str, int] = {}
    order = sorted(sizes.items(), key=lambda x: (-x[1], xxhash.xxh3_64_intdigest(x[0][1].encode(), seed), x[0]))
    for (label, side), size in order:
        if side not in fold:
            fold[side] = min(range(count), key=lambda k: (loads[label][k], k))
        loads[label][fold[side]] += size
    return np.array([fold[page.side] for page in pages], np.int64)
