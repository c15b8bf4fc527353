from __future__ import annotations

import re
import threading
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from pipelines.datasets.store import MemoryStore, open_store
from pipelines.errors import InputError, IntegrityError
from tests.unit.training.token_shards import EOS, documents_of, write_tokens
from training.data.plan import DatasetPin, Plan, single_segment_plan
from training.data.rows import IGNORED, sum_digests
from training.data.stream import RowSource, RowStream


def plan_for(manifest, *, steps: int = 12, rows_per_batch: int = 5, sequence_length: int = 48, seed: int = 3) -> Plan:
    return single_segment_plan(
        seed=seed,
        dataset=DatasetPin(name=manifest.name, version=manifest.version, manifest_sha256=manifest.sha256),
        weights={"en.web": 3, "zh.web": 2},
        sequence_length=sequence_length,
        rows_per_batch=rows_per_batch,
        steps=steps,
    )


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def cells() -> dict[str, list[list[int]]]:
    # Shards of several pages (8,192 tokens each) and of one short page.
    def tokens(seed: int, documents: int) -> list[int]:
        return documents_of(seed, documents=documents, vocab_size=500)

    return {"en.web": [tokens(1, 500), tokens(2, 20)], "zh.web": [tokens(3, 300)]}


class CountingStore(MemoryStore):
    """Counts ranged GETs and how many are in flight; spoils chosen bytes for a number of reads."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.reads: Counter[str] = Counter()
        self.bytes_read = 0
        self.spoil: dict[str, tuple[int, int]] = {}  # key -> (offset, reads that are spoilt)
        self.in_flight = self.most_in_flight = 0
        self._mutex = threading.Lock()

    def get_ranges(self, key, ranges):
        with self._mutex:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self.reads[key] += 1
        time.sleep(0.002)
        bodies = super().get_ranges(key, ranges)
        offset, left = self.spoil.get(key, (0, 0))
        if left:
            self.spoil[key] = (offset, left - 1)
            bodies = [
                body[: offset - start] + b"\xff" + body[offset - start + 1 :] if start <= offset < end else body
                for (start, end), body in zip(ranges, bodies, strict=True)
            ]
        with self._mutex:
            self.in_flight -= 1
            self.bytes_read += sum(map(len, bodies))
        return bodies


def test_rows_hold_exactly_the_tokens_of_their_spans(store, cells):
    manifest = write_tokens(store, cells, vocab_size=500)
    source = RowSource(store, plan_for(manifest, steps=30))
    for position in range(0, 150, 7):
        row, where = source.row(position), source.order.row(position)
        expected = [t for s in where.spans for t in cells[s.cell][s.shard][s.first : s.first + s.tokens]]
        assert row.ids.tolist() == expected
        ends = [i for i, token in enumerate(expected) if token == EOS]
        assert all(row.labels[i] == IGNORED for i in ends)


def test_a_lap_through_the_stream_is_every_token_once(store):
    cells = {"en.web": [list(range(8, 208)), list(range(208, 331))], "zh.web": [list(range(400, 461))]}
    manifest = write_tokens(store, cells, vocab_size=500)
    source = RowSource(store, plan_for(manifest, steps=40, sequence_length=10))
    stream = [t for p in range(200) for t in source.row(p).ids.tolist()]
    for name, shards in cells.items():
        everything = sorted(t for shard in shards for t in shard)
        mine = [t for t in stream if everything[0] <= t <= everything[-1]]
        assert sorted(mine[: len(everything)]) == everything, name


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_any_world_size_and_any_start_give_the_same_rows_and_digest(store, cells, world_size):
    manifest = write_tokens(store, cells, vocab_size=500)
    source = RowSource(store, plan_for(manifest))
    whole = [[source.row(int(p)).digest for p in source.batches.batch(s).positions] for s in range(12)]
    start = 4
    parts = []
    for rank in range(world_size):
        with RowStream(source, rank=rank, world_size=world_size, start_step=start, rows_ahead=3) as stream:
            parts.append(list(stream))
    for i, step in enumerate(range(start, 12)):
        assert [row.digest for part in parts for row in part[i].rows] == whole[step]
        assert sum_digests([part[i].digest for part in parts]) == sum_digests(whole[step])


def test_reads_are_whole_pages_bounded_ahead_and_many_in_flight(store, cells):
    manifest = write_tokens(store, cells, vocab_size=500)
    counting = CountingStore(store.location)
    source = RowSource(counting, plan_for(manifest, steps=200), cache_bytes=1 << 20)
    counting.reads.clear()
    with RowStream(source, rank=0, world_size=1, rows_ahead=10, readers=2) as stream:
        steps = iter(stream)
        next(steps)
        assert sum(counting.reads.values()) <= 3 * 15, "more rows were read than rows_ahead allows"
        list(steps)
    size = sum(info.size_bytes for info in store.list("datasets/tokens/shards/"))
    # Everything fits the page cache, so pages are fetched about once (two threads may race for one).
    assert counting.bytes_read < 2 * size
    assert counting.most_in_flight > 1


def test_a_page_that_is_corrupt_for_a_moment_is_read_again(store, cells):
    manifest = write_tokens(store, cells, vocab_size=500)
    whole = RowSource(store, plan_for(manifest))
    counting = CountingStore(store.location)
    source = RowSource(counting, plan_for(manifest))
    span = source.order.row(0).spans[0]
    shard = source.shards.shards(source.plan.segments[0].datasets[0], span.cell)[span.shard]
    counting.spoil[shard.key] = (2 * span.first, 3)
    assert np.array_equal(source.row(0).ids, whole.row(0).ids)
    assert counting.spoil[shard.key][1] == 0


def test_a_page_that_stays_corrupt_is_masked_in_its_rows_told_and_moves_no_other_row(store, cells):
    manifest = write_tokens(store, cells, vocab_size=500)
    plan = plan_for(manifest)
    whole = RowSource(store, plan)
    before = [whole.row(p) for p in range(60)]
    span = whole.order.row(0).spans[0]
    shard = whole.shards.shards(plan.segments[0].datasets[0], span.cell)[span.shard]
    at = 2 * span.first
    body = store.get(shard.key)
    store.put(shard.key, body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :])
    page = at // 16384
    source = RowSource(store, plan)
    with RowStream(source, rank=0, world_size=1) as stream:
        rows = [row for step in stream for row in step.rows]
    masked = 0
    for position, (row, old) in enumerate(zip(rows, before, strict=True)):
        where = source.order.row(position).spans
        tokens = [(s.cell, s.shard, s.first + i) for s in where for i in range(s.tokens)]
        spoilt = np.array([c == span.cell and n == span.shard and t * 2 // 16384 == page for c, n, t in tokens])
        assert np.array_equal(row.ids, np.where(spoilt, 3, old.ids)), "no other token moves, and none is wrong"
        assert (row.labels[spoilt] == IGNORED).all()
        if spoilt.any():
            [void] = row.voids
            assert (void.position, void.shard, void.page) == (position, shard.key, page)
            assert void.tokens == spoilt.sum()
            assert re.search("crc32c .* 4 reads", void.evidence)
            masked += 1
        else:
            assert row.voids == ()
            assert row.digest == old.digest
    assert masked


def test_a_shortened_shard_gives_no_wrong_token_and_a_wrong_page_table_is_an_error(store, cells):
    manifest = write_tokens(store, cells, vocab_size=500)
    source = RowSource(store, plan_for(manifest))
    pin = source.plan.segments[0].datasets[0]
    span = source.order.row(0).spans[0]
    shard = source.shards.shards(pin, span.cell)[span.shard]
    body = store.get(shard.key)
    store.put(shard.key, body[: 2 * span.first])
    row = source.row(0)
    assert set(row.ids[: span.tokens].tolist()) == {3}
    assert row.voids[0].shard == shard.key
    store.put(shard.crc_key, store.get(shard.crc_key)[:-1] + b"\0")
    with pytest.raises(IntegrityError, match="differs from its sha256"):
        RowSource(store, source.plan).row(0)


def test_a_plan_pins_its_manifest_and_reads_only_tokens(store, cells):
    manifest = write_tokens(store, cells, vocab_size=500)
    plan = plan_for(manifest)
    other = MemoryStore()
    write_tokens(other, {**cells, "en.web": [cells["en.web"][0][::-1], cells["en.web"][1]]}, vocab_size=500)
    with pytest.raises(IntegrityError, match="the plan pins"):
        RowSource(other, plan)
    absent = single_segment_plan(
        seed=1,
        dataset=plan.segments[0].datasets[0],
        weights={"fr.web": 1},
        sequence_length=8,
        rows_per_batch=1,
        steps=1,
    )
    with pytest.raises(InputError, match=r"no cell 'fr\.web'"):
        RowSource(store, absent)


def test_wide_token_ids_are_read_as_int32(store):
    cells = {"en.web": [[70_000 + i for i in range(9000)]], "zh.web": [[90_000] * 100]}
    manifest = write_tokens(store, cells, vocab_size=100_000, dtype="int32")
    source = RowSource(store, plan_for(manifest))
    assert set(source.row(0).ids.tolist()) <= set(range(70_000, 79_000)) | {90_000}


@pytest.mark.s3
def test_rows_from_a_real_s3_server_equal_those_from_memory(s3_prefix, store, cells):
    remote = open_store(s3_prefix)
    plans = [plan_for(write_tokens(where, cells, vocab_size=500)) for where in (store, remote)]
    assert plans[0] == plans[1]
    local = RowSource(store, plans[0])
    with RowStream(RowSource(remote, plans[1]), rank=0, world_size=1) as stream:
        digests = [row.digest for step in stream for row in step.rows]
    assert digests == [local.row(int(p)).digest for s in range(12) for p in local.batches.batch(s).positions]


def test_an_appended_version_goes_on_in_mid_lap_and_moves_no_earlier_row(store):
    one = {"en.web": [list(range(8, 208)), list(range(208, 331))], "zh.web": [list(range(400, 461))]}
    two = {"en.web": [*one["en.web"], list(range(600, 777))], "zh.web": [*one["zh.web"], list(range(800, 870))]}
    first = write_tokens(store, one, vocab_size=1000)
    before = plan_for(first, steps=5, rows_per_batch=5, sequence_length=10)
    second = write_tokens(store, two, vocab_size=1000)
    cursors = RowSource(store, before).order.cursors
    assert cursors == {"en.web": (0, 150), "zh.web": (1, 39)}
    [segment] = before.segments
    later = replace(
        segment,
        from_position=25,
        datasets=(replace(segment.datasets[0], version=2, manifest_sha256=second.sha256),),
        cells=tuple(replace(c, lap=cursors[c.name][0], used=cursors[c.name][1]) for c in segment.cells),
    )
    plan = replace(before, segments=(segment, later), end_position=145)
    source, alone = RowSource(store, plan), RowSource(store, before)
    for position in range(25):
        assert source.row(position).digest == alone.row(position).digest
    seen = [t for p in range(145) for t in source.row(p).ids.tolist() if 8 <= t < 331 or 600 <= t < 777]
    everything = sorted([*range(8, 331), *range(600, 777)])
    assert sorted(seen[:500]) == everything, "the lap that grew holds old and new tokens once"
    assert len(set(seen[500:])) == len(seen[500:])
    wrong = replace(plan, segments=(segment, replace(later, cells=segment.cells)))
    with pytest.raises(IntegrityError, match="lead to lap"):
        RowSource(store, wrong)
