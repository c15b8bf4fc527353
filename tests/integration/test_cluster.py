"""`cluster up`, submissions to it, and `cluster down`, on real engines; one cluster for all tests here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.local.processes import session_members
from jobs.runtime.environment import code_root
from jobs.runtime.package import Package, build_package

pytestmark = [pytest.mark.spark, pytest.mark.ray]

SECRET = "do-not-write-this-down-3f9c"
# A job that any cluster can run: ten records through, and what it saw of its surroundings.
PROBE = """
import json, os, sys, tempfile, time
from pathlib import Path

def double(number):
    import pipelines
    return number * 2, pipelines.__file__

if __name__ == "__main__":
    from jobs.runtime.ray_session import close_ray, open_ray
    ray = open_ray(run_dir=tempfile.mkdtemp(prefix="gm-"))
    rows = ray.get([ray.remote(double).remote(number) for number in range(10)])
    out = {"rows": [row[0] for row in rows], "where": rows[0][1], "main": __file__,
           "attempt": os.environ.get("GRISTMILL_ATTEMPT", "plain"), "address":
           ray.get_runtime_context().gcs_address}
    Path(sys.argv[2], f"attempt-{os.environ.get('GRISTMILL_ATTEMPT', 'plain')}.json").write_text(json.dumps(out))
    print("probe done")
    close_ray()
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {
        **os.environ,
        "XDG_STATE_HOME": str(tmp_path_factory.mktemp("state")),
        "PYTHONPATH": str(code_root()),
        "RAY_ADDRESS": "127.0.0.1:1",  # somebody else's; never joined
        "SPARK_HOME": "/nowhere",
        "AWS_ACCESS_KEY_ID": "AKIDOFTHETEST",
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }


def gristmill(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    answer = subprocess.run(
        [sys.executable, "-c", "from cluster.cli import main; main()", *arguments, "--json"],
        env=environment, capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return json.loads(answer.stdout)


@pytest.fixture(scope="module")
def cluster(environment: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The running cluster; a bystander with telling words in its arguments lives beside it."""
    code = "import time; time.sleep(3600)"
    bystander = subprocess.Popen([sys.executable, "-c", code, "ray::raylet", "org.apache.spark.deploy.master.Master"])
    found = gristmill(environment, "cluster", "up", "--workers", "2")
    try:
        yield found
        gristmill(environment, "cluster", "down")
        assert not Path(found["folder"]).exists()
        assert [pid for daemon in found["daemons"] for pid in session_members(daemon["pid"])] == []
        assert bystander.poll() is None, "something that is not ours was stopped"
        assert gristmill(environment, "cluster", "status") == {"name": "local", "up": False}
    finally:
        bystander.kill()
        bystander.wait()
        gristmill(environment, "cluster", "down")


@pytest.fixture(scope="module")
def probe_code(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """Our code with one more job."""
    source = tmp_path_factory.mktemp("source")
    for package in ("cluster", "jobs", "pipelines", "training"):
        shutil.copytree(code_root() / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "jobs" / "probe_cluster.py").write_text(PROBE)
    return build_package(tmp_path_factory.mktemp("zip"), root=source)


def test_a_second_up_leaves_everything_as_it_is(cluster: dict[str, Any], environment: dict[str, str]) -> None:
    assert gristmill(environment, "cluster", "up")["daemons"] == cluster["daemons"]


def test_nothing_listens_beyond_loopback(cluster: dict[str, Any]) -> None:
    pids = [pid for daemon in cluster["daemons"] for pid in session_members(daemon["pid"])]
    addresses = listening(pids)
    assert len(addresses) > 5
    assert [address for address in addresses if not is_loopback_hex(address)] == []


def test_the_jobs_api_wants_the_token(cluster: dict[str, Any]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        request = urllib.request.Request(f"{cluster['ray_dashboard']}/api/jobs/", headers=headers)
        with pytest.raises(urllib.error.HTTPError) as caught:
            opener.open(request, timeout=20)
        assert caught.value.code in (401, 403)


def test_spark_executors_run_the_code_that_was_sent(cluster: dict[str, Any], environment: dict[str, str]) -> None:
    code = (
        "import sys\n"
        "from jobs.runtime.spark_session import close_spark, open_spark\n"
        "session = open_spark('probe', master=sys.argv[1], run_dir=sys.argv[2])\n"
        "def f(n):\n"
        "    import pipelines\n"
        "    return n * 2, pipelines.__file__\n"
        "rows = session.sparkContext.parallelize(range(10), 4).map(f).collect()\n"
        "close_spark(session)\n"
        "assert [row[0] for row in rows] == [2 * n for n in range(10)], rows\n"
        "assert all('.zip/pipelines' in row[1] for row in rows), rows\n"
        "print('ten records')"
    )
    run_dir = Path(cluster["folder"]) / "probe"
    answer = subprocess.run(
        [sys.executable, "-c", code, cluster["spark_master"], str(run_dir)],
        env=environment, capture_output=True, text=True, check=False, timeout=150,
    )  # fmt: skip
    assert "ten records" in answer.stdout, answer.stdout + answer.stderr


def test_a_submission_runs_and_is_posted_again_by_its_record(
    cluster: dict[str, Any], environment: dict[str, str], probe_code: Package, tmp_path: Path
) -> None:
    first = in_process(environment, FIRST, str(tmp_path), str(probe_code.path), probe_code.sha256)
    assert first["metadata"]["attempt"] == "1"
    seen = json.loads((tmp_path / "attempt-1.json").read_text())
    assert seen["rows"] == [2 * n for n in range(10)]
    assert seen["address"] == cluster["ray_address"]
    assert "runtime_resources" in seen["where"]
    assert "runtime_resources" in seen["main"]
    assert first["metadata"]["resume"].startswith("gristmill runs resume probe --root ")

    again = in_process(environment, AGAIN, str(tmp_path))
    assert again["submission_id"] == "probe-2"
    assert json.loads((tmp_path / "attempt-2.json").read_text())["attempt"] == "2"
    assert SECRET not in json.dumps([first, again])


def test_plain_commands_work_in_a_shell_that_took_the_exported_environment(
    cluster: dict[str, Any], environment: dict[str, str], probe_code: Package, tmp_path: Path
) -> None:
    line = (
        'eval "$("$0" -m cluster.cli doctor --export --cluster local)" && '
        'exec "$0" -m ray.scripts.scripts job submit --working-dir "$1" -- "$0" -m jobs.probe_cluster --root "$2"'
    )
    answer = subprocess.run(
        ["bash", "-c", line, sys.executable, str(probe_code.path), str(tmp_path)],
        env=environment, capture_output=True, text=True, check=False, timeout=150,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert json.loads((tmp_path / "attempt-plain.json").read_text())["address"] == cluster["ray_address"]


def test_after_all_that_no_key_and_no_token_stands_in_a_log_or_an_argument(cluster: dict[str, Any]) -> None:
    """Logs of Spark, Ray and the jobs; submissions; command lines. Comes last on purpose."""
    token_path = Path(cluster["ray_token_path"])
    secrets = (SECRET.encode(), token_path.read_bytes())
    searched, found = 0, []
    for file in Path(cluster["folder"]).rglob("*"):
        if file.is_file() and not file.is_symlink() and file != token_path and file.stat().st_size < 50_000_000:
            searched += 1
            body = file.read_bytes()
            found += [str(file) for secret in secrets if secret in body]
    for daemon in cluster["daemons"]:
        for pid in session_members(daemon["pid"]):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            found += [f"arguments of {daemon['role']}" for secret in secrets if secret in line]
    assert searched > 50
    assert found == []


COMMON = """
import json, sys, tempfile
from pathlib import Path
from cluster.submit import ray_jobs, submission
from cluster.submit.target import find_target
from jobs.runtime.package import Package
from pipelines.datasets.store import open_store

root = sys.argv[1]
store, target = open_store(root), find_target("local")
log = []
"""
FIRST = (
    COMMON
    + """
code = Package(path=Path(sys.argv[2]), sha256=sys.argv[3])
kept = submission.record(store, run="probe", job="probe_cluster", arguments=submission.job_arguments(root),
                         environment=submission.travelling_environment({}), code=code, cluster="local")
ray_jobs.post(kept, code, store=store, target=target)
ray_jobs.follow(target, kept.submission_id, write=log.append)
assert "probe done" in "".join(log), log
info = ray_jobs.connect(target).get_job_info(kept.submission_id)
print(json.dumps({"metadata": info.metadata, "submission_id": kept.submission_id}))
"""
)
AGAIN = (
    COMMON
    + """
again = ray_jobs.resume(store, "probe", target=target, folder=Path(tempfile.mkdtemp(prefix="gm-")))
ray_jobs.follow(target, again.submission_id, write=log.append)
print(json.dumps({"submission_id": again.submission_id}))
"""
)


def in_process(environment: dict[str, str], code: str, *arguments: str) -> dict[str, Any]:
    answer = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment, capture_output=True, text=True, check=False, timeout=150,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])


def listening(pids: list[int]) -> list[str]:
    """The address (in the kernel's hex) of each socket on which these processes listen."""
    inodes = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = str(entry.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.append(fields[1].partition(":")[0])
    return found


def is_loopback_hex(address: str) -> bool:
    return address in {
        "0100007F",
        "0000000000000000FFFF00000100007F",
        "00000000000000000000000001000000",
    }


def test_the_two_helpers_of_this_file_see_a_socket_on_all_addresses() -> None:
    import socket

    with socket.socket() as one:
        one.bind(("0.0.0.0", 0))
        one.listen()
        time.sleep(0.05)
        assert "00000000" in listening([os.getpid()])
        assert not is_loopback_hex("00000000")
