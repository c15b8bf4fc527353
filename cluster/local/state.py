"""What `cluster up` started and where, in one file for this user; `down` stops exactly that."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.local.processes import Daemon, is_running
from jobs.runtime.environment import private_folder
from pipelines.errors import ConfigError, ConflictError, SetupError

FORMAT = "gristmill.local-cluster/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalCluster:
    """Spark and Ray on this machine; addresses are None for an engine that was not asked for."""

    name: str
    folder: str
    daemons: tuple[Daemon, ...]
    spark_master: str | None = None
    spark_ui: str | None = None
    ray_address: str | None = None
    ray_dashboard: str | None = None
    ray_token_path: str | None = None

    def is_up(self) -> bool:
        """Whether every one of its processes runs."""
        return all(is_running(daemon) for daemon in self.daemons)

    def client_environment(self) -> dict[str, str]:
        """What a client of its Ray must have set; the token itself stays in its file."""
        environment = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
        return environment | ({"RAY_AUTH_TOKEN_PATH": self.ray_token_path} if self.ray_token_path else {})


def state_dir() -> Path:
    """The folder of this user's state files."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    try:
        Path(base).mkdir(parents=True, exist_ok=True)
        return private_folder(Path(base) / "gristmill")
    except OSError as error:
        raise SetupError(
            f"{base} cannot hold our state ({error}).", mend="set XDG_STATE_HOME to a folder of yours."
        ) from error


def read(name: str) -> LocalCluster | None:
    """The cluster of that name as it was started; None where there is none."""
    try:
        body = json.loads(_path(name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if body.pop("format", None) != FORMAT:
        raise SetupError(
            f"{_path(name)} is not of format {FORMAT}.", mend="remove it when nothing of it runs."
        )
    return LocalCluster(**body | {"daemons": tuple(Daemon(**daemon) for daemon in body["daemons"])})


def write(cluster: LocalCluster) -> None:
    """Keep it, readable by this user alone."""
    path = _path(cluster.name)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.touch(mode=0o600)
    temporary.write_text(json.dumps({"format": FORMAT, **asdict(cluster)}, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def forget(name: str) -> None:
    """Drop the file."""
    _path(name).unlink(missing_ok=True)


@contextmanager
def exclusively(name: str) -> Iterator[None]:
    """One `up` or `down` of a cluster at a time."""
    with _path(name).with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(
                f"another `gristmill cluster` command works on the cluster {name!r}.",
                mend="wait for it to end.",
            ) from None
        yield


def _path(name: str) -> Path:
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise ConfigError(f"{name!r} is no name for a cluster.", mend="use letters, digits, - and _.")
    return state_dir() / f"cluster-{name}.json"
