from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.runtime import ray_session
from pipelines.errors import SetupError

OURS = json.dumps({"metadata": {ray_session.SUBMISSION_KEY: "tiny-1"}})
THEIRS = json.dumps({"metadata": {"job_name": "somebody"}})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"RAY_ADDRESS": "10.0.0.1:6379"}, None),
        ({"RAY_ADDRESS": "10.0.0.1:6379", "RAY_JOB_CONFIG_JSON_ENV_VAR": THEIRS}, None),
        ({"RAY_ADDRESS": "10.0.0.1:6379", "RAY_JOB_CONFIG_JSON_ENV_VAR": "no json"}, None),
        ({"RAY_ADDRESS": "10.0.0.1:6379", "RAY_JOB_CONFIG_JSON_ENV_VAR": "[1]"}, None),
        ({"RAY_ADDRESS": "10.0.0.1:6379", "GRISTMILL_RAY": "job"}, None),
        ({"RAY_ADDRESS": "10.0.0.1:6379", "RAY_JOB_CONFIG_JSON_ENV_VAR": OURS}, "10.0.0.1:6379"),
        (
            {"RAY_ADDRESS": "a:1", "RAY_JOB_CONFIG_JSON_ENV_VAR": THEIRS, "GRISTMILL_RAY": "job"},
            "a:1",
        ),
    ],
)
def test_a_cluster_is_joined_only_from_inside_a_job_of_ours(
    environ: dict[str, str], expected: str | None
) -> None:
    assert ray_session.own_job_address(environ) == expected


def test_the_temporary_folder_is_short_private_and_not_the_long_one(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    folder = ray_session.private_temp_dir((str(long), "/tmp"))
    try:
        assert str(folder).startswith("/tmp/gm-")
        assert len(str(folder)) <= ray_session.LONGEST_TEMP_DIR
        assert oct(folder.stat().st_mode & 0o777) == "0o700"
    finally:
        folder.rmdir()


def test_a_folder_that_is_not_ascii_is_passed_over(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="TMPDIR"):
        ray_session.private_temp_dir((str(tmp_path / "目录"),))


def test_an_interpreter_in_a_path_with_spaces_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session.sys, "executable", "/a b/中文/python")
    assert ray_session.worker_runtime_env() == {"py_executable": "'/a b/中文/python'"}
    monkeypatch.setattr(ray_session.sys, "executable", "/usr/bin/python3")
    assert ray_session.worker_runtime_env() == {}
