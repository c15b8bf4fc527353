"""Names that may become object keys: datasets, artifacts, runs, and the keys built from them.

Nothing that comes from a crawl is ever a key: units are hashes, parts are named by their content.
"""

from __future__ import annotations

import re

from pipelines.errors import ConfigError

AUDIT = "audit"  # the create-only chain of what was taken down and purged

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")


def check_name(name: str, *, what: str = "dataset") -> str:
    """The name; ConfigError unless it is 1-80 letters, digits, `_`, `.`, `-`, beginning with a letter or digit."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{what} name {name!r} cannot be an object key",
            mend="use 1-80 letters, digits, '_', '.', '-', beginning with a letter or digit",
        )
    return name


def home(name: str) -> str:
    """Key prefix of a dataset (`documents`) or an artifact (`artifacts/tokenizer`), without a closing slash."""
    if name.startswith("artifacts/"):
        return f"artifacts/{check_name(name.removeprefix('artifacts/'), what='artifact')}"
    return f"datasets/{check_name(name)}"


def manifest_prefix(name: str) -> str:
    """Prefix of the create-only chain of a dataset's manifests."""
    return f"{home(name)}/manifests"


def manifest_key(name: str, version: int) -> str:
    """Key of one version's manifest."""
    return f"{manifest_prefix(name)}/v{version:06d}.json"


def work_prefix(name: str, stage_id: str) -> str:
    """Prefix of a job in flight: done records, attempts, heartbeats."""
    return f"{home(name)}/work/{check_name(stage_id, what='stage')}"
