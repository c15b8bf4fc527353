"""Imports go down only, and nobody pays for an engine that is not used."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
ENGINES = {"pyspark", "py4j", "ray", "torch", "deepspeed"}
HELP_CPU_S = 0.3


def in_fresh_interpreter(code: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def modules_after_importing_all_of(*packages: str) -> set[str]:
    return set(
        in_fresh_interpreter(
            "import importlib, pkgutil, sys\n"
            f"for package in {packages!r}:\n"
            "    found = importlib.import_module(package)\n"
            "    for module in pkgutil.walk_packages(found.__path__, package + '.'):\n"
            "        module.name.endswith('__main__') or importlib.import_module(module.name)\n"
            "print(*sorted(sys.modules), sep='\\n')"
        ).split()
    )


def test_importing_all_of_pipelines_loads_no_engine_and_nothing_of_ours_above_it() -> None:
    loaded = {name.partition(".")[0] for name in modules_after_importing_all_of("pipelines")}
    assert not loaded & (ENGINES | {"jobs", "training", "cluster", "click"})


def test_importing_every_job_and_command_loads_no_engine() -> None:
    loaded = {name.partition(".")[0] for name in modules_after_importing_all_of("jobs", "cluster")}
    assert not loaded & ENGINES


def test_training_order_and_stream_load_no_torch() -> None:
    if not any((CHECKOUT / "training" / "data").glob("*.py")):
        pytest.skip("training/data is empty")
    loaded = {name.partition(".")[0] for name in modules_after_importing_all_of("training.data")}
    assert not loaded & ENGINES


def test_the_import_contracts_hold() -> None:
    pytest.importorskip("importlinter", reason="needs import-linter: make test")
    answer = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"],
        cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_only_one_file_imports_deepspeed() -> None:
    importing = [
        path.relative_to(CHECKOUT)
        for package in ("pipelines", "training", "jobs", "cluster")
        for path in (CHECKOUT / package).rglob("*.py")
        if any(
            line.strip().startswith(("import deepspeed", "from deepspeed"))
            for line in path.read_text(encoding="utf-8").splitlines()
        )
    ]
    assert set(importing) <= {Path("training/engine.py")}


def test_no_job_file_bears_the_name_of_a_standard_module() -> None:
    stems = {path.stem for path in (CHECKOUT / "jobs").glob("*.py")} - {"__init__"}
    assert not stems & sys.stdlib_module_names


def test_the_four_packages_have_an_init_and_the_tests_have_none() -> None:
    for package in ("pipelines", "training", "jobs", "cluster"):
        folders = {path.parent for path in (CHECKOUT / package).rglob("*.py")}
        assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
    assert list((CHECKOUT / "tests").rglob("__init__.py")) == []


def test_help_answers_at_once() -> None:
    """CPU time, and the best of three, since machines are shared."""
    if "def main" not in (CHECKOUT / "cluster" / "cli" / "__init__.py").read_text(encoding="utf-8"):
        pytest.skip("the command line is not there yet")
    code = "import sys; sys.argv=['gristmill','--help']\nfrom cluster.cli import main\nmain()"
    best = min(_cpu_seconds(code) for _ in range(3))
    assert best < HELP_CPU_S


def _cpu_seconds(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
