"""Where the bytes of one crawl file come from: memory, or ranges of an object in a store.

A reader holds one block at a time, so a crawl file of any size is read in bounded memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipelines.errors import InputError


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
    """One object of a store, read block by block with one block held."""

    def __init__(self, store: RangeStore, key: str, size_bytes: int, *, block_bytes: int = 4 << 20) -> None:
        """Read `key`, whose size was seen when it was listed."""
        self._store = store
        self._key = key
        self._block_bytes = block_bytes
        self._block_start = 0
        self._block = b""
        self.size_bytes = size_bytes

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes from `start`, fewer only at the end of the object."""
        out = b""
        stop = min(start + size, self.size_bytes)
        while start + len(out) < stop:
            out += self._held(start + len(out), stop)
        return out

    def _held(self, start: int, stop: int) -> bytes:
        """What the block that `start` lies in has of [start, stop)."""
        if not self._block_start <= start < self._block_start + len(self._block):
            self._block_start = start - start % self._block_bytes
            end = min(self._block_start + self._block_bytes, self.size_bytes)
            self._block = self._store.get_ranges(self._key, [(self._block_start, end)])[0]
            if len(self._block) < end - self._block_start:
                raise InputError(
                    f"{self._key}: {end - self._block_start} bytes at {self._block_start} were asked for, "
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
