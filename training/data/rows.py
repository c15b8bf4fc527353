"""One row as arrays: ids, labels, positions, documents; and its digest.

Every span starts a document, and so does the token after an EOS: boundaries come from the tokens
themselves, never from an index. A label is the next token of the same document, so none crosses a span and
no (L + 1)th token is read. Filler (a takedown) and padding are pad without label. The digest is of what is
trained on; its sum over a batch does not depend on the ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from pipelines.kernels import kernel, subkernel

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


class Void(NamedTuple):
    """A page that stayed corrupt and was masked in a row: where, and what was seen."""

    position: int
    shard: str
    page: int
    tokens: int
    evidence: str


@dataclass(frozen=True, slots=True, eq=False)
class RowArrays:
    """ids_L, labels_L (IGNORED: none), positions_L (from 0 in each document), documents_L (rising from 0).

    `trained_tokens` is the number of labels: this row's part of N.
    """

    position: int
    ids: IntArray
    labels: IntArray
    positions: IntArray
    documents: IntArray
    trained_tokens: int
    voids: tuple[Void, ...] = ()

    @property
    def digest(self) -> int:
        """xxh3_64 of position (u64), ids and labels (i32), little-endian."""
        hasher = xxhash.xxh3_64(int(self.position).to_bytes(8, "little"))
        hasher.update(np.ascontiguousarray(self.ids, "<i4"))
        hasher.update(np.ascontiguousarray(self.labels, "<i4"))
        return hasher.intdigest()


def build_rows(
    positions: npt.NDArray[np.int64],
    tokens: npt.NDArray[np.integer],
    starts: npt.NDArray[np.int64],
    runs: npt.NDArray[np.int64],
    special: SpecialTokens,
) -> list[RowArrays]:
    """Rows of one length: `tokens` (rows, L); row i is of the runs [starts[i], starts[i + 1]), `runs` tokens each."""
    ids, labels, places, documents = (np.empty(tokens.shape, np.int32) for _ in range(4))
    trained = np.empty(len(tokens), np.int64)
    _shape_rows(
        tokens, starts, runs, special.eos_id, special.pad_id, special.filler_id, ids, labels, places, documents, trained
    )
    rows = zip(positions.tolist(), ids, labels, places, documents, trained.tolist(), strict=True)
    return [RowArrays(*row) for row in rows]


def build_row(position: int, spans: Sequence[npt.NDArray[np.integer]], special: SpecialTokens) -> RowArrays:
    """Token runs in reading order -> a row."""
    runs = np.array([len(span) for span in spans], np.int64)
    tokens = np.concatenate([np.asarray(span, np.int32) for span in spans])[None]
    [row] = build_rows(np.array([position]), tokens, np.array([0, len(runs)]), runs, special)
    return row


@subkernel
def _shape_document(tokens, document, ids, labels, places, documents):
    """Simple loops over arrays of one document: these become vector instructions."""
    for j in range(len(tokens)):
        ids[j] = tokens[j]
    for j in range(len(tokens)):
        places[j] = np.int32(j)
    for j in range(len(tokens)):
        documents[j] = document
    for j in range(len(tokens) - 1):
        labels[j] = tokens[j + 1]
    labels[len(tokens) - 1] = IGNORED


@kernel
def _shape_rows(tokens, starts, runs, eos, pad, filler, ids, labels, places, documents, trained):  # noqa: C901
    greatest = max(eos, pad, filler)
    for i in range(len(tokens)):
        row, document = tokens[i], np.int32(-1)
        end = t = count = voids = 0
        for run in range(starts[i], starts[i + 1]):
            end += runs[run]
            while t < end:
                after = t
                while after < end:
                    if row[after] <= greatest:
                        if row[after] == eos:
                            break
                        voids += (row[after] == pad) | (row[after] == filler)
                    after += 1
                after += after < end  # the EOS is of its document
                document += np.int32(1)
                mine = slice(t, after)
                _shape_document(row[mine], document, ids[i, mine], labels[i, mine], places[i, mine], documents[i, mine])
                count += after - 1 - t
                t = after
        if voids:
            for j in range(end):
                if row[j] == pad or row[j] == filler:
                    ids[i, j] = pad
                    for label in range(max(j - 1, 0), j + 1):
                        count -= labels[i, label] != IGNORED
                        labels[i, label] = IGNORED
        trained[i] = count


def empty_row(sequence_length: int, special: SpecialTokens) -> RowArrays:
    """What fills an uneven split: pad, no labels, no digest."""
    ids = np.full(sequence_length, special.pad_id, dtype=np.int32)
    zeros = np.zeros(sequence_length, dtype=np.int32)
    labels = np.full(sequence_length, IGNORED, dtype=np.int32)
    return RowArrays(-1, ids, labels, np.arange(sequence_length, dtype=np.int32), zeros, 0)


def sum_digests(digests: Sequence[int]) -> int:
    """The digest of a set of rows: the sum mod 2^64."""
    return sum(digests) & _MASK


def chain_digest(before: int, step: int, rows: int) -> int:
    """The run's digest after a step: xxh3_64 of (digest before, step, row digest), u64 little-endian."""
    return xxhash.xxh3_64(b"".join(value.to_bytes(8, "little") for value in (before, step, rows))).intdigest()
