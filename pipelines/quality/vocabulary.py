"""A fastText model file as flat arrays: its vocabulary by hash, and what each row adds to each label.

The layout is that of fastText 0.9 (`dictionary.cc`, `densematrix.cc`, `args.cc`), version 12. Every size in the file
is checked against the bytes that are there before anything is made of it: a model may come from anywhere.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache

import numpy as np

from pipelines.errors import IntegrityError

_MAGIC, _VERSION = 793712314, 12
_SUPERVISED, _SOFTMAX = 3, 3
_MOST_WORDS = 50_000_000
END = "</s>"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineModel:
    """A linear model over the tokens of a line.

    `vocabulary`: open-addressed slots (int32, -1 empty), and by word its hash (uint32), the start of its spelling
    (int64, one more than words) and the spellings (uint8). `rows`: (words + buckets, labels) float64, what each input
    row adds; with two labels one column, the first one's lead over the second. `end_id`: the word of the line's end.
    """

    labels: tuple[str, ...]
    vocabulary: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    rows: np.ndarray
    words: int
    ngrams: int
    end_hash: int
    end_id: int

    @staticmethod
    @cache
    def empty() -> LineModel:
        """No words, no rows: for reading the facts alone."""
        vocabulary = (np.full(2, -1, np.int32), np.zeros(1, np.uint32), np.zeros(2, np.int64), np.zeros(1, np.uint8))
        return LineModel(
            labels=(), vocabulary=vocabulary, rows=np.zeros((0, 1)), words=0, ngrams=1, end_hash=0, end_id=-1
        )

    def probability(self, sums: np.ndarray, label: str) -> np.ndarray:
        """(n, labels or 1) outputs -> (n,) probability of the label."""
        if len(self.labels) == 2:
            lead = sums[:, 0] if self.labels[0] == label else -sums[:, 0]
            return 1.0 / (1.0 + np.exp(-np.clip(lead, -60, 60)))
        shifted = np.exp(sums - sums.max(axis=1, keepdims=True))
        return shifted[:, self.labels.index(label)] / shifted.sum(axis=1)


def fnv(word: bytes) -> int:
    """fastText's hash of a word: FNV-1a, 32 bits, bytes as signed."""
    h = 2166136261
    for byte in word:
        h = ((h ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619) & 0xFFFFFFFF
    return h


class _Reader:
    def __init__(self, body: bytes) -> None:
        self.body, self.at = body, 0

    def take(self, form: str) -> tuple[int | float, ...]:
        size = struct.calcsize(form)
        if self.at + size > len(self.body):
            raise IntegrityError(f"the fastText model ends after {len(self.body)} bytes, in its header")
        values = struct.unpack_from(form, self.body, self.at)
        self.at += size
        return values

    def word(self) -> bytes:
        stop = self.body.find(b"\0", self.at, self.at + 4096)
        if stop < 0:
            raise IntegrityError("a word of the fastText model has no end")
        word = self.body[self.at : stop]
        self.at = stop + 1
        return word

    def matrix(self) -> np.ndarray:
        rows, columns = (int(v) for v in self.take("<qq"))
        if rows < 0 or columns < 1 or rows * columns * 4 > len(self.body) - self.at:
            raise IntegrityError(f"the fastText model tells of a matrix of {rows} x {columns} and is shorter")
        values = np.frombuffer(self.body, "<f4", rows * columns, self.at).reshape(rows, columns)
        self.at += rows * columns * 4
        return values


def read_line_model(body: bytes) -> LineModel:
    """The arrays of a fastText file; IntegrityError where it is none, or not of a kind that scores whole lines.

    Wanted: supervised, softmax, no subwords, not quantised.
    """
    reader = _Reader(body)
    magic, version = reader.take("<ii")
    if magic != _MAGIC or version != _VERSION:
        raise IntegrityError(f"not a fastText model of version {_VERSION} ({len(body)} bytes)")
    dim, _, _, _, _, ngrams, loss, model, buckets, _, longest_subword, _ = (int(v) for v in reader.take("<12i"))
    reader.take("<d")
    size, words, labels, _, pruned = (int(v) for v in reader.take("<iiiqq"))
    if model != _SUPERVISED or loss != _SOFTMAX or longest_subword > 0 or pruned >= 0:
        raise IntegrityError(
            "the fastText model is no supervised softmax model of whole words",
            mend="train it with loss softmax, maxn 0, not quantised; train_quality does",
        )
    if not (0 <= words <= size <= _MOST_WORDS and labels == size - words and labels >= 1 and 1 <= ngrams <= 16):
        raise IntegrityError(f"the fastText model tells of {words} words and {labels} labels among {size} entries")
    entries = []
    for _ in range(size):
        entries.append(reader.word())
        _, kind = reader.take("<qb")
        if kind != (0 if len(entries) <= words else 1):
            raise IntegrityError("the fastText model mixes words and labels")
    (quantised,) = reader.take("<?")
    inputs = reader.matrix()
    reader.take("<?")
    outputs = reader.matrix()
    used = buckets if ngrams > 1 else 0
    wrong = quantised or inputs.shape[0] < words + used or inputs.shape[1] != dim or outputs.shape != (labels, dim)
    if wrong or buckets < 0:
        raise IntegrityError("the matrices of the fastText model do not fit its vocabulary")
    names = tuple(entry.decode("utf-8", "replace").removeprefix("__label__") for entry in entries[words:])
    weights = outputs.astype(np.float64)
    weights = weights[:1] - weights[1:2] if labels == 2 else weights
    rows = np.ascontiguousarray(inputs[: words + used].astype(np.float64) @ weights.T)
    if not np.isfinite(rows).all():
        raise IntegrityError("the fastText model holds numbers that are not finite")
    vocabulary = _vocabulary(entries[:words])
    end = entries.index(END.encode()) if END.encode() in entries[:words] else -1
    return LineModel(
        labels=names, vocabulary=vocabulary, rows=rows, words=words, ngrams=ngrams if used else 1,
        end_hash=fnv(END.encode()), end_id=end,
    )  # fmt: skip


def _vocabulary(entries: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    hashes = np.array([fnv(entry) for entry in entries] or [0], np.uint32)
    starts = np.zeros(len(entries) + 1, np.int64)
    np.cumsum([len(entry) for entry in entries], out=starts[1:])
    mask = (1 << (2 * len(entries) + 1).bit_length()) - 1
    slots = np.full(mask + 1, -1, np.int32)
    for number in range(len(entries)):
        at = int(hashes[number]) & mask
        while slots[at] >= 0:
            at = (at + 1) & mask
        slots[at] = number
    return slots, hashes, starts, np.frombuffer(b"".join(entries) + b"\0", np.uint8)
