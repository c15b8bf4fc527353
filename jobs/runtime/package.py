"""The one zip of the four packages that travels to a cluster, for Spark and Ray alike; never the checkout.

Stored, not compressed, in name order and without times, so the same code gives the same bytes and one
digest.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from jobs.runtime.environment import code_root
from pipelines.errors import SetupError

PACKAGES = ("cluster", "jobs", "pipelines", "training")
MAX_BYTES = 64 * 2**20  # Ray uploads it to the head; what is larger is a stray file
_LEFT_OUT = {"__pycache__", "ruff.toml"}
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A zip of our code; `sha256` is of its bytes."""

    path: Path
    sha256: str


def build_package(folder: Path, *, root: Path | None = None) -> Package:
    """Write `gristmill-<digest>.zip` into `folder`, or find it there; `root` holds the four packages."""
    root = root or one_root()
    folder.mkdir(parents=True, exist_ok=True)
    if root.is_file():  # this process itself runs from the zip
        return _named(root, folder, copy=True)
    files = package_files(root)
    total = sum(file.stat().st_size for file in files)
    if total > MAX_BYTES:
        largest = max(files, key=lambda file: file.stat().st_size)
        raise SetupError(
            f"the code below {root} is {total:,} bytes and at most {MAX_BYTES:,} travel; "
            f"the largest file is {largest}.",
            mend="move what is not code out of the packages.",
        )
    temporary = folder / "gristmill.zip.part"
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            entry = zipfile.ZipInfo(file.relative_to(root).as_posix(), _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.read_bytes())
    return _named(temporary, folder, copy=False)


def package_files(root: Path) -> list[Path]:
    """Every file that travels, in name order."""
    files = [
        file
        for package in PACKAGES
        for file in (root / package).rglob("*")
        if file.is_file()
        and not any(
            part in _LEFT_OUT or part.startswith(".") or part.endswith((".pyc", "~"))
            for part in file.relative_to(root).parts
        )
    ]
    return sorted(files, key=lambda file: file.relative_to(root).as_posix())


def one_root() -> Path:
    """The root of this very code; SetupError where another package of the same name hides one of the four."""
    root = code_root()
    for name in PACKAGES:
        found = importlib.util.find_spec(name)
        where = Path(found.origin).parents[1] if found and found.origin else None
        if where is None or where.resolve() != root:
            raise SetupError(
                f"the package `{name}` comes from {where}, and the others from {root}.",
                mend="leave that folder, or take it out of PYTHONPATH: it hides our package of this name.",
            )
    return root


def _named(built: Path, folder: Path, *, copy: bool) -> Package:
    digest = hashlib.sha256(built.read_bytes()).hexdigest()
    path = folder / f"gristmill-{digest[:16]}.zip"
    if copy:
        shutil.copyfile(built, path)
    else:
        built.replace(path)
    return Package(path=path, sha256=digest)
