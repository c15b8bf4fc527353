import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dedup.marks import are_marked, mark, pack


@given(st.sets(st.integers(0, 40)), st.lists(st.integers(0, 40)))
def test_marking_nodes_sets_their_bits_and_no_other(before, nodes):
    bits = np.frombuffer(pack(np.isin(np.arange(41), list(before))), np.uint8).copy()
    mark(bits, np.array(nodes, np.int64))
    assert set(np.flatnonzero(are_marked(bits, np.arange(41))).tolist()) == before | set(nodes)
