"""Sets of 64-bit hashes as sorted files: which URLs and payloads earlier crawls have.

A file is unique little-endian u64 in rising order, eight bytes an entry; it is mapped, not read, so a set of any
size costs the pages that are touched.  Two different things share a hash with a chance of 2^-64 a pair: among three
billion entries one new page in six billion is taken for a seen one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import xxhash

from pipelines.errors import InputError

_BUCKETS = 256
_U64 = np.dtype("<u8")
_MERGED_AT_ONCE = 1 << 20


def hashes_of(values: Sequence[str | bytes | None]) -> np.ndarray:
    """Entries, u64 [n], of URLs or of digests as the index spells them; 0, which is in no set, for None."""
    digest = xxhash.xxh3_64_intdigest
    raw = (v.encode("utf-8", "surrogatepass") if isinstance(v, str) else v for v in values)
    return np.fromiter((0 if v is None else digest(v) for v in raw), _U64, len(values))


class SeenSet:
    """Sorted files of hashes, mapped: what one of them holds is seen."""

    def __init__(self, *paths: str | Path) -> None:
        """InputError where a file is no multiple of 8 bytes long."""
        self.files = [_mapped(path) for path in paths]

    def __len__(self) -> int:
        """The number of entries, those of each file by themselves."""
        return sum(map(len, self.files))

    def holds(self, hashes: np.ndarray) -> np.ndarray:
        """bool [n]: which of the u64 [n] are in the set.  Looked up in rising order, so that pages are touched once."""
        out = np.zeros(len(hashes), bool)
        if len(hashes) == 0:
            return out
        order = np.argsort(hashes, kind="stable")
        wanted = hashes[order]
        found = np.zeros(len(hashes), bool)
        for entries in self.files:
            at = np.searchsorted(entries, wanted)
            inside = at < len(entries)
            found[inside] |= entries[at[inside]] == wanted[inside]
        out[order] = found
        return out


def _mapped(path: str | Path) -> np.ndarray:
    size = Path(path).stat().st_size
    if size % 8:
        raise InputError(
            f"{path} holds {size} bytes, no whole number of 64-bit hashes.", mend="Write it with write_seen."
        )
    return np.memmap(path, _U64, "r") if size else np.empty(0, _U64)


def write_seen(path: str | Path, batches: Iterable[np.ndarray], *, earlier: Sequence[str | Path] = ()) -> int:
    """A sorted file of all u64 in the batches and in the earlier files; the number of entries.

    Memory holds one of 256 ranges of hashes at a time; the rest waits in a folder beside `path`.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        buckets = [Path(folder, f"{n:02x}") for n in range(_BUCKETS)]
        for batch in batches:
            entries = np.unique(np.asarray(batch, _U64))
            _spill(entries[entries != 0], buckets)
        for old in earlier:
            (entries,) = SeenSet(old).files
            for start in range(0, len(entries), _MERGED_AT_ONCE):
                _spill(np.asarray(entries[start : start + _MERGED_AT_ONCE]), buckets)
        count = 0
        finished = Path(folder, "all")
        with finished.open("wb") as out:
            for bucket in buckets:
                if bucket.exists():
                    entries = np.unique(np.fromfile(bucket, _U64))
                    out.write(entries.tobytes())
                    count += len(entries)
        finished.replace(path)
    return count


def _spill(entries: np.ndarray, buckets: list[Path]) -> None:
    """Appends sorted entries to the files of their ranges."""
    edges = np.searchsorted(entries, np.arange(_BUCKETS, dtype=_U64) << np.uint64(56))
    for n, (low, high) in enumerate(zip(edges, [*edges[1:], len(entries)], strict=True)):
        if low < high:
            with buckets[n].open("ab") as out:
                out.write(entries[low:high].tobytes())
