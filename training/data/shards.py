"""Token shards as the order and the stream see them: sizes by cell, and checked reads of any token run.

Reads are whole 16 KiB pages of the `.bin` object by ranged GETs, each page checked against the shard's
crc32c table (fetched lazily, itself checked against the manifest). A page that stays wrong after fresh
reads gives filler and is told: no wrong token ever reaches a row.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import crc32c
import numpy as np
import numpy.typing as npt

from pipelines.datasets import Dataset, open_dataset
from pipelines.datasets.store import Store
from pipelines.errors import InputError, IntegrityError
from pipelines.tokens.lineage import with_takedowns
from training.data.cells import CellGeometry
from training.data.fetch import RangeFetcher
from training.data.plan import DatasetPin
from training.data.rows import SpecialTokens, Void

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

    def __init__(self, store: Store, *, cache_bytes: int = 64 << 20, in_flight: int = 64) -> None:
        """`cache_bytes` bounds the pages kept, 0 keeps none; page tables are kept whole (4 bytes a page)."""
        self._store = store
        self._max_pages = cache_bytes // PAGE_BYTES
        self._pages: OrderedDict[tuple[str, int], bytes | memoryview] = OrderedDict()
        self._tables: dict[str, memoryview] = {}
        self._lock = threading.Lock()
        self.fetcher = RangeFetcher(store, in_flight=in_flight)

    def read(
        self, runs: Sequence[tuple[Shard, int, int]], dtype: np.dtype, filler: int
    ) -> tuple[npt.NDArray[np.integer], list[tuple[int, Void]]]:
        """(the tokens of all runs, one after the other; what stayed corrupt, with the number of its run).

        A run is (shard, first, tokens). Tokens of a page that stays corrupt over fresh reads are `filler`.
        """
        wanted: dict[str, tuple[Shard, set[int]]] = {}
        size = dtype.itemsize
        for shard, first, tokens in runs:
            if not 0 <= first <= first + tokens <= shard.tokens:
                raise IntegrityError(f"{shard.key} has {shard.tokens} tokens, not {first + tokens}", key=shard.key)
            pages = wanted.setdefault(shard.key, (shard, set()))[1]
            pages.update(range(first * size // PAGE_BYTES, -(-(first + tokens) * size // PAGE_BYTES)))
        found, corrupt = self._get(wanted, dtype)
        flat = np.empty(sum(run[2] for run in runs), dtype)
        voids: list[tuple[int, Void]] = []
        at = 0
        for number, (shard, first, tokens) in enumerate(runs):
            end = at + tokens
            while at < end:
                page, offset = divmod((first + tokens - (end - at)) * size, PAGE_BYTES)
                count = min(end - at, (PAGE_BYTES - offset) // size)
                body = found.get((shard.key, page))
                if body is None:
                    flat[at : at + count] = filler
                    voids.append((number, Void(-1, shard.key, page, count, corrupt[shard.key, page])))
                else:
                    flat[at : at + count] = np.frombuffer(body, dtype, count, offset)
                at += count
        return flat, voids

    def _get(
        self, wanted: dict[str, tuple[Shard, set[int]]], dtype: np.dtype
    ) -> tuple[dict[tuple[str, int], bytes | memoryview], dict[tuple[str, int], str]]:
        """(pages, evidence of those that stay corrupt), by (key, page)."""
        found: dict[tuple[str, int], bytes | memoryview] = {}
        if self._max_pages:
            with self._lock:
                for key, (_, pages) in wanted.items():
                    for page in [page for page in pages if (key, page) in self._pages]:
                        self._pages.move_to_end((key, page))
                        found[key, page] = self._pages[key, page]
                        pages.discard(page)
        corrupt: dict[tuple[str, int], str] = {}
        for attempt in range(1 + READS_OF_A_CORRUPT_PAGE):
            corrupt = self._fetch(wanted, dtype, found)
            if not corrupt:
                break
            for key, (_, pages) in wanted.items():
                pages.intersection_update({page for other, page in corrupt if other == key})
            if attempt == READS_OF_A_CORRUPT_PAGE:
                corrupt = {place: f"{seen}, {1 + attempt} reads" for place, seen in corrupt.items()}
        if self._max_pages:
            with self._lock:
                self._pages.update({place: bytes(page) for place, page in found.items() if place not in self._pages})
                while len(self._pages) > self._max_pages:
                    self._pages.popitem(last=False)
        return found, corrupt

    def _fetch(
        self,
        wanted: dict[str, tuple[Shard, set[int]]],
        dtype: np.dtype,
        found: dict[tuple[str, int], bytes | memoryview],
    ) -> dict[tuple[str, int], str]:
        """Adds the pages that are whole to `found`; evidence of the others."""
        asked = [(shard, run) for shard, pages in wanted.values() if pages for run in _runs(sorted(pages))]
        ranges = []
        for shard, run in asked:
            size = shard.tokens * dtype.itemsize
            ranges.append((shard.key, run.start * PAGE_BYTES, min(run.stop * PAGE_BYTES, size)))
        corrupt: dict[tuple[str, int], str] = {}
        for (shard, run), (key, start, end), body in zip(asked, ranges, self.fetcher.fetch(ranges), strict=True):
            table = self._table(shard, dtype)
            whole = memoryview(body)
            for page in run:
                at = page * PAGE_BYTES - start
                part = whole[at : at + PAGE_BYTES]
                if (seen := crc32c.crc32c(part)) == table[page] and len(part) == min(PAGE_BYTES, end - start - at):
                    found[key, page] = part
                else:
                    corrupt[key, page] = f"{len(part)} bytes with crc32c {seen:08x}, stored {table[page]:08x}"
        return corrupt

    def _table(self, shard: Shard, dtype: np.dtype) -> memoryview:
        with self._lock:
            table = self._tables.get(shard.crc_key)
        if table is None:
            body = self._store.get(shard.crc_key)
            if hashlib.sha256(body).hexdigest() != shard.crc_sha256:
                raise IntegrityError(
                    f"{shard.crc_key} differs from its sha256 in the manifest", key=shard.crc_key
                )
            table = memoryview(np.frombuffer(body, dtype="<u4").astype(np.uint32))  # 4 bytes a page; gives plain ints
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
