"""Whether one version of a dataset extends another: holds the same parts and perhaps more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.datasets.manifest import Manifest, read_manifest
from pipelines.datasets.store import Store


def extends(store: Store, newer: Manifest, pin: Mapping[str, Any]) -> bool:
    """Whether `newer` is the pinned version or extends it, over any number of versions."""
    if newer.name != pin["name"]:
        return False
    while newer.version > pin["version"] and newer.extends is not None:
        newer = read_manifest(store, newer.name, newer.extends["version"])
    return newer.sha256 == pin["manifest_sha256"]
