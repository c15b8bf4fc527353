"""What is set and dropped before an engine starts, so that a session depends on its arguments alone.

An inherited SPARK_HOME loads another Spark's jars, an inherited RAY_ADDRESS joins somebody else's cluster,
a proxy variable sends loopback traffic away, LC_ALL=C breaks the JVM on non-ASCII paths.
`engine_environment` is a pure function from one environment to another; `apply` puts its result into this
process. The same function makes the environment of local clusters and submissions, because Ray's head and
its clients must agree on it.
"""

from __future__ import annotations

import os
import resource
import stat
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from pipelines.errors import SetupError

# Another installation of Spark or Hadoop, or somebody's defaults for one.
SPARK_DROPPED = frozenset(
    [
        "SPARK_HOME",
        "SPARK_CONF_DIR",
        "SPARK_DIST_CLASSPATH",
        "SPARK_CLASSPATH",
        "SPARK_REMOTE",
        "SPARK_API_MODE",
        "SPARK_CONNECT_MODE_ENABLED",
        "SPARK_MASTER",
        "SPARK_MASTER_HOST",
        "SPARK_LOCAL_DIRS",
        "SPARK_WORKER_DIR",
        "SPARK_JAVA_OPTS",
        "SPARK_SUBMIT_OPTS",
        "SPARK_DAEMON_JAVA_OPTS",
        "SPARK_ENV_LOADED",
        "SPARK_SCALA_VERSION",
        "PYSPARK_SUBMIT_ARGS",
        "PYSPARK_PYTHON",
        "PYSPARK_DRIVER_PYTHON",
        "PYSPARK_DRIVER_PYTHON_OPTS",
        "HADOOP_CONF_DIR",
        "HADOOP_HOME",
        "HADOOP_CLASSPATH",
        "YARN_CONF_DIR",
        "HIVE_CONF_DIR",
        "HIVE_HOME",
    ]
)
# Somebody's cluster, or settings that differ between a head and its clients.
RAY_DROPPED = frozenset(
    [
        "RAY_ADDRESS",
        "RAY_API_SERVER_ADDRESS",
        "RAY_NAMESPACE",
        "RAY_TMPDIR",
        "RAY_RUNTIME_ENV_HOOK",
        "RAY_JOB_CONFIG_JSON_ENV_VAR",
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH",
        "RAY_AUTH_MODE",
        "RAY_OVERRIDE_RESOURCES",
        "RAY_CLUSTER_ID",
    ]
)
PYTHON_DROPPED = frozenset(["PYTHONHOME", "PYTHONSTARTUP", "PYTHONPATH", "PYTHONOPTIMIZE", "PYTHONINSPECT"])
# Objects from stores that know no checksum trailers (older Ceph, most S3-compatibles).
S3_SETTINGS = {
    "AWS_REQUEST_CHECKSUM_CALCULATION": "WHEN_REQUIRED",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "WHEN_REQUIRED",
}
# Loopback, and the addresses at which clouds hand out a machine's credentials (Ray asks them where it
# runs).
NEVER_BY_PROXY = ("127.0.0.1", "localhost", "169.254.169.254", "metadata.google.internal")
OPEN_FILES_WANTED = 4096  # 280 jars do not fit into 256 descriptors


def code_root() -> Path:
    """The folder (or zip) that holds `pipelines`, `training`, `jobs` and `cluster`."""
    return Path(__file__).resolve().parents[2]


def engine_environment(
    inherited: Mapping[str, str], *, scratch: Path, loopback: bool = True, java_home: Path | None = None
) -> dict[str, str]:
    """The environment for Spark, Ray and what they start, made from `inherited`.

    `scratch` takes the temporary files of this run. `loopback` pins every listener to 127.0.0.1 (one
    machine).
    """
    dropped = SPARK_DROPPED | RAY_DROPPED | PYTHON_DROPPED
    environment = {name: value for name, value in inherited.items() if name not in dropped}
    environment |= {
        "PYTHONPATH": str(code_root()),
        "PYTHONUTF8": "1",
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "LC_ALL": "C.UTF-8",  # not LANG alone: an inherited LC_ALL=C would win
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` Ray would start its workers by uv
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "2",
        "SPARK_LOCAL_DIRS": str(scratch / "spark"),
    }
    for name, value in S3_SETTINGS.items():
        environment.setdefault(name, value)
    for name in ("NO_PROXY", "no_proxy"):
        environment[name] = _with_loopback(environment.get(name, ""))
    if loopback:
        # Despite its name the Ray variable keeps 127.0.0.1 on Linux; head and clients must both have it.
        environment |= {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_LOCAL_HOSTNAME": "localhost",  # the machine's own name may not resolve
        }
    if java_home is not None:
        environment["JAVA_HOME"] = str(java_home)
    return environment


def apply(environment: Mapping[str, str], *, target: MutableMapping[str, str] | None = None) -> None:
    """Make `environment` this process's own: what it lacks is removed."""
    process = os.environ if target is None else target
    if target is None:
        forget_python_path(os.environ.get("PYTHONPATH", ""))
    for name in [name for name in process if name not in environment]:
        del process[name]
    process.update(environment)


def forget_python_path(inherited: str) -> None:
    """Take the folders of an inherited PYTHONPATH off sys.path: another pyspark there would hide ours."""
    ours = str(code_root())
    foreign = {str(Path(entry).resolve()) for entry in inherited.split(os.pathsep) if entry} - {ours}
    sys.path[:] = [entry for entry in sys.path if not entry or str(Path(entry).resolve()) not in foreign]


def inside_spark_submit(environ: Mapping[str, str]) -> bool:
    """Whether spark-submit started this driver: the JVM runs already and its settings must stay."""
    return "PYSPARK_GATEWAY_PORT" in environ


def private_folder(path: Path) -> Path:
    """Create `path` for this user alone; a folder that somebody else owns or may write to is refused."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o022:
        raise SetupError(
            f"{path} is owned by user {found.st_uid} with mode {stat.S_IMODE(found.st_mode):o}, "
            f"expected a folder of user {os.getuid()} that no other user can write to.",
            key=str(path),
            mend="remove it, or point TMPDIR or XDG_STATE_HOME to a folder of your own.",
        )
    return path


def raise_open_files(wanted: int = OPEN_FILES_WANTED) -> int:
    """Raise the soft limit of open files towards `wanted`; returns what holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    return target


def usable_cores() -> int:
    """Cores that this process may run on."""
    return max(1, len(os.sched_getaffinity(0)))


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine's loopback."""
    return host in {"localhost", "::1", "[::1]"} or host.startswith("127.")


def _with_loopback(no_proxy: str) -> str:
    names = [name.strip() for name in no_proxy.split(",") if name.strip()]
    return ",".join([*names, *(name for name in NEVER_BY_PROXY if name not in names)])
