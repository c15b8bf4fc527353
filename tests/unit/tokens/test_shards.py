import io
import re
import struct

import crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import IntegrityError
from pipelines.tokens.shards import (
    PAGE_BYTES,
    build_shard,
    damaged_pages,
    page_checksums,
    page_range,
    read_documents,
    read_index,
)


def shard(lengths, dtype="<u2"):
    lengths = np.array(lengths, np.int64)
    tokens = np.arange(lengths.sum()).astype(dtype)
    names = pa.array([f"{i:032x}" for i in range(len(lengths))])
    parts = pa.array(["datasets/corpus/parts/x.parquet"] * len(lengths))
    return build_shard(tokens, lengths, names, parts, np.arange(len(lengths)))


def test_crc32c_gives_the_check_value_of_its_definition():
    assert crc32c.crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize(("dtype", "code", "itemsize"), [("<u2", 8, 2), ("<i4", 4, 4)])
def test_the_index_is_laid_out_as_megatron_core_reads_it(dtype, code, itemsize):
    """Read by the layout alone, as `_IndexReader` of megatron/core/datasets/indexed_dataset.py does."""
    stream = io.BytesIO(shard([3, 1, 5], dtype).index)
    assert stream.read(9) == b"MMIDIDX\x00\x00"
    assert struct.unpack("<Q", stream.read(8)) == (1,)
    assert struct.unpack("<B", stream.read(1)) == (code,)
    sequences, documents = struct.unpack("<QQ", stream.read(16))
    assert (sequences, documents) == (3, 4)
    assert struct.unpack("<3i", stream.read(12)) == (3, 1, 5)
    assert struct.unpack("<3q", stream.read(24)) == (0, 3 * itemsize, 4 * itemsize)
    assert struct.unpack("<4q", stream.read(32)) == (0, 1, 2, 3)
    assert stream.read() == b""


@settings(deadline=None)
@given(st.lists(st.integers(1, 9000), max_size=12), st.sampled_from(["<u2", "<i4"]))
def test_what_is_written_is_read_back(lengths, dtype):
    made = shard(lengths, dtype)
    documents = read_documents(made)
    assert [len(document) for document in documents] == lengths
    joined = np.concatenate([np.zeros(0, dtype), *documents])
    assert (joined == np.arange(sum(lengths)).astype(dtype)).all()
    assert len(made.checksums) == 4 * -(-len(made.tokens) // PAGE_BYTES)


def test_docs_lead_back_to_the_part_and_row():
    docs = pq.read_table(io.BytesIO(shard([3, 1, 5]).docs)).to_pylist()
    assert docs[2] == {
        "document": 2,
        "id": f"{2:032x}",
        "part": "datasets/corpus/parts/x.parquet",
        "row": 2,
        "first_token": 4,
        "tokens": 5,
    }


def test_one_flipped_bit_is_found_in_its_page():
    made = shard([40_000])
    body = bytearray(made.tokens)
    body[2 * PAGE_BYTES + 77] ^= 1
    assert damaged_pages(bytes(body), 0, made.checksums) == [2]
    assert damaged_pages(bytes(body[PAGE_BYTES : 3 * PAGE_BYTES]), 1, made.checksums) == [2]
    assert damaged_pages(made.tokens[4 * PAGE_BYTES :], 4, made.checksums) == []


def test_a_cut_or_grown_shard_is_found():
    made = shard([40_000])
    assert damaged_pages(made.tokens[:-1], 0, made.checksums) == [4]
    assert damaged_pages(made.tokens + bytes(PAGE_BYTES), 0, made.checksums) == [4, 5]


def test_pages_that_hold_a_range_of_tokens():
    assert page_range(0, 8192, 2) == (0, 1)
    assert page_range(8191, 2, 2) == (0, 2)
    assert page_range(8192, 4096, 4) == (2, 3)


def test_an_empty_body_has_no_pages():
    assert page_checksums(b"") == b""


@pytest.mark.parametrize("spoil", [lambda b: b"X" + b[1:], lambda b: b[:-1], lambda b: b[:17] + b"\x07" + b[18:]])
def test_an_index_that_is_not_one_is_refused(spoil):
    with pytest.raises(IntegrityError):
        read_index(spoil(shard([3, 1]).index))


def test_lengths_that_do_not_add_up_are_refused():
    with pytest.raises(IntegrityError):
        build_shard(np.zeros(3, "<u2"), np.array([1]), pa.array(["a"]), pa.array(["p"]), np.array([0]))


@pytest.mark.parametrize("dtype", ["<u2", "<i4"])
def test_the_reader_in_the_documentation_reads_a_shard(tmp_path, checkout, dtype):
    code = re.search(r"```python\n(.*?)```", (checkout / "docs" / "token-shards.md").read_text("utf-8"), re.DOTALL)[1]
    assert len([line for line in code.split("\n") if line and not line.startswith("import")]) <= 10
    made = shard([3, 1, 5, 9000], dtype)
    for suffix, body in ((".bin", made.tokens), (".idx", made.index), (".docs.parquet", made.docs)):
        (tmp_path / f"shard{suffix}").write_bytes(body)
    names = {}
    exec(code, names)
    found = [(name, tokens.tolist()) for name, tokens in names["documents"](str(tmp_path / "shard"))]
    ids = pq.read_table(tmp_path / "shard.docs.parquet")["id"].to_pylist()
    assert found == [(name, tokens.tolist()) for name, tokens in zip(ids, read_documents(made), strict=True)]
