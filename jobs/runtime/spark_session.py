"""One Spark session, the same on a laptop and on a cluster.

Without a master it is `local[*,4]`: all cores, four attempts a task (plain `local[*]` gives up at the first
failure). The JVM of a local session dies with this process (pyspark's gateway reads its standard input).
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from jobs.runtime import environment
from jobs.runtime.java import find_java, java_home
from jobs.runtime.package import build_package
from pipelines.errors import SetupError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LOCAL_MASTER = "local[*,4]"
# Half the CPU seconds to start and a third less to the first result; for tests and short jobs only, since
# the second compiler is off.
SHORT_JOBS = {"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:-UsePerfData"}
# The gateway's logger is named so that Spark does not set the root to its level with two lines of advice.
_LOG4J = """rootLogger.level = {level}
rootLogger.appenderRef.stderr.ref = console
logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer
logger.gateway.level = {level}
logger.native.name = org.apache.hadoop.util.NativeCodeLoader
logger.native.level = error
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = spark %p %c{{1}}: %m%n
"""


def open_spark(
    app_name: str,
    *,
    master: str | None = None,
    run_dir: Path | str,
    settings: Mapping[str, str] | None = None,
) -> SparkSession:
    """A session for `app_name`; `run_dir` takes its scratch files, `settings` override ours.

    Under spark-submit the master and the JVM are given already and only the settings are applied.
    """
    run_dir = Path(run_dir).resolve()
    submitted = environment.inside_spark_submit(os.environ)
    wished = dict(settings or {})
    if submitted:
        builder_settings = wished
    else:
        master = master or LOCAL_MASTER
        _prepare_process(master, run_dir)
        builder_settings = {"spark.master": master, **spark_settings(master, run_dir), **wished}
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise SetupError(
            f"pyspark is not installed ({error}).",
            mend="run `make setup`, or pip install 'gristmill[spark]'.",
        ) from error
    builder = SparkSession.builder.appName(app_name)
    for name, value in builder_settings.items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except PySparkException as error:
        raise SetupError(
            f"Spark did not start on master {master}: {error}",
            mend="its own words stand above; `gristmill doctor` checks Java, ports and limits.",
        ) from error
    if not submitted and not builder_settings["spark.master"].startswith("local"):
        session.sparkContext.addPyFile(str(build_package(run_dir).path))  # executors import this very code
    return session


def close_spark(session: SparkSession) -> None:
    """Stop the session and end the JVM that it started, which gives its memory back to what follows."""
    from pyspark import SparkContext

    session.stop()
    gateway = SparkContext._gateway
    if gateway is None or environment.inside_spark_submit(os.environ):
        return
    process = getattr(gateway, "proc", None)
    gateway.shutdown()
    SparkContext._gateway = None
    SparkContext._jvm = None
    if process is not None:
        process.stdin.close()  # the JVM ends at the end of its input
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def spark_settings(master: str, run_dir: Path) -> dict[str, str]:
    """Our settings for `master`; what is said here once holds for sessions and for spark-submit."""
    settings = {
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.adaptive.enabled": "true",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "2000",
        "spark.sql.execution.arrow.maxBytesPerBatch": "16m",  # pages go from 1 kB to megabytes
        "spark.speculation": "false",  # a task's writes are content-named, but paying twice is no default
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.warehouse.dir": str(run_dir / "warehouse"),
    }
    if not is_one_machine(master):
        return settings
    cores = environment.usable_cores()
    settings |= {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.driver.memory": f"{_driver_memory_mib()}m",
        "spark.driver.extraJavaOptions": "-XX:-UsePerfData",
        "spark.sql.shuffle.partitions": str(max(2, min(64, 2 * cores))),
        "spark.local.dir": str(run_dir / "spark"),
        "spark.executorEnv.LC_ALL": "C.UTF-8",
        "spark.executorEnv.PYTHONUTF8": "1",
    }
    return settings


def is_one_machine(master: str) -> bool:
    """Whether `master` runs on this machine alone."""
    if master.startswith("local"):
        return True
    return environment.is_loopback(urlsplit(master).hostname or "")


def write_conf_dir(run_dir: Path, level: str) -> Path:
    """A configuration folder of ours: logs of `level` on stderr, and nobody's spark-defaults.conf."""
    folder = run_dir / "spark-conf"
    folder.mkdir(exist_ok=True)
    written = folder / "log4j2.properties"
    temporary = written.with_name(f"log4j2.{os.getpid()}")
    temporary.write_text(_LOG4J.format(level=level), encoding="utf-8")
    temporary.replace(written)
    return folder


def _prepare_process(master: str, run_dir: Path) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)
    check_user_is_known()
    java = find_java(os.environ)
    environment.raise_open_files()
    prepared = environment.engine_environment(
        os.environ,
        scratch=run_dir,
        loopback=is_one_machine(master),
        java_home=java_home(java, run_dir),
    )
    # A cluster without room for one executor says so as a warning, and waits.
    level = os.environ.get("GRISTMILL_SPARK_LOG", "error" if master.startswith("local") else "warn")
    prepared["SPARK_CONF_DIR"] = str(write_conf_dir(run_dir, level))
    environment.apply(prepared)


def check_user_is_known() -> None:
    """Spark's Hadoop client refuses to start for a user id without a name (containers may run under any)."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        raise SetupError(
            f"the user id {os.getuid()} has no entry in the list of users, and Spark does not start without one.",
            mend="run as a known user, or add a line to /etc/passwd in the image: "
            f"`gristmill:x:{os.getuid()}:{os.getgid()}::/tmp:/bin/sh`.",
        ) from None


def _driver_memory_mib() -> int:
    """An eighth of the machine, between 1 and 4 GiB."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return max(1024, min(4096, machine // 8))
