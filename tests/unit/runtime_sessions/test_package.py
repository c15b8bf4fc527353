from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from jobs.runtime import package
from pipelines.errors import SetupError


def source(root: Path) -> Path:
    for name in package.PACKAGES:
        (root / name / "__pycache__").mkdir(parents=True)
        (root / name / "__init__.py").write_text(f"NAME = {name!r}\n")
        (root / name / "__pycache__" / "x.cpython-311.pyc").write_bytes(b"x")
    (root / "pipelines" / ".hidden").write_text("secret")
    (root / "pipelines" / "words.txt").write_text("词")
    (root / "stray.bin").write_bytes(b"0" * 1000)
    return root


def test_the_same_code_gives_the_same_bytes_whatever_its_times(tmp_path: Path) -> None:
    root = source(tmp_path / "src")
    first = package.build_package(tmp_path / "a", root=root)
    os.utime(root / "jobs" / "__init__.py", (1, 1))
    again = package.build_package(tmp_path / "b", root=root)
    assert again.sha256 == first.sha256
    assert again.path.name == first.path.name == f"gristmill-{first.sha256[:16]}.zip"


def test_only_the_four_packages_travel(tmp_path: Path) -> None:
    built = package.build_package(tmp_path / "a", root=source(tmp_path / "src"))
    with zipfile.ZipFile(built.path) as archive:
        names = archive.namelist()
    assert names == sorted([f"{name}/__init__.py" for name in package.PACKAGES] + ["pipelines/words.txt"])


def test_a_stray_file_in_the_packages_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = source(tmp_path / "src")
    (root / "jobs" / "model.bin").write_bytes(b"0" * 5000)
    monkeypatch.setattr(package, "MAX_BYTES", 4000)
    with pytest.raises(SetupError, match=r"model\.bin"):
        package.build_package(tmp_path / "a", root=root)


def test_the_code_runs_out_of_the_zip_alone(tmp_path: Path) -> None:
    built = package.build_package(tmp_path / "a")
    code = (
        "import pipelines.errors, jobs.runtime.package as p, pathlib, sys\n"
        "again = p.build_package(pathlib.Path(sys.argv[1]))\n"
        "print(pipelines.errors.__file__, again.sha256)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "b")],
        env={**os.environ, "PYTHONPATH": str(built.path)}, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    where, digest = answer.stdout.split()
    assert where.startswith(str(built.path))
    assert digest == built.sha256
