"""What `make` calls, with a stub in the place of the command and of the installation."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    if shutil.which("make") is None:
        pytest.skip("needs make: apt-get install make")
    folder = tmp_path / "我的 clone"
    stub = folder / ".venv" / "bin"
    stub.mkdir(parents=True)
    for name in ("gristmill", "python"):
        (stub / name).write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@" "PYTHONPATH=${{PYTHONPATH-unset}}"\n')
        (stub / name).chmod(0o755)
    (folder / "installer").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > installed\n')
    (folder / "installer").chmod(0o755)
    shutil.copy(CHECKOUT / "Makefile", folder)
    return folder


def make(clone: Path, *arguments: str) -> list[str]:
    answer = subprocess.run(
        ["make", "--silent", "PYTHON=./installer", *arguments], cwd=clone,
        env={**os.environ, "PYTHONPATH": "/somebody"}, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return answer.stdout.splitlines()


def groups(clone: Path) -> str:
    words = (clone / "installed").read_text().splitlines()
    return words[words.index("--groups") + 1]


def test_run_without_settings_is_the_sample_and_installs_everything(clone: Path) -> None:
    assert make(clone, "run") == ["gristmill", "run", "local", "PYTHONPATH=unset"]
    assert groups(clone) == "corpus,train"


def test_patterns_and_places_arrive_as_they_were_typed(clone: Path) -> None:
    crawl, out = "my crawl/部分-*.warc.gz", "s3://bucket/a b"
    words = make(clone, "run", f"CRAWL={crawl}", f"OUT={out}", "FROM=dedup_documents", "TO=filter_documents")
    assert words[2:-1] == [
        "local", "--crawl", crawl, "--root", out, "--from", "dedup_documents", "--to", "filter_documents",
    ]  # fmt: skip
    assert groups(clone) == "corpus"


def test_training_asks_for_torch_and_passes_the_wished_build_on(clone: Path) -> None:
    make(clone, "run", "TO=pretrain", "TORCH=cpu")
    assert groups(clone) == "corpus,train"
    words = (clone / "installed").read_text().splitlines()
    assert words[words.index("--torch") + 1] == "cpu"


def test_test_runs_pytest_without_the_long_ones_and_test_all_with_them(clone: Path) -> None:
    assert make(clone, "test")[:4] == ["python", "-m", "pytest", "-m"]
    assert "not slow" in make(clone, "test")
    assert "not slow" not in make(clone, "test-all")
    assert groups(clone) == "corpus,train,test"


def test_clean_leaves_the_results(clone: Path) -> None:
    (clone / "out" / "__pycache__").mkdir(parents=True)
    (clone / "jobs" / "__pycache__").mkdir(parents=True)
    make(clone, "clean", "OUT=out")
    assert (clone / "out" / "__pycache__").exists()
    assert not (clone / "jobs" / "__pycache__").exists()
    assert not (clone / ".venv").exists()


def test_help_names_every_target_that_a_user_types(clone: Path) -> None:
    shown = "\n".join(make(clone, "help"))
    for target in ("run", "test", "test-all", "lint", "setup", "clean"):
        assert f"make {target}" in shown
