"""Megatron-Core's own reader on our shards; skipped where megatron-core (with torch) is not installed."""

import importlib.util
import sys

import numpy as np
import pytest

from pipelines.tokens.shards import read_documents
from tests.unit.tokens.test_shards import shard


def megatron_reader():
    if importlib.util.find_spec("megatron") is None or importlib.util.find_spec("torch") is None:
        pytest.skip("megatron-core and torch are not installed: `make setup-test` brings both")
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    return IndexedDataset


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["<u2", "<i4"])
def test_megatron_cores_own_reader_reads_a_shard(tmp_path, dtype):
    reader = megatron_reader()
    made = shard([3, 1, 5, 9000], dtype)
    for suffix, body in ((".bin", made.tokens), (".idx", made.index)):
        (tmp_path / f"shard{suffix}").write_bytes(body)
    found = reader(str(tmp_path / "shard"), mmap=True)
    ours = read_documents(made)
    assert len(found) == 4 and found.sequence_lengths.tolist() == [3, 1, 5, 9000]
    assert found.document_indices.tolist() == [0, 1, 2, 3, 4]
    for i, document in enumerate(ours):
        assert np.asarray(found[i]).tolist() == document.tolist()
    assert found.get(3, offset=100, length=5).tolist() == ours[3][100:105].tolist()
    assert "megatron.core.datasets.indexed_dataset" in sys.modules
