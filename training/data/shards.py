"""Token shards as the order and the stream see them: sizes by cell, and checked reads of any token run.

Reads are whole 16 KiB pages of the `.bin` object by ranged GETs, each page checked against the shard's
crc32c table (fetched lazily, itself checked against the manifest). A page that stays wrong after fresh
reads raises: no wrong token ever reaches a row.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import crc32c
import numpy as np
import numpy.typing as npt

from pipelines.datasets import Dataset, open_dataset
from pipelines.datasets.store import Store
from pipelines.errors import InputError, IntegrityError
from pipelines.tokens.lineage import with_takedowns
from training.data.cells import CellGeometry
from training.data.plan import DatasetPin
from training.data.rows import SpecialTokens

PAGE_BYTES = 16 * 1024
READS_OF_A_CORRUPT_PAGE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One `.bin` object and its page table."""

    key: str
    unit: str
    tokens: int
    crc_key: str
    crc_sha256: str


class TokenDataset:
    """One pinned version of a token dataset."""

    def __init__(self, dataset: Dataset) -> None:
        """Read the part list; every shard needs its crc table."""
        manifest = dataset.manifest
        if manifest.kind != "tokens":
            raise InputError(
                f"{manifest.name} v{manifest.version} has kind {manifest.kind!r}; training reads 'tokens'"
            )
        self.pin = DatasetPin(name=manifest.name, version=manifest.version, manifest_sha256=manifest.sha256)
        self.extends = manifest.extends
        self.tokenizer: dict = manifest.stats["tokenizer"]
        self.dtype = np.dtype(manifest.stats["dtype"]).newbyteorder("<")
        self.special = SpecialTokens(
            eos_id=self.tokenizer["eos_id"],
            pad_id=self.tokenizer["pad_id"],
            filler_id=self.tokenizer["filler_id"],
        )
        columns = ["unit", "cell", "key", "sha256"]
        tables = {(r["unit"], r["cell"]): r for r in dataset.parts("crc").select(columns).to_pylist()}
        self.cells: dict[str, list[Shard]] = {}
        for row in dataset.parts("shard").select(["key", "unit", "cell", "tokens"]).to_pylist():
            crc = tables.get((row["unit"], row["cell"]))
            if crc is None:
                raise IntegrityError(
                    f"{manifest.name} v{manifest.version}: {row['key']} has no crc table", key=row["key"]
                )
            shard = Shard(
                key=row["key"],
                unit=row["unit"],
                tokens=row["tokens"],
                crc_key=crc["key"],
                crc_sha256=crc["sha256"],
            )
            self.cells.setdefault(row["cell"], []).append(shard)

    @property
    def tokens_by_cell(self) -> dict[str, int]:
        """Tokens of every cell."""
        return {cell: sum(shard.tokens for shard in shards) for cell, shards in self.cells.items()}


class TokenShards:
    """All pinned datasets of a plan; gives the order its sizes and the stream its shards."""

    def __init__(self, datasets: Iterable[TokenDataset]) -> None:
        """Datasets of one run share their tokenizer."""
        self.datasets = {dataset.pin: dataset for dataset in datasets}
        tokenizers = {d.tokenizer["manifest_sha256"] for d in self.datasets.values()}
        if len(tokenizers) != 1:
            raise InputError(f"the plan's datasets were made with {len(tokenizers)} tokenizers; expected one")
        first = next(iter(self.datasets.values()))
        self.special, self.tokenizer = first.special, first.tokenizer

    @classmethod
    def open(cls, store: Store, pins: Iterable[DatasetPin]) -> TokenShards:
        """The pinned versions; IntegrityError where a manifest is not the one that was pinned."""
        opened = []
        for pin in dict.fromkeys(pins):
            dataset = TokenDataset(with_takedowns(open_dataset(store, pin.name, pin.version)))
            if dataset.pin != pin:
                raise IntegrityError(
                    f"{pin.name} v{pin.version} has sha256 {dataset.pin.manifest_sha256[:12]}, the plan pins "
                    f"{pin.manifest_sha256[:12]}"
                )
            opened.append(dataset)
        return cls(opened)

    def geometry(self, pin: DatasetPin, cell: str, name: str, stretch_tokens: int) -> CellGeometry:
        """Sizes of a cell's shards, in manifest order."""
        shards = self.shards(pin, cell)
        return CellGeometry(
            name,
            tuple(shard.tokens for shard in shards),
            stretch_tokens,
            tuple(shard.unit for shard in shards),
        )

    def shards(self, pin: DatasetPin, cell: str) -> list[Shard]:
        """The shards of a cell."""
        cells = self.datasets[pin].cells
        if cell not in cells:
            raise InputError(f"{pin.name} v{pin.version} has no cell {cell!r}; there are {sorted(cells)}")
        return cells[cell]


class PageReader:
    """Checked token runs of shards, with a bounded cache of pages; safe to share between threads."""

    def __init__(self, store: Store, *, cache_bytes: int = 64 << 20) -> None:
        """`cache_bytes` bounds the pages kept; page tables are kept whole (4 bytes a page)."""
        self._store = store
        self._max_pages = max(cache_bytes // PAGE_BYTES, 1)
        self._pages: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._tables: dict[str, npt.NDArray[np.uint32]] = {}
        self._lock = threading.Lock()

    def read(self, shard: Shard, dtype: np.dtype, first: int, tokens: int) -> npt.NDArray[np.integer]:
        """Tokens [first, first + tokens) of a shard."""
        if not 0 <= first <= first + tokens <= shard.tokens:
            raise IntegrityError(
                f"{shard.key} has {shard.tokens} tokens, not {first + tokens}", key=shard.key
            )
        start, end = first * dtype.itemsize, (first + tokens) * dtype.itemsize
        numbers = range(start // PAGE_BYTES, -(-end // PAGE_BYTES))
        pages = self._get_pages(shard, dtype, numbers)
        body = b"".join(pages)[start - numbers.start * PAGE_BYTES :][: end - start]
        return np.frombuffer(body, dtype=dtype)

    def _get_pages(self, shard: Shard, dtype: np.dtype, numbers: range) -> list[bytes]:
        with self._lock:
            found = {n: self._pages[shard.key, n] for n in numbers if (shard.key, n) in self._pages}
            for n in found:
                self._pages.move_to_end((shard.key, n))
        missing = [n for n in numbers if n not in found]
        if missing:
            fresh = self._fetch(shard, dtype, missing)
            found.update(fresh)
            with self._lock:
                self._pages.update({(shard.key, n): page for n, page in fresh.items()})
                while len(self._pages) > self._max_pages:
                    self._pages.popitem(last=False)
        return [found[n] for n in numbers]

    def _fetch(self, shard: Shard, dtype: np.dtype, numbers: list[int]) -> dict[int, bytes]:
        """Pages from the store; those whose crc is wrong are read again, then refused."""
        table = self._table(shard, dtype)
        size = shard.tokens * dtype.itemsize
        good: dict[int, bytes] = {}
        for _ in range(1 + READS_OF_A_CORRUPT_PAGE):
            left = [n for n in numbers if n not in good]
            runs = _runs(left)
            ranges = [(run.start * PAGE_BYTES, min(run.stop * PAGE_BYTES, size)) for run in runs]
            bodies = self._store.get_ranges(shard.key, ranges) if ranges else []
            for run, body in zip(runs, bodies, strict=True):
                for n in run:
                    page = body[(n - run.start) * PAGE_BYTES :][:PAGE_BYTES]
                    if crc32c.crc32c(page) == table[n] and len(page) == min(
                        PAGE_BYTES, size - n * PAGE_BYTES
                    ):
                        good[n] = page
            if len(good) == len(numbers):
                return good
        bad = next(n for n in numbers if n not in good)
        raise IntegrityError(
            f"shard {shard.key}, page {bad} (bytes {bad * PAGE_BYTES}.."
            f"{min((bad + 1) * PAGE_BYTES, size) - 1}): crc32c is not "
            f"the stored {int(table[bad]):08x} in {1 + READS_OF_A_CORRUPT_PAGE} reads",
            key=shard.key,
            mend="put the object back from a copy (its sha256 is in the manifest's part list)",
        )

    def _table(self, shard: Shard, dtype: np.dtype) -> npt.NDArray[np.uint32]:
        with self._lock:
            table = self._tables.get(shard.crc_key)
        if table is None:
            body = self._store.get(shard.crc_key)
            if hashlib.sha256(body).hexdigest() != shard.crc_sha256:
                raise IntegrityError(
                    f"{shard.crc_key} differs from its sha256 in the manifest", key=shard.crc_key
                )
            table = np.frombuffer(body, dtype="<u4")
            pages = -(-shard.tokens * dtype.itemsize // PAGE_BYTES)
            if len(table) != pages:
                raise IntegrityError(
                    f"{shard.crc_key} has {len(table)} pages, its shard {pages}", key=shard.crc_key
                )
            with self._lock:
                self._tables[shard.crc_key] = table
        return table


def _runs(numbers: list[int]) -> list[range]:
    """Ascending page numbers as contiguous ranges: one ranged GET each."""
    runs: list[range] = []
    for n in numbers:
        if runs and runs[-1].stop == n:
            runs[-1] = range(runs[-1].start, n + 1)
        else:
            runs.append(range(n, n + 1))
    return runs
