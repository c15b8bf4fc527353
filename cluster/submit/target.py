"""A cluster by name: the one that `cluster up` started here, or one that ./gristmill.yaml names.

clusters:
  big:
    spark: spark://host:7077
    ray: http://host:8265            # the dashboard's address, which is the Jobs API's
    ray_token_path: /path/to/token   # a file; the token itself stands nowhere else
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.local import state
from jobs.runtime.config import read_config_file
from jobs.runtime.environment import is_loopback
from pipelines.errors import ConfigError, SetupError


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to submit; `local` says that its processes see this machine's files and this Python."""

    name: str
    local: bool
    spark_master: str | None = None
    ray_dashboard: str | None = None
    ray_token_path: str | None = None


def find_target(name: str, *, config_file: Path = Path("gristmill.yaml")) -> Target:
    """The cluster called `name`; an error says what to type where there is none."""
    named = _named_clusters(config_file)
    if name in named:
        return _from_config(name, named[name], config_file)
    found = state.read(name)
    if found is None:
        known = sorted({*named, "local"})
        raise SetupError(
            f"no cluster {name!r} runs here and {config_file} names none.",
            mend=f"`gristmill cluster up` starts one on this machine; known names: {', '.join(known)}.",
        )
    if not found.is_up():
        raise SetupError(
            f"half of the cluster {name!r} is gone (a reboot, or a crash).",
            mend="`gristmill cluster up` starts it anew; then the same command.",
        )
    return Target(
        name=name,
        local=True,
        spark_master=found.spark_master,
        ray_dashboard=found.ray_dashboard,
        ray_token_path=found.ray_token_path,
    )


def _named_clusters(config_file: Path) -> Mapping[str, Any]:
    if not config_file.is_file():
        return {}
    clusters = read_config_file(config_file)[1].get("clusters") or {}
    if not isinstance(clusters, Mapping):
        raise ConfigError(f"{config_file}: `clusters` holds no mapping of names.", mend="see docs/clusters.md.")
    return clusters


def _from_config(name: str, body: Any, config_file: Path) -> Target:
    known = {"spark", "ray", "ray_token_path"}
    unknown = set(body) - known if isinstance(body, Mapping) else {repr(body)}
    if unknown:
        found = ", ".join(sorted(unknown))
        raise ConfigError(
            f"{config_file}: clusters.{name}: unknown {found}.",
            mend=f"known keys: {', '.join(sorted(known))}.",
        )
    hosts = [urlsplit(str(body[key])).hostname or "" for key in ("spark", "ray") if key in body]
    return Target(
        name=name,
        local=bool(hosts) and all(is_loopback(host) for host in hosts),
        spark_master=body.get("spark"),
        ray_dashboard=body.get("ray"),
        ray_token_path=body.get("ray_token_path"),
    )
