"""Facts about documents as one bit each, in one object: a task reads its own range, or all of it.

A billion documents are 125 MB, which each task of the wide steps after the first round holds.
"""

from __future__ import annotations

import numpy as np

from pipelines.datasets.store import Store


def pack(marked: np.ndarray) -> bytes:
    """(n,) bool as bits, the first lowest."""
    return np.packbits(marked, bitorder="little").tobytes()


def mark(bits: np.ndarray, nodes: np.ndarray) -> None:
    """Set the bits of these nodes, in place; `bits`: (n / 8,) uint8."""
    if len(nodes) == 0:
        return
    nodes = np.sort(nodes)
    at = nodes >> 3
    first = np.flatnonzero(np.append(True, at[1:] != at[:-1]))
    bits[at[first]] |= np.bitwise_or.reduceat(np.left_shift(1, nodes & 7).astype(np.uint8), first)


def are_marked(bits: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """(m,) bool: the bits of these nodes, of (n / 8,) uint8."""
    return (bits[nodes >> 3] >> (nodes & 7).astype(np.uint8)) & 1 != 0


def read_marks(store: Store, key: str, first: int, end: int) -> np.ndarray:
    """(end - first,) bool by a ranged read."""
    if end <= first:
        return np.zeros(0, bool)
    low = first // 8
    body = store.get_ranges(key, [(low, (end + 7) // 8)])[0]
    bits = np.unpackbits(np.frombuffer(body, np.uint8), bitorder="little")
    return bits[first - 8 * low : end - 8 * low].astype(bool)


def read_all_marks(store: Store, key: str) -> np.ndarray:
    """(n / 8,) uint8 for `are_marked`."""
    return np.frombuffer(store.get(key), np.uint8)
