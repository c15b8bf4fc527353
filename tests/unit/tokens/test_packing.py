import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.tokens import packing
from pipelines.tokens.packing import best_fit, cut_documents, one_after_another
from pipelines.tokens.runs import copy_runs
from pipelines.tokens.shards import firsts_of

LENGTHS = st.lists(st.one_of(st.integers(1, 40), st.sampled_from([32, 64, 16])), max_size=80)


@given(LENGTHS, st.integers(1, 20))
def test_documents_and_gaps_tile_the_places(lengths, window):
    packing.WINDOW, before = window, packing.WINDOW
    try:
        layout = best_fit(np.array(lengths, np.int64), 16)
    finally:
        packing.WINDOW = before
    spans = sorted([*zip(layout.firsts.tolist(), lengths, strict=True), *map(tuple, layout.gaps.tolist())])
    at = 0
    for first, length in spans:
        assert first == at and length > 0
        at += length
    assert at == layout.tokens and layout.tokens % 16 == 0
    assert all(length < 16 for _, length in layout.gaps.tolist())


@given(LENGTHS)
def test_only_documents_longer_than_a_row_are_cut_and_they_begin_one(lengths):
    lengths = np.array(lengths, np.int64)
    layout = best_fit(lengths, 16)
    assert cut_documents(layout.firsts, lengths, 16) == (lengths > 16).sum()
    assert (layout.firsts[lengths > 16] % 16 == 0).all()


def test_web_documents_are_packed_with_hardly_any_padding():
    lengths = np.random.default_rng(0).lognormal(6.3, 1.0, 4096 * 3).astype(np.int64) + 1
    layout, plain = best_fit(lengths, 4096), one_after_another(lengths)
    assert layout.gaps[:, 1].sum() < 0.005 * layout.tokens
    assert cut_documents(layout.firsts, lengths, 4096) < 0.25 * cut_documents(plain.firsts, lengths, 4096)


def test_the_longest_go_first_to_the_row_that_they_fill_best():
    layout = best_fit(np.array([10, 3, 12, 6, 4]), 16)
    assert layout.firsts.tolist() == [0, 16, 32, 10, 44] and layout.gaps.tolist() == [[19, 13]]


def test_a_run_outside_its_array_is_refused():
    a, at, n = np.arange(5), np.array([3]), np.array([3])
    with pytest.raises(ValueError, match="outside"):
        copy_runs(a, at, n, np.zeros(9, np.int64), np.array([0]))
    with pytest.raises(ValueError, match="outside"):
        copy_runs(a, np.array([0]), n, np.zeros(2, np.int64), np.array([0]))


def test_runs_go_to_their_places():
    target = np.zeros(6, np.int64)
    copy_runs(np.array([1, 2, 3, 4, 5, 6]), np.array([4, 0, 1]), np.array([2, 1, 3]), target, np.array([0, 5, 2]))
    assert target.tolist() == [5, 6, 2, 3, 4, 1]
    assert firsts_of(np.array([2, 1, 3])).tolist() == [0, 2, 3] and firsts_of(np.zeros(0, np.int64)).tolist() == []
