import numpy as np

from jobs import dedup_exchange
from jobs.dedup_exchange import Pile, Terms, _fold_bands
from pipelines.dedup.buckets import bucket_table, unpacked

TERMS = Terms(prefix="w", generation_starts=(), fresh_from=0, bucket_cap=10, apart=False)


def rows(first, count):
    node = first + np.arange(count)
    return np.column_stack([np.full(count, 7), node % 13, node % 3, node])


def test_a_target_holds_its_cap_and_not_its_bucket(monkeypatch):
    monkeypatch.setattr(dedup_exchange, "FOLD_BYTES", 4000)
    pile, whole, most = Pile(lambda blobs: _fold_bands(TERMS, blobs)), [], 0
    for first in range(0, 20_000, 50):
        whole.append(rows(first, 50).tobytes())
        pile.add(whole[-1])
        most = max(most, sum(map(len, pile.blobs)))
    assert most < 4000 + 50 * 32 and pile.brought == 20_000 * 32
    found, expected = (bucket_table(unpacked(blobs, 4), TERMS.starts, 0, 10) for blobs in (pile.blobs, whole))
    assert found[0].equals(expected[0]) and found[1].to_pydict() == {"digest": [7], "size": [20_000]}
