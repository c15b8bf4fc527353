import uuid

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.datasets.parts import read_parquet
from pipelines.datasets.store import open_store
from pipelines.errors import IntegrityError
from pipelines.tokens import spill
from pipelines.tokens.encode import Encoded
from pipelines.tokens.shards import read_documents
from pipelines.tokens.spill import gather_shard, put_spill, read_range, spill_of
from pipelines.tokens.stored import StoredFile
from pipelines.tokens.tokenizer import PAD_ID


def encoded(lengths, empty=()):
    total = sum(lengths)
    rows = [i for i in range(len(lengths) + len(empty)) if i not in empty]
    return Encoded(
        tokens=np.arange(total).astype("<u2"),
        lengths=np.array(lengths, np.int64),
        rows=np.array(rows, np.int64),
        tokens_cut=np.zeros(len(lengths), np.int64),
    )


def stored(place, key, count, seed):
    rng = np.random.default_rng(seed)
    cells = [("en.web.q0", "zh.web.q0")[i] for i in rng.integers(0, 2, count)]
    hashes = rng.integers(0, 2**63, count).astype(np.uint64) * 2
    ids = pa.array([f"{seed}-{i}" for i in range(count)])
    made = spill_of(encoded([i % 7 + 1 for i in range(count)]), pa.array(cells).dictionary_encode(), hashes, ids)
    put_spill(place, key, made)
    return rows_of(made)


def rows_of(made):
    """Rows with the bytes of their tokens."""
    return [
        {**row, "tokens": made.tokens[row["first"] - start :][: row["tokens"]].tobytes()}
        for start in [made.rows["first"][0].as_py() if made.rows.num_rows else 0]
        for row in made.rows.to_pylist()
    ]


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(1, 9)), max_size=10))
def test_a_spill_holds_each_documents_own_tokens(lengths):
    empty = {i for i, length in enumerate(lengths) if length is None}
    made = encoded([length for length in lengths if length], empty)
    count = len(lengths)
    hashes = np.arange(count, dtype=np.uint64)[::-1].copy()
    cells = pa.array(["c"] * count, pa.string()).dictionary_encode()
    spilled = spill_of(made, cells, hashes, pa.array([str(i) for i in range(count)], pa.string()))
    starts = dict(zip(made.rows.tolist(), np.cumsum(made.lengths) - made.lengths, strict=True))
    table = spilled.rows
    for row in rows_of(spilled):
        tokens = np.frombuffer(row["tokens"], "<u2")
        assert tokens[0] == starts[row["row"]] and row["id"] == str(row["row"])
    assert table["hash"].to_pylist() == sorted(table["hash"].to_pylist())
    assert table["row"].to_pylist() == made.rows.tolist()[::-1]


def test_a_range_is_read_whole_and_reads_only_its_row_groups(monkeypatch):
    monkeypatch.setattr(spill, "_GROUP_ROWS", 64)
    place = open_store(f"memory://{uuid.uuid4().hex}")
    table = stored(place, "k", 8000, 1)
    size = sum(place.head(f"k.{name}").size_bytes for name in ("rows.parquet", "tokens"))
    read = []
    plain = place.get_ranges
    monkeypatch.setattr(place, "get_ranges", lambda key, ranges: read.extend(ranges) or plain(key, ranges))
    for first, last in ((0, 2**64 - 1), (2**62, 2**62 + 2**57), (5, 5)):
        for cell in ("en.web.q0", "zh.web.q0", "de.web.q0"):
            read.clear()
            found = read_range(place, "k", cell, first, last, np.dtype("<u2"))
            expected = [r for r in table if r["cell"] == cell and first <= r["hash"] <= last]
            assert rows_of(found) == expected
            if last < 2**63:
                assert sum(end - start for start, end in read) < 0.5 * size


def test_shards_of_all_ranges_hold_every_document_once_in_order():
    place = open_store(f"memory://{uuid.uuid4().hex}")
    tables = [stored(place, f"k{i}", 300, i) for i in range(3)]
    spills = [(f"k{i}", f"part{i}") for i in range(3)]
    for cell in ("en.web.q0", "zh.web.q0"):
        seen = []
        for first, last in ((0, 2**62 - 1), (2**62, 2**64 - 1)):
            found = gather_shard(place, iter(spills), cell, first, last, np.dtype("<u2"))
            docs = read_parquet(found.shard.docs)
            assert docs["id"].to_pylist() == found.ids.to_pylist() and found.padding == 0
            documents = [d.tobytes() for d in read_documents(found.shard)]
            columns = (docs[name].to_pylist() for name in ("id", "part", "row"))
            seen += zip(*columns, documents, strict=True)
        rows = [(r["hash"], r["id"], f"part{i}", r["row"], r["tokens"]) for i, t in enumerate(tables)
                for r in t if r["cell"] == cell]  # fmt: skip
        expected = [row[1:] for row in sorted(rows)]
        assert seen == expected
    assert gather_shard(place, iter(spills), "de.web.q0", 0, 2**64 - 1, np.dtype("<u2")) is None


def test_a_flipped_bit_of_the_tokens_is_found():
    place = open_store(f"memory://{uuid.uuid4().hex}")
    stored(place, "k", 20_000, 3)
    body = bytearray(place.get("k.tokens"))
    body[-5] ^= 4
    place.put("k.tokens", bytes(body))
    whole = (0, 2**64 - 1, np.dtype("<u2"))
    assert not is_damaged(place, "en.web.q0", whole) and is_damaged(place, "zh.web.q0", whole)


def is_damaged(place, cell, bounds):
    try:
        read_range(place, "k", cell, *bounds)
    except IntegrityError:
        return True
    return False


def test_a_stored_object_reads_as_a_file():
    place = open_store(f"memory://{uuid.uuid4().hex}")
    place.put("k", b"0123456789")
    file = StoredFile(place, "k")
    assert (file.read(3), file.tell(), file.read()) == (b"012", 3, b"3456789")
    assert file.seek(-2, 2) == 8 and file.read(10) == b"89" and file.read(1) == b""


def test_a_packed_shard_holds_the_same_documents_and_its_gaps_have_no_id():
    place = open_store(f"memory://{uuid.uuid4().hex}")
    tables = [stored(place, f"k{i}", 300, i) for i in range(2)]
    spills = [("k0", "part0"), ("k1", "part1")]
    found = gather_shard(place, iter(spills), "en.web.q0", 0, 2**64 - 1, np.dtype("<u2"), row_tokens=16)
    docs, documents = read_parquet(found.shard.docs).to_pylist(), read_documents(found.shard)
    texts = {r["id"]: r["tokens"] for t in tables for r in t if r["cell"] == "en.web.q0"}
    assert {doc["id"]: tokens.tobytes() for doc, tokens in zip(docs, documents, strict=True) if doc["id"]} == texts
    gaps = [(doc, tokens) for doc, tokens in zip(docs, documents, strict=True) if doc["id"] is None]
    assert gaps and all((tokens == PAD_ID).all() and doc["row"] == -1 for doc, tokens in gaps)
    assert sum(len(tokens) for _, tokens in gaps) == found.padding and found.cut == 0 < found.cut_unpacked
    assert (found.tokens + found.padding) % 16 == 0
    assert len(found.shard.tokens) == 2 * (found.tokens + found.padding)
