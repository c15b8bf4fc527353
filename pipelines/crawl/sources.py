"""Where the bytes of one crawl file come from: memory, or ranges of an object in a store.

A reader holds one block at a time, so a crawl file of any size is read in bounded memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipelines.errors import InputError

_FIRST_BLOCK_BYTES = 64 << 10


class RangeStore(Protocol):
    """The one call of a store that reading a crawl needs."""

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Bytes of each [start, end); shorter at the end of the object."""
        ...


class Source(Protocol):
    """A sized sequence of bytes that can be read anywhere."""

    size_bytes: int

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes from `start`, fewer only at the end."""
        ...


class MemorySource:
    """Bytes that are already here."""

    def __init__(self, body: bytes) -> None:
        """Hold `body`."""
        self._body = body
        self.size_bytes = len(body)

    def read(self, start: int, size: int) -> bytes:
        """A slice."""
        return self._body[start : start + size]


class StoreSource:
    """One object of a store, read block by block.

    A read anywhere else fetches a small block; a read that goes on where the last block ended, a large one.  The
    last block and the one before it are held: a reader looks ahead over the end of one and comes back.
    """

    def __init__(self, store: RangeStore, key: str, size_bytes: int, *, block_bytes: int = 4 << 20) -> None:
        """Read `key`, whose size was seen when it was listed."""
        self._store = store
        self._key = key
        self._block_bytes = block_bytes
        self._block_start = 0
        self._block_end = -1
        self._block = b""
        self._before_start = 0
        self._before = b""
        self.size_bytes = size_bytes

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes from `start`, fewer only at the end of the object."""
        low = start - self._block_start
        if low >= 0 and start + size <= self._block_end:
            return self._block[low : low + size]
        out = b""
        stop = min(start + size, self.size_bytes)
        while start + len(out) < stop:
            out += self._held(start + len(out), stop)
        return out

    def _held(self, start: int, stop: int) -> bytes:
        """What the block that `start` lies in has of [start, stop)."""
        if not self._block_start <= start < self._block_end:
            low = start - self._before_start
            if 0 <= low < len(self._before):
                return self._before[low : stop - self._before_start]
            size = self._block_bytes if start == self._block_end else min(self._block_bytes, _FIRST_BLOCK_BYTES)
            end = min(start + size, self.size_bytes)
            self._before_start, self._before = self._block_start, self._block
            self._block = self._store.get_ranges(self._key, [(start, end)])[0]
            self._block_start, self._block_end = start, start + len(self._block)
            if len(self._block) < end - start:
                raise InputError(
                    f"{self._key}: {end - start} bytes at {start} were asked for, "
                    f"{len(self._block)} came; the file is shorter than when it was listed.",
                    key=self._key,
                    mend="Run the job again, so that the crawl is listed anew.",
                )
        return self._block[start - self._block_start : stop - self._block_start]


class PageSource:
    """Files of a folder that are a page each; read one at a time by `page`."""

    def __init__(self, store: RangeStore, pages: Sequence[tuple[str, int]]) -> None:
        """`pages` as (key, size in bytes)."""
        self._store = store
        self.pages = [(key, size) for key, size in pages]
        self.size_bytes = sum(size for _, size in self.pages)

    def read(self, start: int, size: int) -> bytes:
        """Bytes of the pages, one after another."""
        out, at = [], 0
        for key, held in self.pages:
            low, high = max(start - at, 0), min(start + size - at, held)
            if low < high:
                out.append(self.page(key, held)[low:high])
            at += held
        return b"".join(out)

    def page(self, key: str, size: int) -> bytes:
        """Up to `size` bytes of one file."""
        return self._store.get_ranges(key, [(0, size)])[0]
