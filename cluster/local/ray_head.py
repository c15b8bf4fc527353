"""A Ray head on this machine, loopback only, with a token of its own, in a session of its own.

`ray stop` ends every Ray on a machine; this head is ended by its pid. The variable that keeps 127.0.0.1 is
named after Windows and OSX, holds on Linux too, and its clients need it as well.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from cluster.local.ports import free_ports
from cluster.local.processes import Daemon, is_running, start_daemon, stop_daemon
from jobs.runtime import environment
from jobs.runtime.ray_session import LONGEST_TEMP_DIR
from pipelines.errors import SetupError

OBJECT_STORE_BYTES = 200_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RayHead:
    """`address` is for drivers, `dashboard` for the Jobs API and for people; `token_path` holds the token."""

    address: str
    dashboard: str
    token_path: Path
    daemon: Daemon


def start_ray_head(folder: Path, *, num_cpus: int, attempts: int = 3) -> RayHead:
    """A head with `num_cpus` slots; its sockets lie below `folder`, which must be short."""
    if importlib.util.find_spec("ray") is None:
        raise SetupError("ray is not installed.", mend="run `make setup`, or pip install 'gristmill[ray]'.")
    temp_dir = folder / "r"
    if len(str(temp_dir)) > LONGEST_TEMP_DIR:
        raise SetupError(
            f"{temp_dir} is too long for Ray's sockets, at most {LONGEST_TEMP_DIR} characters fit.",
            mend="set TMPDIR to a short folder of your own.",
        )
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    token_path = folder / "token"
    token_path.touch(mode=0o600)
    token_path.write_text(secrets.token_hex(32), encoding="ascii")
    log = folder / "logs" / "ray-head.log"
    for attempt in range(attempts):
        ports = free_ports(10)
        address, dashboard = f"127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
        daemon = start_daemon(
            "ray-head",
            _command(temp_dir, ports, num_cpus),
            environment=head_environment(folder, token_path, ports[8:]),
            log=log,
        )
        try:
            _wait_for(dashboard, token_path, daemon, log)
        except SetupError:
            stop_daemon(daemon, timeout_s=5)
            if attempt + 1 == attempts:
                raise
        else:
            return RayHead(address=address, dashboard=dashboard, token_path=token_path, daemon=daemon)
    raise SetupError("no attempt was made to start Ray.", mend="attempts must be at least 1.")


def head_environment(folder: Path, token_path: Path, metric_ports: list[int]) -> dict[str, str]:
    """The head's environment, which jobs inherit; code comes with each submission."""
    prepared = environment.engine_environment(os.environ, scratch=folder) | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        "GRISTMILL_RAY": "job",  # a job that plain `ray job submit` sends joins this cluster
        "AUTOSCALER_METRIC_PORT": str(metric_ports[0]),
        "DASHBOARD_METRIC_PORT": str(metric_ports[1]),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    del prepared["PYTHONPATH"]
    return prepared


def answers(dashboard: str, token_path: Path) -> bool:
    """Whether the Jobs API answers to our token."""
    request = urllib.request.Request(
        f"{dashboard}/api/jobs/",
        headers={"Authorization": f"Bearer {token_path.read_text(encoding='ascii')}"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


def _command(temp_dir: Path, ports: list[int], num_cpus: int) -> list[str]:
    settings = {
        "node-ip-address": "127.0.0.1",
        "port": ports[0],
        "dashboard-host": "127.0.0.1",
        "dashboard-port": ports[1],
        "ray-client-server-port": ports[2],
        "dashboard-agent-listen-port": ports[3],
        "dashboard-agent-grpc-port": ports[4],
        "runtime-env-agent-port": ports[5],
        "metrics-export-port": ports[6],
        "node-manager-port": ports[7],
        "object-manager-port": 0,
        "min-worker-port": 0,
        "max-worker-port": 0,
        "num-cpus": num_cpus,
        "object-store-memory": OBJECT_STORE_BYTES,
        "temp-dir": temp_dir,
    }
    flags = [f"--{name}={value}" for name, value in settings.items()]
    return [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
        *flags,
    ]


def _wait_for(dashboard: str, token_path: Path, daemon: Daemon, log: Path, timeout_s: float = 120) -> None:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if answers(dashboard, token_path):
            return
        if not is_running(daemon):
            break
        time.sleep(0.3)
    end = log.read_text(encoding="utf-8", errors="replace")[-400:].strip()
    raise SetupError(
        f"Ray's head did not answer at {dashboard} within {timeout_s:.0f} s: {end}",
        mend=f"the logs lie in {log.parent}; `gristmill doctor` checks memory and ports.",
    )
