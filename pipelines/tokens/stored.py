"""A stored object as a file, for readers that want ranges of it."""

from __future__ import annotations

import io

from pipelines.datasets.store import Store


class StoredFile(io.RawIOBase):
    """A stored object as a file that reads by ranges, for Parquet's footers and row groups."""

    def __init__(self, store: Store, key: str) -> None:
        """The object must exist; it is read as it is asked for."""
        super().__init__()
        found = store.head(key)
        self._store, self._key, self._at = store, key, 0
        self._size = found.size_bytes if found else len(store.get(key))

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def size(self) -> int:
        """Bytes in the object."""
        return self._size

    def tell(self) -> int:
        """Position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; returns the position."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        """The next bytes, fewer at the end."""
        end = self._size if size is None or size < 0 else min(self._size, self._at + size)
        if end <= self._at:
            return b""
        (body,) = self._store.get_ranges(self._key, [(self._at, end)])
        self._at += len(body)
        return body
