"""Functions compiled by numba, their machine code kept between processes.

Compiling costs seconds a process, and a job starts many. The code is kept in the user's cache folder under a name that
is a digest of numba's version and of everything in the packages that hold kernels: numba itself notices a change of a
function's own file only, not of a table or a function that it took in from another. Where no folder can be written each
process compiles.
"""

from __future__ import annotations

import functools
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numba

_WITH_KERNELS = {  # packages whose code or tables end up in machine code; those of one root take from each other
    "pipelines": ("crawl/html", "decontamination", "dedup", "filters", "quality", "tokens"),
    "training": ("data",),
}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on the first call, without the GIL; of this machine's earlier processes the code is taken over."""
    return numba.njit(nogil=True, cache=_is_kept(function))(function)


def subkernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for what only kernels call: it gets no entry from Python, which halves its compilation."""
    is_kept = _is_kept(function)
    return numba.njit(nogil=True, cache=is_kept, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)


def _is_kept(function: Callable[..., Any]) -> bool:
    """Whether the code of this function can be kept; numba is told where."""
    root = function.__module__.partition(".")[0]
    place = kept_code(root if root in _WITH_KERNELS else "pipelines")
    if place is not None:
        numba.config.CACHE_DIR = str(place)  # pyright: ignore[reportAttributeAccessIssue]
    return place is not None


@functools.cache
def kept_code(root: str = "pipelines") -> Path | None:
    """The folder of compiled code of a root package, only ours to write; None where there is none."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(given)
    digest = _sources_digest(root)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")  # noqa: PTH111, PTH118
    places = [Path(home, "gristmill", "kernels"), Path(tempfile.gettempdir(), f"gristmill-kernels-{os.getuid()}")]
    if sys.prefix != sys.base_prefix:  # a virtual environment keeps it for every home, and goes with it
        places.insert(0, Path(sys.prefix, "var", "gristmill-kernels"))
    for folder in places:
        place = folder / digest
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = place.stat()
            if owner.st_uid != os.getuid() or stat.S_IMODE(owner.st_mode) & 0o022:
                continue  # somebody else could put code there
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError:
            continue
        return place
    return None


def _sources_digest(root: str) -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for package in _WITH_KERNELS[root]:
        for name, body in _sources(files(root).joinpath(*package.split("/")), package):
            digest.update(f"{name}\0{len(body)}\0".encode())
            digest.update(body)
    return digest.hexdigest()[:16]


def _sources(folder: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        name = f"{path}/{entry.name}"
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _sources(entry, name)
        elif not entry.name.endswith(".npz"):  # models are arguments
            yield name, entry.read_bytes()
