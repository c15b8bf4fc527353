"""Bytes of a crawl file as a forward stream: plain, or out of gzip members or zstd frames one at a time.

Inflated pieces are small, so that what a stream holds is bounded by what was asked for, never by a claim.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pipelines.crawl.frames import ZSTD_BLOCK_BYTES, zstd_first_block, zstd_frame
from pipelines.crawl.inflate import InflateError, inflater
from pipelines.crawl.sources import Source

BLOCK_BYTES = 1 << 16
WHOLE_BYTES = 2 << 20  # what a member may inflate to and still be held at once
_FIRST_READ = 12 << 10  # most members of a web crawl are smaller
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # after one byte 50 to 5f; zstd's frames of other use, RFC 8878 section 3.1.2
_DICTIONARY = b"\x5d\x2a\x4d\x18"
_MAX_DICTIONARY_BYTES = 8 << 20
_MAX_WINDOW_BYTES = 1 << 27
_ZSTD_FEED = 256  # 4 bytes can stand for a block of 128 KiB
_PROBE_BYTES = 2048


class BrokenError(Exception):
    """The bytes at hand cannot be read on; args: reason (the ledger's word), detail.  Never leaves the reader."""

    @property
    def reason(self) -> str:
        """The ledger's word."""
        return self.args[0]

    @property
    def detail(self) -> str:
        """What a person needs beyond it."""
        return self.args[1]


class Pieces(Protocol):
    """What one member inflates to, piece by piece."""

    end: int | None  # the offset after the member, known once it ended well

    def more(self) -> bytes:
        """The next piece; empty after the last; `BrokenError` where the member is not whole."""
        ...


@dataclass(frozen=True, slots=True)
class Packing:
    """How records are packed: `magic` begins each member, `open` opens one, `probe` gives its first bytes.

    `whole` gives (content, offset after it) of a member that is sound and small, None for any other.  `block_bytes`
    is the longest run in which a member can show bytes of its content as they are.  `padded`: there may be frames
    that hold no content.
    """

    magic: bytes
    open: Callable[[Source, int], Pieces]
    probe: Callable[[Source, int, int], bytes]
    whole: Callable[[Source, int], tuple[bytes, int] | None]
    block_bytes: int
    padded: bool = False

    def padding_end(self, source: Source, at: int) -> int | None:
        """Where a frame that holds no content ends, or None where there is none at `at`."""
        if not self.padded:
            return None
        head = source.read(at, 8)
        if len(head) < 8 or head[1:4] != ZSTD_SKIPPABLE or not 0x50 <= head[0] <= 0x5F:
            return None
        return min(at + 8 + int.from_bytes(head[4:8], "little"), source.size_bytes)


def _probe_gzip(source: Source, at: int, size: int) -> bytes:
    """The first bytes, about `size`, that the member at `at` inflates to; empty where it is none."""
    try:
        return zlib.decompressobj(31).decompress(source.read(at, _PROBE_BYTES), size)
    except zlib.error:
        return b""


def _whole_gzip(source: Source, at: int) -> tuple[bytes, int] | None:
    packed = source.read(at, _FIRST_READ)
    stream = inflater(31)
    after = at + len(packed)
    try:
        out = stream.decompress(packed, WHOLE_BYTES)
        if not stream.eof:
            pieces, size = [out], len(out)
            while not stream.eof:
                packed = stream.unconsumed_tail
                if not packed:
                    packed = source.read(after, BLOCK_BYTES)
                    after += len(packed)
                if not packed or size >= WHOLE_BYTES:
                    return None
                pieces.append(stream.decompress(packed, WHOLE_BYTES))
                size += len(pieces[-1])
            out = b"".join(pieces)
    except InflateError:
        return None
    return out, after - len(stream.unused_data)


def _gzip_inflater() -> Any:
    return zlib.decompressobj(31)


GZIP = Packing(
    magic=b"\x1f\x8b\x08",
    open=lambda source, at: Member(source, at, _gzip_inflater(), (zlib.error,)),
    probe=_probe_gzip,
    whole=_whole_gzip,
    block_bytes=65_535,
)


def zstd_packing(source: Source) -> Packing:
    """Zstd frames, with the dictionary that the file may begin with (IIPC's WARC-Zstd)."""
    import zstandard

    dictionary = None
    head = source.read(0, 8)
    if head[:4] == _DICTIONARY:
        size = int.from_bytes(head[4:8], "little")
        if size > _MAX_DICTIONARY_BYTES:
            raise BrokenError("not_a_warc", f"a zstd dictionary of {size} bytes")
        body = source.read(8, size)
        try:
            if body[:4] == ZSTD_MAGIC:
                with zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).stream_reader(body) as reader:
                    body = reader.read(_MAX_DICTIONARY_BYTES)
            dictionary = zstandard.ZstdCompressionDict(body)
            zstandard.ZstdDecompressor(dict_data=dictionary)  # reads it
        except zstandard.ZstdError as error:
            raise BrokenError("not_a_warc", f"the zstd dictionary cannot be read: {error}") from None
    known = {} if dictionary is None else {"dict_data": dictionary}
    inflater = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES, **known)

    def probe(source: Source, at: int, size: int) -> bytes:
        end = zstd_first_block(source, at)  # zstd gives nothing of a block before its end
        try:
            return b"" if end is None else inflater.decompressobj().decompress(source.read(at, end - at))[:size]
        except zstandard.ZstdError:
            return b""

    def whole(source: Source, at: int) -> tuple[bytes, int] | None:
        frame = zstd_frame(source, at, WHOLE_BYTES)
        if frame is None:
            return None
        end, most = frame
        try:
            # The context is read piece by piece: the one-call way trusts a content size that the frame claims.
            stream = inflater.decompressobj()
            out = stream.decompress(source.read(at, end - at))
        except zstandard.ZstdError:
            return None
        return (out, end) if stream.eof and len(out) <= most else None

    faults = (zstandard.ZstdError,)
    return Packing(
        magic=ZSTD_MAGIC,
        open=lambda source, at: Member(source, at, _ZstdInflater(dictionary), faults),
        probe=probe,
        whole=whole,
        block_bytes=ZSTD_BLOCK_BYTES,
        padded=True,
    )


class _ZstdInflater:
    """zlib's streaming interface over one zstd frame."""

    def __init__(self, dictionary: Any) -> None:
        import zstandard

        known = {} if dictionary is None else {"dict_data": dictionary}
        self._inflater = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES, **known).decompressobj()
        self._rest = b""
        self.unconsumed_tail = b""

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data + self.unconsumed_tail

    def decompress(self, packed: bytes, _limit: int) -> bytes:
        self.unconsumed_tail = packed[_ZSTD_FEED:]
        return self._inflater.decompress(packed[:_ZSTD_FEED])


class Member:
    """What one gzip member or zstd frame inflates to, piece by piece."""

    def __init__(self, source: Source, offset: int, inflater: Any, faults: tuple[type[Exception], ...]) -> None:
        """Begin at `offset`, where a member starts; `inflater` is new and has zlib's interface."""
        self._source = source
        self._at = offset
        self._inflater = inflater
        self._faults = faults
        self._input = b""
        self.end: int | None = None

    def more(self) -> bytes:
        """The next piece; empty after the last; `BrokenError` where the member is not whole."""
        while self.end is None:
            if not self._input:
                self._input = self._source.read(self._at, BLOCK_BYTES)
                self._at += len(self._input)
                if not self._input:
                    raise BrokenError("truncated_record", "the file ends inside a compressed member")
            try:
                piece = self._inflater.decompress(self._input, BLOCK_BYTES)
            except self._faults as error:
                raise BrokenError("corrupt_member", str(error)) from None
            self._input = self._inflater.unconsumed_tail
            if self._inflater.eof:
                self.end = self._at - len(self._inflater.unused_data)
                return piece
            if piece:
                return piece
        return b""


class Plain:
    """An uncompressed file from an offset on."""

    def __init__(self, source: Source, offset: int) -> None:
        self._source = source
        self._at = offset

    def more(self) -> bytes:
        """The next piece; empty at the end of the file."""
        piece = self._source.read(self._at, BLOCK_BYTES)
        self._at += len(piece)
        return piece


class Reader:
    """A forward reader over pieces, with look-ahead; `taken` counts the bytes handed out."""

    def __init__(self, pieces: Pieces | Plain) -> None:
        self._pieces = pieces
        self._buffer = bytearray()
        self._dry = False
        self.taken = 0

    def peek(self, size: int) -> bytes:
        """Up to `size` bytes without taking them."""
        while len(self._buffer) < size and not self._dry:
            piece = self._pieces.more()
            self._dry = not piece
            self._buffer += piece
        return bytes(self._buffer[:size])

    def take(self, size: int) -> bytes:
        """Up to `size` bytes."""
        out = self.peek(size)
        del self._buffer[: len(out)]
        self.taken += len(out)
        return out

    def skip(self, size: int) -> int:
        """Drop up to `size` bytes in bounded memory; the number dropped."""
        dropped = 0
        while dropped < size and (piece := self.take(min(BLOCK_BYTES, size - dropped))):
            dropped += len(piece)
        return dropped

    def take_head(self, limit: int) -> bytes | None:
        """Bytes up to and with the first empty line; None if there is none within `limit` bytes."""
        size = 0
        while True:
            size = min(size + BLOCK_BYTES, limit)
            window = self.peek(size)
            end = head_end(window)
            if end is not None:
                return self.take(end)
            if size >= limit or len(window) < size:
                return None


def head_end(window: bytes, start: int = 0, stop: int | None = None) -> int | None:
    """Where the first empty line after `start` ends (CRLF or LF), or None where none ends before `stop`."""
    stop = len(window) if stop is None else stop
    mixed = window.find(b"\n\r\n", start, stop)  # of CRLF CRLF too
    bare = window.find(b"\n\n", start, stop if mixed < 0 else mixed + 2)
    if bare >= 0:
        return bare + 2
    return mixed + 3 if mixed >= 0 else None


def first_member_is_long(source: Source, limit: int = 1 << 20) -> bool:
    """Whether the file's first gzip member does not end within `limit` bytes: plain `gzip` of a whole archive makes
    one member, and no reader can begin inside it.  (Archives begin with a small record about themselves.)
    """
    if not source.read(0, 3).startswith(GZIP.magic):
        return False
    inflater, at = _gzip_inflater(), 0
    while at < min(limit, source.size_bytes) and not inflater.eof:
        packed = inflater.unconsumed_tail or source.read(at, BLOCK_BYTES)
        at += 0 if inflater.unconsumed_tail else len(packed)
        try:
            inflater.decompress(packed, BLOCK_BYTES)
        except zlib.error:
            return False
    return not inflater.eof and at < source.size_bytes
