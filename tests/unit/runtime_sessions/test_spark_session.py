from __future__ import annotations

from pathlib import Path

import pytest

from jobs.runtime import spark_session


@pytest.mark.parametrize(
    ("master", "expected"),
    [
        ("local[2,4]", True),
        ("local", True),
        ("spark://127.0.0.1:7077", True),
        ("spark://localhost:7077", True),
        ("spark://10.0.0.1:7077", False),
        ("yarn", False),
        ("k8s://https://cluster:6443", False),
    ],
)
def test_only_masters_of_this_machine_are_pinned_to_loopback(
    tmp_path: Path, master: str, expected: bool
) -> None:
    assert spark_session.is_one_machine(master) is expected
    settings = spark_session.spark_settings(master, tmp_path)
    assert ("spark.driver.host" in settings) is expected


def test_no_task_is_run_twice_by_default_and_each_has_four_attempts(tmp_path: Path) -> None:
    assert spark_session.LOCAL_MASTER == "local[*,4]"
    assert spark_session.spark_settings("local[2]", tmp_path)["spark.speculation"] == "false"
