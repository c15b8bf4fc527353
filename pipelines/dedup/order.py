"""The survivor order: which of two copies is the better one.

Generation first (the version that brought the document), then a score where the input has one, then the longer
extraction, then a preferred domain, then the earlier capture, then the id; copies of one id are told apart by a hash of
file and offset. All but the generation are two 63-bit numbers a document, stored with its signature: `place` and `tie`.
So the order depends on the documents alone, neither on partitions nor on arrival, and the wide steps sort integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

_SCORE_LIMIT = (1 << 14) - 1  # a score in 0 .. 1 on a grid of 1e-4
_LENGTH_LIMIT = (1 << 23) - 1  # characters; longer texts are equal in length
_MINUTE_LIMIT = (1 << 25) - 1
_MINUTES_TO_1990 = 20 * 525_960
_TIE_BITS = 23


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRule:
    """What decides beside length, date and id."""

    score: str = ""  # a column of the documents with values in 0 .. 1, the higher the better
    preferred_domains: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the documents that the rule reads."""
        return (*((self.score,) if self.score else ()), *(("domain",) if self.preferred_domains else ()))


def survivor_places(
    characters: pa.Array,
    date: pa.ChunkedArray,
    *,
    score: np.ndarray | None = None,
    preferred: np.ndarray | None = None,
) -> np.ndarray:
    """(n,) int64, the better the smaller: score (14 bits), length (23), preferred (1), minute of capture (25).

    `score` and `preferred` are (n,) arrays of floats and booleans, or None where the rule has none. Dates are ISO 8601;
    one that cannot be read is the latest.
    """
    since = capture_minutes(date)
    shortness = _LENGTH_LIMIT - np.minimum(np.asarray(pc.fill_null(characters, 0), dtype=np.int64), _LENGTH_LIMIT)
    place = np.zeros(len(since), np.int64)
    if score is not None:
        known = np.nan_to_num(np.asarray(score, np.float64), nan=0.0)
        place = _SCORE_LIMIT - np.minimum(np.round(np.clip(known, 0.0, 1.0) * 1e4).astype(np.int64), _SCORE_LIMIT)
    other = np.zeros(len(since), np.int64) if preferred is None else 1 - np.asarray(preferred, np.int64)
    return (((place << 23) | shortness) << 26) | (other << 25) | since


def capture_minutes(date: pa.ChunkedArray) -> np.ndarray:
    """(n,) int64 minutes since 1990, cut to 25 bits (to 2053); the greatest value where there is no date."""
    stamps = pc.strptime(
        pc.utf8_slice_codeunits(date, 0, 16), format="%Y-%m-%dT%H:%M", unit="s", error_is_null=True
    ).cast(pa.int64())
    minutes = np.asarray(pc.fill_null(pc.divide(stamps, 60), _MINUTE_LIMIT + _MINUTES_TO_1990))
    return np.clip(minutes - _MINUTES_TO_1990, 0, _MINUTE_LIMIT)


def minutes_of(place: np.ndarray) -> np.ndarray:
    """The minutes of capture in places."""
    return place & _MINUTE_LIMIT


def minute_texts(minutes: np.ndarray) -> pa.Array:
    """Minutes as `2026-11-03T10:05:00Z`; null where there was no date."""
    stamps = pa.array((minutes + _MINUTES_TO_1990) * 60, mask=minutes >= _MINUTE_LIMIT)
    return pc.strftime(stamps.cast(pa.timestamp("s")), format="%Y-%m-%dT%H:%M:%SZ")


def survivor_ties(ids: list[str | None], files: list[str | None], offsets: list[int | None]) -> np.ndarray:
    """(n,) int64 that orders documents of one place: the first 40 bits of the id, then a hash of file and offset."""
    ties = np.empty(len(ids), np.int64)
    digest = xxhash.xxh3_64_intdigest
    for i, (name, file, offset) in enumerate(zip(ids, files, offsets, strict=True)):
        try:
            first = int((name or "0")[:10], 16)
        except ValueError:
            first = digest((name or "").encode()) >> 24
        ties[i] = (first << _TIE_BITS) | (digest(f"{name}\0{file}\0{offset}".encode()) >> (64 - _TIE_BITS))
    return ties
