# ruff: noqa: E402  (torch may be absent)
"""Ranks numbered by where they are: the process group made anew in another order."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("deepspeed")

from tests.unit.training.ranks import run_ranks
from training.process_group import reorder_ranks

pytestmark = pytest.mark.torch


def reordered(places: list[tuple[str, str, int]]) -> tuple[int, int, list[int], float]:
    """(rank before, after, ranks before in the new order, a sum over the new group)."""
    before = torch.distributed.get_rank()
    after = reorder_ranks(places[before], timeout_s=60)
    assert after == torch.distributed.get_rank()
    everyone = [0] * len(places)
    torch.distributed.all_gather_object(everyone, before)
    total = torch.ones(1)
    torch.distributed.all_reduce(total)
    return before, after, everyone, float(total)


def test_ranks_are_numbered_by_rack_node_and_gpu_and_the_group_works():
    places = [("b", "r2", 0), ("c", "r1", 1), ("c", "r1", 0)]
    found = run_ranks(reordered, 3, places)
    assert found == [(0, 2, [2, 1, 0], 3.0), (1, 1, [2, 1, 0], 3.0), (2, 0, [2, 1, 0], 3.0)]


def test_ranks_that_are_in_order_keep_their_group():
    places = [("a", "", 0), ("a", "", 1)]
    assert run_ranks(reordered, 2, places) == [(0, 0, [0, 1], 2.0), (1, 1, [0, 1], 2.0)]
