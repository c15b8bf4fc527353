"""Versions of one dataset: whether one extends another, and what takedowns changed in a pinned one since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipelines.datasets.dataset import Dataset
from pipelines.datasets.manifest import PART_LIST, Manifest, first_sha256, latest_manifest, read_manifest
from pipelines.datasets.store import Store


def extends(store: Store, newer: Manifest, pin: Mapping[str, Any]) -> bool:
    """Whether `newer` is the pinned version or extends it, over any number of versions."""
    if newer.name != pin["name"]:
        return False
    while newer.version > pin["version"] and newer.extends is not None:
        newer = read_manifest(store, newer.name, newer.extends["version"])
    return newer.sha256 == pin["manifest_sha256"]


def with_takedowns(dataset: Dataset) -> Dataset:
    """The pinned version, its objects by the bytes that takedowns left of them: same rows, tokens and positions.

    What later versions added is left out.
    """
    latest = latest_manifest(dataset.store, dataset.name)
    if latest is None or latest.version == dataset.manifest.version:
        return dataset
    newer = Dataset(dataset.store, latest).part_list.to_pylist()
    now = {_place(row): row for row in newer if row["origin_sha256"]}
    if not now:
        return dataset
    found = Dataset(dataset.store, dataset.manifest)
    rows = [now.get(_place(row), row) for row in dataset.part_list.to_pylist()]
    found.part_list = pa.Table.from_pylist(rows, schema=PART_LIST)
    return found


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["role"], row["unit"], row["cell"], first_sha256(row)
