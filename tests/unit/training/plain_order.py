"""The order in plain Python, a token run or a place at a time: what the compiled one is held against."""

from __future__ import annotations

from bisect import bisect_right
from typing import Literal, NamedTuple

from training.data.cells import CellGeometry
from training.data.laps import CellStream, Stage, plain_lap
from training.data.permutation import Permutation, round_keys


class Piece(NamedTuple):
    """A run of tokens of one lap from one stretch, or from the tail stream (stretch 0)."""

    lap: int
    kind: Literal["stretch", "tail"]
    stretch: int
    offset: int
    tokens: int


class Span(NamedTuple):
    """Tokens [first, first + tokens) of one shard of the cell."""

    shard: int
    first: int
    tokens: int


class Place(NamedTuple):
    """Where a token lies in the geometry; a tail token's offset counts in the tail stream (stretch 0)."""

    kind: Literal["stretch", "tail"]
    stretch: int
    offset: int


def pieces(stream: CellStream, first: int, tokens: int) -> list[Piece]:
    """Tokens [first, first + tokens) after the cursor."""
    found: list[Piece] = []
    at = stream.used + first
    while tokens > 0:
        ahead, used = divmod(at, stream.geometry.tokens)
        piece = _piece(stream, ahead, used, tokens)
        found.append(piece)
        at, tokens = at + piece.tokens, tokens - piece.tokens
    return found


def _piece(stream: CellStream, ahead: int, used: int, tokens: int) -> Piece:
    lap, size = stream.lap + ahead, stream.geometry.stretch_tokens
    stages = stream.stages if not ahead else (plain_lap(stream.geometry),)
    stage = stages[-1]
    v = used - stage.start
    if v < stage.head_tokens:
        return Piece(lap, "stretch", stage.head_stretch, stage.head_offset + v, min(tokens, stage.head_tokens - v))
    item, offset = divmod(v - stage.head_tokens, size)
    if item < stage.items:
        stretch = stream.item(stages, lap, len(stages) - 1, item)
        return Piece(lap, "stretch", stretch, offset, min(tokens, size - offset))
    at = stage.tail_start + v - stage.head_tokens - stage.items * size
    return Piece(lap, "tail", 0, at, min(tokens, stream.geometry.tail_tokens - at))


def spans(geometry: CellGeometry, piece: Piece) -> list[Span]:
    """Where a piece lies in the shards; a tail piece gives one span for every shard it touches."""
    size = geometry.stretch_tokens
    if piece.kind == "stretch":
        shard = bisect_right(geometry.stretch_ends, piece.stretch)
        before = geometry.stretch_ends[shard - 1] if shard else 0
        return [Span(shard, (piece.stretch - before) * size + piece.offset, piece.tokens)]
    found: list[Span] = []
    offset, tokens = piece.offset, piece.tokens
    while tokens > 0:
        shard = bisect_right(geometry.tail_ends, offset)
        before = geometry.tail_ends[shard - 1] if shard else 0
        whole = geometry.shard_tokens[shard]
        taken = min(tokens, geometry.tail_ends[shard] - offset)
        found.append(Span(shard, whole - whole % size + offset - before, taken))
        offset, tokens = offset + taken, tokens - taken
    return found


def place(geometry: CellGeometry, shard: int, token: int) -> Place:
    """The stretch or tail place of a shard's token."""
    size = geometry.stretch_tokens
    full = geometry.shard_tokens[shard] - geometry.shard_tokens[shard] % size
    if token < full:
        before = geometry.stretch_ends[shard - 1] if shard else 0
        return Place("stretch", before + token // size, token % size)
    before = geometry.tail_ends[shard - 1] if shard else 0
    return Place("tail", 0, before + token - full)


def find(stream: CellStream, where: Place, lap: int) -> int | None:
    """The token number after the cursor at which `lap` shows this place; None if it is passed."""
    if lap < stream.lap:
        return None
    stages = stream.stages if lap == stream.lap else (plain_lap(stream.geometry),)
    after = (lap - stream.lap) * stream.geometry.tokens + _find_in_lap(stream, where, lap, stages) - stream.used
    return after if after >= 0 else None


def _find_in_lap(stream: CellStream, where: Place, lap: int, stages: tuple[Stage, ...]) -> int:
    """The token number in the lap: the earliest stage that still reaches the place."""
    size = stream.geometry.stretch_tokens
    item: int | None = None
    for growth, stage in enumerate(stages):
        end = stages[growth + 1].start if growth + 1 < len(stages) else None
        if where.kind == "tail":
            v = stage.head_tokens + stage.items * size + where.offset - stage.tail_start
        elif stage.head_tokens and where.stretch == stage.head_stretch:
            v = where.offset - stage.head_offset
        else:
            item = _place_in_stage(stream, lap, growth, stage, where.stretch, item)
            if item is None:  # a stretch that a later version brings
                continue
            v = stage.head_tokens + item * size + where.offset
        if end is None or stage.start + v < end:
            return stage.start + v
    raise IndexError(f"{where} is not in the geometry")


def _place_in_stage(
    stream: CellStream, lap: int, growth: int, stage: Stage, stretch: int, before: int | None
) -> int | None:
    if stretch >= stage.stretches_before:
        y = stage.carried + stretch - stage.stretches_before
    elif before is not None:
        y = before - stage.first_item
    else:
        return None
    keys = round_keys(seed=stream.seed, lap=lap, growth=growth, cell=stream.geometry.name)
    return Permutation(stage.items, keys).inverse(y) if 0 <= y < stage.items else None
