"""Some columns of some row groups of a Parquet object, by ranged reads: its footer first, then what is asked for.

For parts of which little is wanted: a column of a signature, the text of a few documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.datasets.store import Store
from pipelines.errors import IntegrityError, MissingObjectError

_FOOTER = 64 * 1024  # read at first; more where the footer is longer
_GAP = 256 * 1024  # chunks nearer than this come in one range: a request costs more than so many bytes
_MAGIC = b"PAR1"


class RangedParquet:
    """A Parquet object of which only the footer has been read; MissingObjectError where there is none."""

    def __init__(self, store: Store, key: str) -> None:
        """One look for the size, one read of the footer (two where it is long)."""
        there = store.head(key)
        if there is None:
            raise MissingObjectError(f"no object {key} in {store.location}", key=key)
        self._store, self._key = store, key
        size = there.size_bytes
        self._body = np.zeros(size, np.uint8)  # pages that nothing is written to take no memory
        tail = max(0, size - _FOOTER)
        self._fetch([(tail, size)])
        if size < 12 or self._body[-4:].tobytes() != _MAGIC:
            raise IntegrityError(f"{key} is no Parquet object", key=key)
        footer = size - 8 - int.from_bytes(self._body[-8:-4].tobytes(), "little")
        if footer < 4:
            raise IntegrityError(f"{key}: its Parquet footer is longer than the object", key=key)
        if footer < tail:
            self._fetch([(footer, tail)])
        try:
            reader = pa.BufferReader(pa.py_buffer(self._body))
            self._file = pq.ParquetFile(reader, page_checksum_verification=True)
        except (OSError, pa.ArrowInvalid) as e:
            raise IntegrityError(f"{key}: its Parquet footer cannot be read: {e}", key=key) from e

    @property
    def group_rows(self) -> list[int]:
        """Rows of each row group."""
        metadata = self._file.metadata
        return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]

    def read(self, columns: Sequence[str], groups: Iterable[int] | None = None) -> pa.Table:
        """These columns, in this order, of these row groups (all of them where none are named), checksums verified."""
        wanted = list(range(self._file.num_row_groups)) if groups is None else list(groups)
        if lacking := sorted(set(columns) - set(self._file.schema_arrow.names)):
            raise IntegrityError(f"{self._key} has no column {', '.join(lacking)}", key=self._key)
        self._fetch(self._spans(columns, wanted))
        try:
            return self._file.read_row_groups(wanted, columns=list(columns)).select(list(columns))
        except OSError as e:
            raise IntegrityError(f"{self._key} cannot be read: {e}", key=self._key) from e

    def _spans(self, columns: Sequence[str], groups: list[int]) -> list[tuple[int, int]]:
        """The bytes of the columns' chunks, near ones as one."""
        metadata = self._file.metadata
        chunks = []
        for number in groups:
            group = metadata.row_group(number)
            for at in range(group.num_columns):
                chunk = group.column(at)
                path = chunk.path_in_schema
                if any(path == name or path.startswith(f"{name}.") for name in columns):
                    first = chunk.data_page_offset
                    if chunk.has_dictionary_page:
                        first = min(first, chunk.dictionary_page_offset)
                    chunks.append((first, first + chunk.total_compressed_size))
        spans: list[tuple[int, int]] = []
        for first, end in sorted(chunks):
            if spans and first - spans[-1][1] <= _GAP:
                spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
            else:
                spans.append((first, end))
        return spans

    def _fetch(self, spans: list[tuple[int, int]]) -> None:
        bodies = self._store.get_ranges(self._key, spans) if spans else []
        for (first, end), body in zip(spans, bodies, strict=True):
            if len(body) != end - first:
                raise IntegrityError(f"{self._key} is shorter than its footer says", key=self._key)
            self._body[first:end] = np.frombuffer(body, np.uint8)


def read_columns(store: Store, key: str, columns: Sequence[str]) -> pa.Table:
    """Some columns of a whole Parquet object, in the order asked for."""
    return RangedParquet(store, key).read(columns)
