"""What stands where something was: rows keep their place, tokens their number."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipelines.errors import IntegrityError
from pipelines.takedown.tombstones import standing, void_tokens, with_tombstones
from pipelines.tokens.shards import build_shard, read_documents
from pipelines.tokens.tokenizer import EOS_ID, FILLER_ID, RESERVED

IDS = pa.array(["b", "d"])


def shard(dtype):
    lengths = np.array([3, 5, 1, 4])
    tokens = np.arange(RESERVED, RESERVED + 13).astype(dtype)
    tokens[np.cumsum(lengths) - 1] = EOS_ID
    return build_shard(tokens, lengths, pa.array(list("abcd")), pa.array(["p"] * 4), np.arange(4))


def test_a_tombstone_is_an_id_and_nothing_else_and_neighbours_stay():
    table = pa.table({"id": list("abcd"), "text": ["1", "2", None, "4"], "n": pa.array([1, 2, 3, 4], pa.int64())})
    made = with_tombstones(table, IDS)
    assert made["id"].to_pylist() == list("abcd")
    assert made["text"].to_pylist() == ["1", None, None, None] and made["n"].to_pylist() == [1, None, 3, None]
    assert standing(table, IDS).to_pylist() == [False, True, False, True]
    assert not any(standing(made, IDS).to_pylist())
    assert with_tombstones(made, IDS).equals(made)


@pytest.mark.parametrize("dtype", ["<u2", "<i4"])
def test_the_spans_become_filler_and_every_other_token_stays_where_it_was(dtype):
    before = shard(dtype)
    body, checksums, changed = void_tokens(before.tokens, before.docs, IDS, np.dtype(dtype), FILLER_ID)
    assert changed == 4 + 3 and len(body) == len(before.tokens)
    after = read_documents(type(before)(tokens=body, index=before.index, docs=before.docs, checksums=checksums))
    old = read_documents(before)
    assert after[0].tolist() == old[0].tolist() and after[2].tolist() == old[2].tolist()
    assert after[1].tolist() == [FILLER_ID] * 4 + [EOS_ID] and after[3].tolist() == [FILLER_ID] * 3 + [EOS_ID]
    assert void_tokens(body, before.docs, IDS, np.dtype(dtype), FILLER_ID)[2] == 0


def test_a_shard_that_is_too_short_is_refused():
    made = shard("<u2")
    with pytest.raises(IntegrityError):
        void_tokens(made.tokens[:-4], made.docs, IDS, np.dtype("<u2"), FILLER_ID)
