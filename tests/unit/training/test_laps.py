from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ConfigError, IntegrityError
from tests.unit.training.plain_order import find, pieces, place, spans
from training.data.cells import geometry
from training.data.laps import CellStream

VECTORS = json.loads((Path(__file__).parent / "order_vectors.json").read_text())
SHARDS = st.lists(st.integers(0, 70), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) > 0)


def shard_tokens_of(stream: CellStream, first: int, tokens: int) -> list[tuple[int, int, int]]:
    """(lap, shard, token) of every token, in stream order."""
    return [
        (piece.lap, span.shard, span.first + i)
        for piece in pieces(stream, first, tokens)
        for span in spans(stream.geometry, piece)
        for i in range(span.tokens)
    ]


@pytest.mark.parametrize(
    "vector", VECTORS["rows"], ids=lambda v: f"L{v['sequence_length']}-S{v['stretch_tokens']}"
)
def test_the_golden_rows_are_reproduced(vector):
    cell = geometry(vector["cell"], vector["shard_tokens"], vector["stretch_tokens"])
    stream = CellStream.begin(vector["seed"], cell)
    length = vector["sequence_length"]
    rows = [[p._asdict() for p in pieces(stream, k * length, length)] for k in range(len(vector["rows"]))]
    assert rows == vector["rows"]


@settings(deadline=None)
@given(shards=SHARDS, stretch=st.sampled_from([1, 7, 16, 32, 64, 100]), seed=st.integers(0, 99))
def test_a_lap_is_every_token_exactly_once_and_laps_differ_only_in_order(shards, stretch, seed):
    stream = CellStream.begin(seed, geometry("zh.web", shards, stretch))
    total = stream.geometry.tokens
    everything = sorted((shard, token) for shard, size in enumerate(shards) for token in range(size))
    for lap in range(3):
        seen = shard_tokens_of(stream, lap * total, total)
        assert {entry[0] for entry in seen} == {lap}
        assert sorted(entry[1:] for entry in seen) == everything


@settings(deadline=None, max_examples=400)
@given(draw=st.data())
def test_growth_in_mid_lap_loses_no_token_repeats_none_and_every_inverse_is_right(draw):
    stretch = draw.draw(st.sampled_from([1, 7, 20, 32]))
    length = draw.draw(st.sampled_from([7, 20, 32, 96]))
    shards = draw.draw(SHARDS)
    stream = CellStream.begin(draw.draw(st.integers(0, 9)), geometry("en.web", shards, stretch))
    segments: list[tuple[CellStream, int]] = []
    for _ in range(draw.draw(st.integers(1, 6))):
        rows = draw.draw(st.integers(0, 2 * stream.geometry.tokens // length + 2))
        segments.append((stream, rows * length))
        stream = stream.advanced(rows * length)
        if draw.draw(st.booleans()):
            shards = [*shards, *draw.draw(st.lists(st.integers(0, 70), max_size=3))]
            stream = stream.grown(geometry("en.web", shards, stretch))
    segments.append((stream, stream.geometry.tokens * 2))
    laps: dict[int, list[tuple[int, int]]] = {}
    for part, tokens in segments:
        for t, (lap, shard, token) in enumerate(shard_tokens_of(part, 0, tokens)):
            laps.setdefault(lap, []).append((shard, token))
            if t % 5 == 0:
                assert find(part, place(part.geometry, shard, token), lap) == t
    for lap, seen in laps.items():
        assert len(set(seen)) == len(seen), f"a token came twice in lap {lap}"
    whole = {(shard, token) for shard, size in enumerate(shards) for token in range(size)}
    for lap in range(stream.lap, max(laps)):
        assert set(laps[lap]) == whole
    for lap in range(stream.lap):
        assert set(laps[lap]) <= whole


def test_what_the_cursor_has_passed_is_not_found_again():
    stream = CellStream.begin(1, geometry("c", [64], 8))
    _, shard, token = shard_tokens_of(stream, 0, 1)[0]
    moved = stream.advanced(8)
    where = place(moved.geometry, shard, token)
    assert find(moved, where, 0) is None
    assert find(moved, where, 1) is not None


def test_rows_come_equal_from_any_cut_of_the_stream():
    stream = CellStream.begin(5, geometry("c", [33, 20, 7], 8))
    whole = shard_tokens_of(stream, 0, 200)
    assert [entry for i in range(0, 200, 7) for entry in shard_tokens_of(stream, i, min(7, 200 - i))] == whole
    assert shard_tokens_of(stream.advanced(77), 0, 100) == whole[77:177]


def test_the_stretch_changes_only_at_the_start_of_a_lap():
    stream = CellStream.begin(5, geometry("c", [33, 20, 7], 8))
    wider = geometry("c", [33, 20, 7], 16)
    assert stream.advanced(60).restretched(wider).cursor == (1, 0)
    with pytest.raises(ConfigError, match="only at a lap's start"):
        stream.advanced(1).restretched(wider)


def test_a_version_that_does_not_extend_is_refused():
    stream = CellStream.begin(5, geometry("c", [33, 20], 8, ["a", "b"]))
    assert stream.grown(geometry("c", [33, 20, 9], 8, ["a", "b", "x"])).geometry.tokens == 62
    for other in (geometry("c", [33, 21, 9], 8), geometry("c", [33, 20], 8, ["a", "x"])):
        with pytest.raises(IntegrityError, match="does not begin with"):
            stream.grown(other)


def test_an_empty_cell_gives_nothing_and_says_so():
    stream = CellStream.begin(5, geometry("c", [0], 8))
    assert stream.advanced(0).cursor == (0, 0)
    with pytest.raises(ConfigError, match="is empty"):
        stream.advanced(1)
