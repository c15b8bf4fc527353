from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from jobs.runtime import environment
from pipelines.errors import SetupError

HOSTILE = {
    "SPARK_HOME": "/opt/other-spark",
    "SPARK_CONF_DIR": "/opt/other-spark/conf",
    "SPARK_REMOTE": "sc://elsewhere",
    "PYSPARK_SUBMIT_ARGS": "--master yarn pyspark-shell",
    "HADOOP_CONF_DIR": "/etc/hadoop",
    "RAY_ADDRESS": "10.0.0.1:6379",
    "RAY_AUTH_TOKEN": "somebody's",
    "PYTHONPATH": "/somebody/code",
    "PYTHONHOME": "/somebody/python",
    "LC_ALL": "C",
    "http_proxy": "http://127.0.0.1:1",
    "no_proxy": "intranet",
    "KEPT": "yes",
}


def made(tmp_path: Path, **settings: object) -> dict[str, str]:
    return environment.engine_environment(HOSTILE, scratch=tmp_path, **settings)  # type: ignore[arg-type]


def test_nothing_of_another_spark_ray_or_python_is_inherited(tmp_path: Path) -> None:
    result = made(tmp_path)
    left = {name for name, value in result.items() if HOSTILE.get(name) == value}
    assert left == {"http_proxy", "KEPT"}
    assert result["PYTHONPATH"] == str(Path(__file__).resolve().parents[3])
    assert result["PYSPARK_PYTHON"] == sys.executable


def test_loopback_is_added_to_the_proxy_exceptions_and_nothing_is_lost(tmp_path: Path) -> None:
    result = made(tmp_path)
    assert result["no_proxy"].split(",") == ["intranet", *environment.NEVER_BY_PROXY]
    assert result["NO_PROXY"].split(",") == [*environment.NEVER_BY_PROXY]
    again = environment.engine_environment(result, scratch=tmp_path)
    assert again == result


def test_a_cluster_of_several_machines_is_not_pinned_to_loopback(tmp_path: Path) -> None:
    assert made(tmp_path)["SPARK_LOCAL_IP"] == "127.0.0.1"
    assert not {"SPARK_LOCAL_IP", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"} & made(tmp_path, loopback=False).keys()


def test_apply_removes_what_the_new_environment_lacks() -> None:
    process = {"SPARK_HOME": "x", "A": "1"}
    environment.apply({"A": "2", "B": "3"}, target=process)
    assert process == {"A": "2", "B": "3"}


def test_an_inherited_python_path_is_forgotten_and_ours_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = str(environment.code_root())
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), ours, "/usr/lib/python3"])
    environment.forget_python_path(os.pathsep.join([str(tmp_path), ours, ""]))
    assert sys.path == ["", ours, "/usr/lib/python3"]


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(SetupError, match="mode 777"):
        environment.private_folder(folder)


def test_a_link_in_the_place_of_a_private_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SetupError):
        environment.private_folder(tmp_path / "link")


def test_a_private_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = environment.private_folder(tmp_path / "a" / "b")
    assert oct(folder.stat().st_mode & 0o777) == "0o700"
    assert environment.private_folder(folder) == folder
    assert os.access(folder, os.W_OK)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.0.0.5", True), ("::1", True), ("10.0.0.1", False), ("", False)],
)
def test_loopback_hosts_are_known(host: str, expected: bool) -> None:
    assert environment.is_loopback(host) is expected
