# ruff: noqa: E402  (torch may be absent)
from __future__ import annotations

import hashlib
import json
import math
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

import crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from pipelines.datasets.store import MemoryStore
from pipelines.errors import IntegrityError
from training.checkpoint import slices
from training.checkpoint.reader import FORMAT, CheckpointReader
from training.checkpoint.slices import STATES, check_tiling, read_table, table_key, write_slices
from training.layout import cut_dimension, tensor_box

pytestmark = pytest.mark.torch

DOWN = "layers.0.feed_forward.down.weight"  # cut by columns
SHAPES = {"a.weight": (7, 5), "b.weight": (13,), "c.weight": (3, 2, 4), DOWN: (6, 16)}
VALUES = {
    name: {state: torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i, state in enumerate(STATES)}
    for name, shape in SHAPES.items()
}


@dataclass
class Run:
    parameter: str
    start: tuple[int, ...]
    size: tuple[int, ...]
    offset: int
    tensors: dict


def whole(name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (0,) * len(SHAPES[name]), SHAPES[name]


def cut_box(name: str, start: tuple[int, ...], size: tuple[int, ...], cuts: list[int]) -> list[Run]:
    """The runs of a box, cut at the given places."""
    box = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
    flat = {state: tensor[box].reshape(-1) for state, tensor in VALUES[name].items()}
    bounds = sorted({0, math.prod(size), *(cut for cut in cuts if cut < math.prod(size))})
    return [
        Run(name, start, size, first, {state: run[first:last] for state, run in flat.items()})
        for first, last in pairwise(bounds)
    ]


def split(cuts: dict[str, list[int]], ranks: int, boxes: dict | None = None) -> list[list[Run]]:
    """Every box of every parameter cut at the given places, its runs dealt to the ranks in turn."""
    dealt: list[list[Run]] = [[] for _ in range(ranks)]
    for name in SHAPES:
        for start, size in (boxes or {}).get(name, [whole(name)]):
            for i, run in enumerate(cut_box(name, start, size, cuts[name])):
                dealt[i % ranks].append(run)
    return dealt


def commit(store: MemoryStore, dealt: list[list[Run]]) -> CheckpointReader:
    return reader_of(store, [write_slices(store, "ck", rank, runs, SHAPES) for rank, runs in enumerate(dealt)])


def reader_of(store: MemoryStore, tables: list[str]) -> CheckpointReader:
    body = {
        "format": FORMAT,
        "parameters": [{"name": name, "shape": list(shape)} for name, shape in SHAPES.items()],
        "slice_tables": [{"key": table_key("ck", r, sha), "sha256": sha} for r, sha in enumerate(tables)],
    }
    encoded = json.dumps(body).encode()
    store.put("ck/checkpoint.json", encoded)
    return CheckpointReader(store, "ck/checkpoint.json", hashlib.sha256(encoded).hexdigest())


CUTS = st.fixed_dictionaries(
    {name: st.lists(st.integers(0, math.prod(shape)), max_size=4) for name, shape in SHAPES.items()}
)


@st.composite
def boxes_of(draw) -> dict[str, list]:
    """Each parameter in one to four boxes along one dimension."""
    boxes = {}
    for name, shape in SHAPES.items():
        dimension = draw(st.integers(0, len(shape) - 1))
        edges = sorted({0, shape[dimension], *draw(st.lists(st.integers(1, shape[dimension] - 1), max_size=3))})
        boxes[name] = [
            (
                tuple(first if d == dimension else 0 for d in range(len(shape))),
                tuple(last - first if d == dimension else n for d, n in enumerate(shape)),
            )
            for first, last in pairwise(edges)
        ]
    return boxes


@contextmanager
def small_pages(page: int, most: int):
    """Pages, slices and objects so small that these parameters take many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "PAGE_ELEMENTS", page)
        patch.setattr(slices, "PAGE_BYTES", 4 * page + 4)
        patch.setattr(slices, "MIN_BLOCK_PAGES", 1)
        patch.setattr(slices, "MAX_SLICE_ELEMENTS", most)
        patch.setattr(slices, "MAX_OBJECT_BYTES", 12 * most * 3)
        yield


@settings(deadline=None, max_examples=60)
@given(
    cuts=CUTS, boxes=boxes_of(), read=boxes_of(), ranks=st.integers(1, 4), page=st.integers(1, 9), data=st.data(),
    most=st.integers(1, 40),
)  # fmt: skip
def test_any_run_of_any_box_of_any_layout_is_read_back_from_any_other(cuts, boxes, read, ranks, page, most, data):
    with small_pages(page, most):
        reader = commit(MemoryStore(), split(cuts, ranks, boxes))
        for name, shape in SHAPES.items():
            for start, size in [*read[name], whole(name)]:
                box = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
                first = data.draw(st.integers(0, math.prod(size)))
                length = data.draw(st.integers(0, math.prod(size) - first))
                for state, found in reader.read(name, first, length, start=start, size=size).items():
                    expected = VALUES[name][state][box].reshape(-1)[first : first + length]
                    assert np.array_equal(found, expected.numpy()), (name, start, size)
            first = data.draw(st.integers(0, math.prod(shape)))
            for state, found in reader.read(name, first, math.prod(shape) - first).items():
                assert np.array_equal(found, VALUES[name][state].view(-1)[first:].numpy())
            assert np.array_equal(reader.parameter(name), VALUES[name]["master"].numpy())


def parts_of(dealt: list[list[Run]]) -> list[slices.Slice]:
    store = MemoryStore()
    tables = [write_slices(store, "ck", rank, runs, SHAPES) for rank, runs in enumerate(dealt)]
    return [part for rank, sha in enumerate(tables) for part in read_table(store, table_key("ck", rank, sha), sha)]


@settings(deadline=None, max_examples=60)
@given(cuts=CUTS, boxes=boxes_of(), data=st.data())
def test_a_gap_an_overlap_and_a_strange_box_are_refused(cuts, boxes, data):
    parts = parts_of(split(cuts, 2, boxes))
    check_tiling(SHAPES, parts)
    at = data.draw(st.integers(0, len(parts) - 1))
    one, others = parts[at], [*parts[:at], *parts[at + 1 :]]
    with pytest.raises(IntegrityError, match="gaps or overlap"):
        check_tiling(SHAPES, others)
    with pytest.raises(IntegrityError, match="gaps or overlap"):
        check_tiling(SHAPES, [*parts, one])
    with pytest.raises(IntegrityError, match="gaps or overlap"):
        check_tiling(SHAPES, [*others, *([replace(one, length=one.length - 1)] if one.length > 1 else [])])
    with pytest.raises(IntegrityError, match="not inside"):
        check_tiling(SHAPES, [*others, replace(one, size=tuple(n + 9 for n in one.size))])
    with pytest.raises(IntegrityError, match="elements"):
        check_tiling(SHAPES, [*others, replace(one, length=math.prod(one.size) + 1 - one.offset)])


def test_two_halves_by_columns_that_overlap_and_leave_a_gap_of_the_same_size_are_refused():
    halves = [((0, 0), (6, 8)), ((0, 7), (6, 8))]
    with pytest.raises(IntegrityError, match="gaps or overlap"):
        check_tiling(SHAPES, parts_of(split({name: [] for name in SHAPES}, 1, {DOWN: halves})))


SIZES = {DOWN: (640, 1024), "layers.0.feed_forward.up.weight": (1024, 640), "norm": (640,)}


def layout_runs(data_size: int, tensor_size: int) -> list[list[Run]]:
    """What the ranks of ZeRO-1 own: the flat parameters of a tensor rank, cut into data_size equal runs."""
    ranks: list[list[Run]] = []
    for tensor in range(tensor_size):
        held = [
            (name, tensor_box(name, shape, rank=tensor, size=tensor_size))
            for name, shape in SIZES.items()
            if tensor == 0 or cut_dimension(name) is not None
        ]
        total = sum(math.prod(box.size) for _, box in held)
        for data in range(data_size):
            first, last = total * data // data_size, total * (data + 1) // data_size
            runs, at = [], 0
            for name, box in held:
                size = math.prod(box.size)
                low, high = max(first - at, 0), min(last - at, size)
                if low < high:
                    flat = torch.arange(low, high, dtype=torch.float32)
                    runs.append(Run(name, box.start, box.size, low, dict.fromkeys(STATES, flat)))
                at += size
            ranks.append(runs)
    return ranks


@pytest.mark.parametrize("wrote", [(1, 1), (3, 1), (2, 2), (1, 4)])
@pytest.mark.parametrize("reads", [(1, 1), (2, 1), (4, 1), (1, 2), (3, 2), (1, 4)])
def test_a_rank_of_any_layout_reads_at_most_1_05_times_its_own_bytes(wrote, reads, monkeypatch):
    monkeypatch.setitem(globals(), "SHAPES", SIZES)
    monkeypatch.setattr(slices, "PAGE_ELEMENTS", 63)  # as much smaller than 4 KiB as these are than real ones
    monkeypatch.setattr(slices, "PAGE_BYTES", 256)
    reader = commit(MemoryStore(), layout_runs(*wrote))
    for runs in layout_runs(*reads):
        before, own = reader.bytes_read, 0
        for run in runs:
            own += 3 * 4 * len(run.tensors["master"])
            reader.read(run.parameter, run.offset, len(run.tensors["master"]), start=run.start, size=run.size)
        assert own <= reader.bytes_read - before <= 1.05 * own


def test_numbers_are_raw_little_endian_float32_and_any_changed_byte_is_found():
    store = MemoryStore()
    reader = commit(store, split({name: [] for name in SHAPES}, 1))
    [key] = [info.key for info in store.list("ck/") if info.key.endswith(".f32")]
    body = store.get(key)
    raw = VALUES["a.weight"]["master"].numpy().astype("<f4").tobytes()
    assert body[: len(raw)] == raw
    assert body[4092:4096] == crc32c.crc32c(body[:4092]).to_bytes(4, "little")
    for at in range(0, len(body), 371):
        store.put(key, body[:at] + bytes([body[at] ^ 4]) + body[at + 1 :])
        with pytest.raises(IntegrityError, match="crc32c"):
            for name, shape in SHAPES.items():
                reader.read(name, 0, math.prod(shape))


def test_slices_of_the_old_format_are_still_read_and_checked():
    store, body, told = MemoryStore(), b"", []
    for name, cut in (("a.weight", 17), ("b.weight", 13), ("c.weight", 5), (DOWN, 40)):
        shape = SHAPES[name]
        for first, last in pairwise(sorted({0, cut, math.prod(shape)})):
            runs = [VALUES[name][state].view(-1)[first:last].numpy().astype("<f4").tobytes() for state in STATES]
            told.append(
                {"parameter": name, "start": [0] * len(shape), "size": list(shape), "offset": first,
                 "length": last - first, "key": "ck/old.f32", "first_byte": len(body),
                 "crc32c": [crc32c.crc32c(run) for run in runs]}
            )  # fmt: skip
            body += b"".join(runs)
    store.put("ck/old.f32", body)
    table = json.dumps({"format": "gristmill.slices/1", "rank": 0, "slices": told}).encode()
    sha = hashlib.sha256(table).hexdigest()
    store.put(table_key("ck", 0, sha), table)
    reader = reader_of(store, [sha])
    for name in SHAPES:
        assert np.array_equal(reader.parameter(name), VALUES[name]["master"].numpy())
        assert np.array_equal(reader.read(name, 3, 7)["exp_avg"], VALUES[name]["exp_avg"].view(-1)[3:10].numpy())
    store.put("ck/old.f32", body[:60] + bytes([body[60] ^ 1]) + body[61:])
    with pytest.raises(IntegrityError, match="crc32c"):
        reader.parameter("a.weight")
