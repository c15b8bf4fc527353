"""Ray inside this process, or the cluster that was asked for; never the one that happens to be around.

`ray.init()` by itself joins the cluster of RAY_ADDRESS, or the one noted in the default temporary folder.
Here a cluster is joined only by its address, or inside a job that was submitted to it by us. Otherwise a
private Ray is started on loopback, with its own token and its own short temporary folder, and it dies with
this process.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

from jobs.runtime import environment
from jobs.runtime.package import build_package
from pipelines.errors import SetupError

# A unix socket path holds 107 bytes and Ray's session part takes about 60 of them.
LONGEST_TEMP_DIR = 40
OBJECT_STORE_BYTES = 100_000_000  # receipts and small arrays only: text never goes through the object store
SUBMISSION_KEY = "gristmill_submission"  # in a job's metadata: this job is one of ours

_private_dirs: list[Path] = []
_tokens: list[str] = []  # Ray reads its token once a process, so a second private Ray must have the first one's


def open_ray(*, address: str | None = None, run_dir: Path | str, num_cpus: int | None = None) -> ModuleType:
    """The connected `ray` module.

    `address` joins that cluster ("host:port"); its token is taken from the environment. Without it a
    private Ray of `num_cpus` slots (all cores, at least 4: slots are shares, not cores) is started.
    """
    if (own := own_job_address(os.environ)) is not None and address in (None, own):
        return _join(own, runtime_env=None)  # the job brought the code
    if address is not None:
        code = build_package(Path(run_dir))
        return _join(address, runtime_env={"working_dir": str(code.path), **worker_runtime_env()})
    return _start(Path(run_dir), num_cpus or max(4, environment.usable_cores()))


def close_ray() -> None:
    """Leave the cluster, or end the private one and delete its files."""
    ray = sys.modules.get("ray")
    if ray is not None:
        ray.shutdown()
    while _private_dirs:
        shutil.rmtree(_private_dirs.pop(), ignore_errors=True)


def own_job_address(environ: Mapping[str, str]) -> str | None:
    """The address of the cluster that runs this very job, if we submitted it; else None.

    Ray gives each job's driver RAY_ADDRESS and RAY_JOB_CONFIG_JSON_ENV_VAR with the job's metadata. Both
    may also be inherited from a shell inside somebody's job, so the metadata must name a submission of
    ours, or the user says GRISTMILL_RAY=job (a plain `ray job submit`).
    """
    address, config = environ.get("RAY_ADDRESS"), environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR")
    if not address or not config:
        return None
    try:
        metadata = json.loads(config).get("metadata") or {}
    except (ValueError, AttributeError):
        return None
    ours = SUBMISSION_KEY in metadata or environ.get("GRISTMILL_RAY") == "job"
    return address if ours else None


def private_temp_dir(candidates: tuple[str, ...] | None = None) -> Path:
    """A new folder, readable by this user alone, short enough for Ray's sockets.

    The first of `candidates` (TMPDIR, /tmp, /var/tmp, /dev/shm) that is short, plain ASCII and writable.
    """
    tried = []
    for base in candidates or (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):
        short = len(base) + len("/gm-12345678") <= LONGEST_TEMP_DIR and base.isascii() and " " not in base
        if short and os.access(base, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix="gm-", dir=base))
        tried.append(base)
    raise SetupError(
        f"no temporary folder for Ray's sockets: none of {', '.join(tried)} is writable, plain ASCII and "
        f"at most {LONGEST_TEMP_DIR - 12} characters long.",
        mend="set TMPDIR to a short folder of your own.",
    )


def worker_runtime_env() -> dict[str, object]:
    """What every worker needs: Ray pastes the interpreter into a shell line, so it must come quoted."""
    quoted = shlex.quote(sys.executable)
    return {} if quoted == sys.executable else {"py_executable": quoted}


def _start(run_dir: Path, num_cpus: int) -> ModuleType:
    run_dir.mkdir(parents=True, exist_ok=True)
    temp_dir = private_temp_dir()
    _private_dirs.append(temp_dir)
    if len(_private_dirs) == 1:
        atexit.register(close_ray)
    token = temp_dir / "token"
    token.touch(mode=0o600)
    if not _tokens:
        _tokens.append(secrets.token_hex(32))
    token.write_text(_tokens[0], encoding="ascii")
    prepared = environment.engine_environment(os.environ, scratch=run_dir)
    prepared |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    environment.apply(prepared)
    environment.raise_open_files()
    ray = _import_ray()
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            runtime_env=worker_runtime_env(),
            logging_level="ERROR",
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(temp_dir),
        )
    except (ConnectionError, RuntimeError, OSError, ValueError) as error:
        raise SetupError(
            f"Ray did not start in {temp_dir}: {error}",
            mend="`gristmill doctor` checks memory, ports and folders; Ray's logs lie in that folder.",
        ) from error
    return ray


def _join(address: str, runtime_env: dict[str, object] | None) -> ModuleType:
    host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
    if environment.is_loopback(host):
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # else the address is rewritten and init hangs
    ray = _import_ray()
    try:
        ray.init(address=address, runtime_env=runtime_env, logging_level="ERROR", log_to_driver=False)
    except ConnectionError as error:
        mode = os.environ.get("RAY_AUTH_MODE", "unset")
        raise SetupError(
            f"no connection to the Ray cluster at {address} (RAY_AUTH_MODE is {mode}): {error}",
            mend="check the address; a missing or wrong token looks the same: set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH to the cluster's token file (`gristmill cluster status` shows it).",
        ) from error
    return ray


def _import_ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise SetupError(
            f"ray is not installed ({error}).", mend="run `make setup`, or pip install 'gristmill[ray]'."
        ) from error
    return ray
