"""Where a zstd or lz4 frame ends, by its block headers alone: nothing is inflated, and a frame's claim of its own
content size is not believed (RFC 8878 section 3.1.1; lz4_Frame_format.md 1.6.2).
"""

from __future__ import annotations

from pipelines.crawl.sources import Source

ZSTD_BLOCK_BYTES = 128 << 10
LZ4_MAGIC = b"\x04\x22\x4d\x18"
LZ4_BLOCK_BYTES = 4 << 20
_LEAST_LZ4_BLOCK = 1 << 10
_LZ4_SIZES = {4: 64 << 10, 5: 256 << 10, 6: 1 << 20, 7: 4 << 20}


def zstd_frame(source: Source, at: int, most: int) -> tuple[int, int] | None:
    """(offset after the frame, the most bytes it can hold); None where that is over `most` or there is no frame."""
    head = _zstd_head(source, at)
    if head is None:
        return None
    here, flags = head
    blocks = 0
    while blocks * ZSTD_BLOCK_BYTES < most:
        block = int.from_bytes(source.read(here, 3), "little")
        kind = block >> 1 & 3
        if kind == 3:
            return None
        here += 3 + (1 if kind == 1 else block >> 3)
        blocks += 1
        if here > source.size_bytes:
            return None
        if block & 1:
            here += 4 if flags >> 2 & 1 else 0
            return (here, blocks * ZSTD_BLOCK_BYTES) if here <= source.size_bytes else None
    return None


def zstd_first_block(source: Source, at: int) -> int | None:
    """The offset after the first block of the frame at `at`, which holds at most ZSTD_BLOCK_BYTES."""
    head = _zstd_head(source, at)
    if head is None:
        return None
    block = int.from_bytes(source.read(head[0], 3), "little")
    size = 1 if block >> 1 & 3 == 1 else block >> 3
    return head[0] + 3 + size if size <= ZSTD_BLOCK_BYTES else None


def _zstd_head(source: Source, at: int) -> tuple[int, int] | None:
    """(offset of the first block header, flags) of a frame."""
    head = source.read(at, 5)
    if len(head) < 5 or head[:4] != b"\x28\xb5\x2f\xfd":
        return None
    flags = head[4]
    single = flags >> 5 & 1
    size_bytes = (single, 2, 4, 8)[flags >> 6]
    return at + 5 + (not single) + (0, 1, 2, 4)[flags & 3] + size_bytes, flags


def lz4_frame(source: Source, at: int, most: int) -> tuple[int, int] | None:
    """(offset after the frame, the most bytes it can hold); None where that is over `most` or there is no frame."""
    head = source.read(at, 7)
    if len(head) < 7 or head[:4] != LZ4_MAGIC or head[4] >> 6 != 1:
        return None
    flags = head[4]
    block_bytes = _LZ4_SIZES.get(head[5] >> 4 & 7)
    if block_bytes is None:
        return None
    here = at + 7 + (8 if flags & 8 else 0) + (4 if flags & 1 else 0)
    held = 0
    while True:
        word = source.read(here, 4)
        size = int.from_bytes(word, "little")
        here += 4
        if len(word) < 4:
            return None
        if size == 0:
            here += 4 if flags & 4 else 0
            return (here, held) if here <= source.size_bytes else None
        # A block of nothing counts too, so that the number of blocks is bounded.
        held += max(min(size & 0x7FFFFFFF, block_bytes), _LEAST_LZ4_BLOCK) if size >> 31 else block_bytes
        here += (size & 0x7FFFFFFF) + (4 if flags & 16 else 0)
        if held > most or here > source.size_bytes:
            return None
