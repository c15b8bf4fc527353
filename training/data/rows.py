"""One row as arrays: ids, labels, positions, documents; and its digest.

Every span starts a document, and so does the token after an EOS: boundaries come from the tokens
themselves, never from an index. A label is the next token of the same document, so none crosses a span and
no (L + 1)th token is read. Filler (a takedown) and padding are pad without label. The digest is of what is
trained on; its sum over a batch does not depend on the ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

IGNORED = -100
_MASK = (1 << 64) - 1

# Shapes: L = sequence_length.
IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTokens:
    """The ids that shape a row; `pad_id` stands in for filler."""

    eos_id: int
    pad_id: int
    filler_id: int


@dataclass(frozen=True, slots=True, eq=False)
class RowArrays:
    """ids_L, labels_L (IGNORED: none), positions_L (from 0 in each document), documents_L (rising from 0)."""

    position: int
    ids: IntArray
    labels: IntArray
    positions: IntArray
    documents: IntArray

    @property
    def trained_tokens(self) -> int:
        """Tokens with a label: this row's part of N."""
        return int((self.labels != IGNORED).sum())

    @property
    def digest(self) -> int:
        """xxh3_64 of position (u64), ids and labels (i32), little-endian."""
        hasher = xxhash.xxh3_64(int(self.position).to_bytes(8, "little"))
        hasher.update(self.ids.astype("<i4", copy=False).tobytes())
        hasher.update(self.labels.astype("<i4", copy=False).tobytes())
        return hasher.intdigest()


def build_row(position: int, spans: Sequence[npt.NDArray[np.integer]], special: SpecialTokens) -> RowArrays:
    """Token runs in reading order -> a row."""
    ids = np.concatenate([np.asarray(span, dtype=np.int32) for span in spans])
    starts = np.zeros(len(ids), dtype=bool)
    starts[np.cumsum([0, *(len(span) for span in spans)])[:-1]] = True
    starts[1:] |= ids[:-1] == special.eos_id
    documents = np.cumsum(starts, dtype=np.int32) - np.int32(1)
    index = np.arange(len(ids), dtype=np.int32)
    positions = index - np.maximum.accumulate(np.where(starts, index, 0)).astype(np.int32)
    void = (ids == special.filler_id) | (ids == special.pad_id)
    labels = np.full(len(ids), IGNORED, dtype=np.int32)
    labelled = ~starts[1:] & ~void[1:] & ~void[:-1]
    labels[:-1][labelled] = ids[1:][labelled]
    return RowArrays(position, np.where(void, np.int32(special.pad_id), ids), labels, positions, documents)


def empty_row(sequence_length: int, special: SpecialTokens) -> RowArrays:
    """What fills an uneven split: pad, no labels, no digest."""
    ids = np.full(sequence_length, special.pad_id, dtype=np.int32)
    zeros = np.zeros(sequence_length, dtype=np.int32)
    return RowArrays(
        -1,
        ids,
        np.full(sequence_length, IGNORED, dtype=np.int32),
        np.arange(sequence_length, dtype=np.int32),
        zeros,
    )


def sum_digests(digests: Sequence[int]) -> int:
    """The digest of a set of rows: the sum mod 2^64."""
    return sum(digests) & _MASK


def chain_digest(before: int, step: int, rows: int) -> int:
    """The run's digest after a step: xxh3_64 of (digest before, step, row digest), u64 little-endian."""
    return xxhash.xxh3_64(b"".join(value.to_bytes(8, "little") for value in (before, step, rows))).intdigest()
