from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from cluster.cli import doctor


def test_every_finding_that_fails_has_a_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRISTMILL_JAVA_HOME", str(tmp_path))
    findings = {finding.what: finding for finding in doctor.examine()}
    assert findings["java"].state == "fail"
    assert "unset it" in findings["java"].mend
    assert all(finding.mend for finding in findings.values() if finding.state == "fail")


def test_a_failure_gives_exit_code_6_and_json_is_one_document(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRISTMILL_JAVA_HOME", str(tmp_path))
    answer = CliRunner().invoke(doctor.command, ["--json"])
    assert answer.exit_code == 6
    assert {"what", "state", "found", "mend"} == json.loads(answer.stdout)[0].keys()


def test_variables_of_other_engines_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_HOME", "/opt/other")
    monkeypatch.setenv("http_proxy", "http://user:password@127.0.0.1:1")
    findings = {finding.what: finding.found for finding in doctor.examine()}
    assert "SPARK_HOME" in findings["inherited"]
    assert "http_proxy" in findings["proxy"]
    assert "password" not in " ".join(findings.values())


def test_a_store_that_holds_is_told(tmp_path: Path) -> None:
    answer = CliRunner().invoke(doctor.command, ["--root", str(tmp_path / "root"), "--json"])
    found = {one["what"]: one for one in json.loads(answer.stdout)}
    assert found["store"]["state"] == "ok"


def test_a_shell_that_takes_the_exported_lines_has_our_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "状态 state"))
    monkeypatch.setenv("SPARK_HOME", "/opt/other")
    if not any(finding.what == "java" and finding.state == "ok" for finding in doctor.examine()):
        pytest.skip("needs Java: make setup")
    lines = "\n".join(doctor.export_lines(None))
    answer = subprocess.run(
        ["bash", "-c", f"{lines}\nenv -0"], env=dict(os.environ), capture_output=True, text=True, check=True
    )
    seen = dict(entry.partition("=")[::2] for entry in answer.stdout.split("\0") if entry)
    assert "SPARK_HOME" not in seen
    assert seen["SPARK_LOCAL_IP"] == "127.0.0.1"
    assert Path(seen["JAVA_HOME"], "bin", "java").exists()
