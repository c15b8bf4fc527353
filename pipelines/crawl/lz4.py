"""Members that are lz4 frames, as FastWARC writes them.

A frame's end is read off its block headers; Arrow inflates it.  Linked blocks need their predecessors, so a frame is
held whole in its packed form; one larger than a bound is no member.
"""

from __future__ import annotations

import pyarrow as pa

from pipelines.crawl.frames import LZ4_BLOCK_BYTES, LZ4_MAGIC, lz4_frame
from pipelines.crawl.members import BLOCK_BYTES, WHOLE_BYTES, BrokenError, Packing
from pipelines.crawl.sources import Source

_MAX_FRAME_BYTES = 128 << 20  # packed
_MAX_CONTENT_BYTES = 1 << 36
_MAX_PROBED_BYTES = 1 << 30


class Lz4Frame:
    """What one lz4 frame inflates to, piece by piece."""

    def __init__(self, source: Source, offset: int) -> None:
        """Begin at `offset`, where a frame starts."""
        self._source = source
        self._offset = offset
        self._stream: pa.NativeFile | None = None
        self._end = 0
        self.end: int | None = None

    def more(self) -> bytes:
        """The next piece; empty after the last; `BrokenError` where the frame is not whole."""
        if self.end is not None:
            return b""
        try:
            piece = self._opened().read(BLOCK_BYTES)
        except (OSError, pa.ArrowException) as error:
            raise BrokenError("corrupt_member", str(error)) from None
        if not piece:
            self.end = self._end
        return piece

    def _opened(self) -> pa.NativeFile:
        if self._stream is None:
            frame = lz4_frame(self._source, self._offset, _MAX_CONTENT_BYTES)
            if frame is None:
                raise BrokenError("truncated_record", "the file ends inside an lz4 frame, or the frame is none")
            self._end = frame[0]
            if self._end - self._offset > _MAX_FRAME_BYTES:
                raise BrokenError("record_over_bound", f"an lz4 frame of {self._end - self._offset} bytes")
            self._stream = _inflating(self._source.read(self._offset, self._end - self._offset))
        return self._stream


def _inflating(packed: bytes) -> pa.NativeFile:
    return pa.CompressedInputStream(pa.BufferReader(packed), "lz4")


def _probe(source: Source, at: int, size: int) -> bytes:
    frame = lz4_frame(source, at, _MAX_PROBED_BYTES)
    if frame is None or frame[0] - at > _MAX_FRAME_BYTES:
        return b""
    try:
        return _inflating(source.read(at, frame[0] - at)).read(size)
    except (OSError, pa.ArrowException):
        return b""


def _whole(source: Source, at: int) -> tuple[bytes, int] | None:
    frame = lz4_frame(source, at, 2 * LZ4_BLOCK_BYTES)
    if frame is None:
        return None
    try:
        out = _inflating(source.read(at, frame[0] - at)).read(WHOLE_BYTES + 1)
    except (OSError, pa.ArrowException):
        return None
    return (out, frame[0]) if len(out) <= WHOLE_BYTES else None


LZ4 = Packing(
    magic=LZ4_MAGIC, open=Lz4Frame, probe=_probe, whole=_whole, block_bytes=LZ4_BLOCK_BYTES, padded=True
)  # fmt: skip
