from __future__ import annotations

from itertools import pairwise

import numpy as np
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from training.data.rows import IGNORED, SpecialTokens, build_row, chain_digest, empty_row, sum_digests

SPECIAL = SpecialTokens(eos_id=2, pad_id=3, filler_id=4)
X = IGNORED


def test_labels_cross_neither_a_document_nor_a_span_and_positions_restart():
    row = build_row(9, [np.array([10, 11, 2, 12], np.uint16), np.array([13, 14], np.uint16)], SPECIAL)
    assert row.ids.tolist() == [10, 11, 2, 12, 13, 14]
    assert row.labels.tolist() == [11, 2, X, X, 14, X]
    assert row.positions.tolist() == [0, 1, 2, 0, 0, 1]
    assert row.documents.tolist() == [0, 0, 0, 1, 2, 2]
    assert row.trained_tokens == 3


def test_filler_and_pad_are_pad_without_label_and_move_nothing():
    row = build_row(0, [np.array([10, 4, 4, 11, 12, 3, 2], np.uint16)], SPECIAL)
    assert row.ids.tolist() == [10, 3, 3, 11, 12, 3, 2]
    assert row.labels.tolist() == [X, X, X, 12, X, X, X]
    assert row.positions.tolist() == [0, 1, 2, 3, 4, 5, 6]


@given(tokens=st.lists(st.integers(0, 20), min_size=2, max_size=60), draw=st.data())
def test_a_row_is_what_a_token_by_token_reading_gives(tokens, draw):
    cuts = sorted(draw.draw(st.sets(st.integers(1, len(tokens) - 1), max_size=4)))
    bounds = [0, *cuts, len(tokens)]
    runs = [np.array(tokens[a:b], np.uint16) for a, b in pairwise(bounds)]
    row = build_row(0, runs, SPECIAL)
    position, document = -1, -1
    for i, token in enumerate(tokens):
        starts = i in bounds or tokens[i - 1] == 2
        position, document = (0, document + 1) if starts else (position + 1, document)
        assert (row.positions[i], row.documents[i]) == (position, document)
        void = token in (3, 4)
        assert row.ids[i] == (3 if void else token)
        last = i + 1 == len(tokens) or i + 1 in bounds or token == 2
        label = X if last or void or tokens[i + 1] in (3, 4) else tokens[i + 1]
        assert row.labels[i] == label


def test_the_digest_is_of_position_ids_and_labels_in_stated_bytes():
    row = build_row(70_000, [np.array([10, 11], np.uint16)], SPECIAL)
    body = (
        (70_000).to_bytes(8, "little")
        + np.array([10, 11], "<i4").tobytes()
        + np.array([11, -100], "<i4").tobytes()
    )
    assert row.digest == xxhash.xxh3_64_intdigest(body)
    assert build_row(70_001, [np.array([10, 11], np.uint16)], SPECIAL).digest != row.digest
    assert (
        build_row(70_000, [np.array([10], np.uint16), np.array([11], np.uint16)], SPECIAL).digest
        != row.digest
    )


def test_digests_sum_in_any_order_and_the_chain_does_not():
    assert sum_digests([2**64 - 1, 5]) == sum_digests([5, 2**64 - 1]) == 4
    assert chain_digest(chain_digest(0, 0, 1), 1, 2) != chain_digest(chain_digest(0, 0, 2), 1, 1)


def test_an_empty_row_trains_nothing():
    assert empty_row(8, SPECIAL).trained_tokens == 0
