"""Rows of documents that occur in edges, read once a part and laid down so that any of them is a ranged read away.

Of a part only the column and the row groups that hold a wanted row are fetched. A gathered object holds, little-endian:
the number of rows, the nodes, the end of each value, the values.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.datasets.ranged import RangedParquet
from pipelines.datasets.store import Store
from pipelines.errors import IntegrityError

_GAP = 64 * 1024  # values nearer than this are read in one range


def gather(store: Store, key: str, column: str, first_node: int, nodes: np.ndarray) -> bytes:
    """The object of these nodes, which rise, of a Parquet part that starts at `first_node`."""
    part = RangedParquet(store, key)
    rows = nodes - first_node
    sizes = np.array(part.group_rows, np.int64)
    ends = np.cumsum(sizes)
    group = np.searchsorted(ends, rows, side="right")
    if len(rows) and group[-1] >= len(ends):
        raise IntegrityError(f"{key} has fewer rows than its part list says", key=key)
    pieces = []
    for number in np.unique(group).tolist():
        inside = rows[group == number] - (ends[number] - sizes[number])
        pieces.append(part.read([column], [number])[column].take(pa.array(inside)))
    values = pa.chunked_array(pieces).combine_chunks() if pieces else pa.array([], pa.binary())
    values = values.cast(pa.binary()).cast(pa.large_binary())
    lengths = np.asarray(pc.fill_null(pc.binary_length(values), 0), np.int64)
    values = pc.fill_null(values, b"")
    offsets = np.frombuffer(values.buffers()[1], np.int64)[values.offset :]
    data = values.buffers()[2]
    text = memoryview(data)[offsets[0] : offsets[len(values)]] if data is not None and len(values) else b""
    return b"".join([np.int64(len(nodes)).tobytes(), nodes.tobytes(), np.cumsum(lengths).tobytes(), text])


def read_gathered(store: Store, key: str, nodes: np.ndarray) -> list[bytes]:
    """The values of these nodes, which rise and are in the object."""
    count = int(np.frombuffer(store.get_ranges(key, [(0, 8)])[0], np.int64)[0])
    head = np.frombuffer(store.get_ranges(key, [(8, 8 + 16 * count)])[0], np.int64)
    at = np.searchsorted(head[:count], nodes)
    if len(nodes) and (at.max() >= count or (head[at] != nodes).any()):
        raise IntegrityError(f"{key} lacks a document that was to be gathered")
    ends = head[count:] + 8 + 16 * count
    starts = np.concatenate([[8 + 16 * count], ends[:-1]])
    low, high = starts[at], ends[at]
    breaks = np.flatnonzero(low[1:] - high[:-1] > _GAP) + 1
    groups = np.split(np.arange(len(nodes)), breaks) if len(nodes) else []
    spans = [(int(low[group[0]]), int(high[group[-1]])) for group in groups]
    values: list[bytes] = []
    for group, (begin, _), body in zip(groups, spans, store.get_ranges(key, spans) if spans else [], strict=True):
        values += [body[low[i] - begin : high[i] - begin] for i in group]
    return values
