# ruff: noqa: E402  (torch may be absent)
from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from itertools import pairwise

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

pytestmark = pytest.mark.torch

SHAPES = {"a.weight": (7, 5), "b.weight": (13,), "c.weight": (3, 2, 4)}
VALUES = {
    name: {state: torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i, state in enumerate(STATES)}
    for name, shape in SHAPES.items()
}


@dataclass
class Run:
    parameter: str
    offset: int
    tensors: dict


def split(cuts: dict[str, list[int]], ranks: int) -> list[list[Run]]:
    """Every parameter cut at the given places, its runs dealt to the ranks in turn."""
    dealt: list[list[Run]] = [[] for _ in range(ranks)]
    for name, shape in SHAPES.items():
        bounds = [0, *sorted(cuts[name]), math.prod(shape)]
        for i, (first, last) in enumerate(pairwise(bounds)):
            if first < last:
                flat = {state: tensor.view(-1)[first:last] for state, tensor in VALUES[name].items()}
                dealt[i % ranks].append(Run(name, first, flat))
    return dealt


def commit(store: MemoryStore, dealt: list[list[Run]]) -> CheckpointReader:
    tables = [write_slices(store, "ck", rank, runs, SHAPES) for rank, runs in enumerate(dealt)]
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


@settings(deadline=None, max_examples=60)
@given(cuts=CUTS, ranks=st.integers(1, 4), most=st.integers(1, 40), draw=st.data())
def test_any_run_of_any_layout_is_read_back_from_any_other(cuts, ranks, most, draw):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "MAX_SLICE_ELEMENTS", most)
        patch.setattr(slices, "MAX_OBJECT_BYTES", 12 * most * 3)
        reader = commit(MemoryStore(), split(cuts, ranks))
    for name, shape in SHAPES.items():
        first = draw.draw(st.integers(0, math.prod(shape)))
        length = draw.draw(st.integers(0, math.prod(shape) - first))
        for state, found in reader.read(name, first, length).items():
            assert np.array_equal(found, VALUES[name][state].view(-1)[first : first + length].numpy())
        assert np.array_equal(reader.parameter(name), VALUES[name]["master"].numpy())


def test_a_gap_an_overlap_and_a_strange_box_are_refused():
    store = MemoryStore()
    sha = write_slices(store, "ck", 0, split({name: [4] for name in SHAPES}, 1)[0], SHAPES)
    parts = read_table(store, table_key("ck", 0, sha), sha)
    check_tiling(SHAPES, parts)
    with pytest.raises(IntegrityError, match="or overlap"):
        check_tiling(SHAPES, parts[1:])
    with pytest.raises(IntegrityError, match="or overlap"):
        check_tiling(SHAPES, [*parts, parts[0]])
    with pytest.raises(IntegrityError, match="not its own"):
        check_tiling(SHAPES, [replace(parts[0], start=(1, 0)), *parts[1:]])


def test_numbers_are_raw_little_endian_float32_and_any_changed_byte_is_found():
    store = MemoryStore()
    reader = commit(store, split({name: [] for name in SHAPES}, 1))
    [key] = [info.key for info in store.list("ck/") if info.key.endswith(".f32")]
    body = store.get(key)
    assert body[: 4 * 35] == VALUES["a.weight"]["master"].numpy().astype("<f4").tobytes()
    for at in range(0, len(body), 37):
        store.put(key, body[:at] + bytes([body[at] ^ 4]) + body[at + 1 :])
        with pytest.raises(IntegrityError, match="crc32c"):
            for name, shape in SHAPES.items():
                reader.read(name, 0, math.prod(shape))
