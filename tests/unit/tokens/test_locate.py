import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import tokenize_documents
from pipelines.datasets import open_dataset
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.schemas import DOCUMENTS
from pipelines.errors import InputError
from pipelines.tokens.locate import locate_token, parse_place
from pipelines.tokens.tokenizer import EOS_ID, Tokenizer
from tests.unit.jobs.test_tokenize_documents import config, corpus, prepared


@pytest.fixture(scope="module")
def made():
    ctx = prepared(corpus(count=60))
    tokenize_documents.run(config(shard_tokens=4000, pack_tokens=512), ctx)
    return ctx.store


def shards(store):
    dataset = open_dataset(store, "tokens")
    docs = {row["unit"]: row["key"] for row in dataset.parts("docs").to_pylist()}
    return [(row["key"], docs[row["unit"]]) for row in dataset.parts("shard").to_pylist()]


def test_every_token_leads_to_the_document_that_it_was_made_of(made):
    model = Tokenizer(open_dataset(made, "artifacts/tokenizer").read_file("tokenizer.model"))
    texts = {row["id"]: row for row in open_dataset(made, "corpus").to_arrow().to_pylist()}
    for key, _ in shards(made):
        tokens = np.frombuffer(made.get(key), "<u2")
        for token in (0, 1, len(tokens) // 2, len(tokens) - 1):
            found = locate_token(made, key, token)
            span = tokens[found["first_token"] : found["first_token"] + found["tokens"]]
            if found["id"] is None:
                assert not span.any()
                continue
            page = texts[found["id"]]
            assert span[-1] == EOS_ID and model.decode(span) == page["text"]
            assert (found["url"], found["file"], found["offset"]) == (page["url"], page["file"], page["offset"])
            assert found["first_token"] + found["offset_in_document"] == token


def test_padding_is_told_as_such(made):
    gaps = []
    for key, docs in shards(made):
        for row in read_parquet(made.get(docs)).to_pylist():
            gaps += [(key, row["first_token"])] if row["id"] is None else []
    assert gaps
    found = locate_token(made, *gaps[0])
    assert found["id"] is None and found["row"] == -1 and "url" not in found


def test_a_shard_is_named_by_key_file_or_stem(made):
    key = shards(made)[0][0]
    wanted = locate_token(made, key, 3)
    for name in (key.rpartition("/")[2], key.rpartition("/")[2].removesuffix(".bin")):
        assert locate_token(made, name, 3) == wanted


def test_no_text_and_no_token_is_read_for_it(made, monkeypatch):
    key, read, plain = shards(made)[0][0], [], made.get_ranges
    monkeypatch.setattr(made, "get_ranges", lambda k, ranges: read.extend((k, *r) for r in ranges) or plain(k, ranges))
    part = locate_token(made, key, 5)["part"]
    assert not [k for k, _, _ in read if k.endswith(".bin")]
    body = made.get(part)
    text = pq.ParquetFile(pa.BufferReader(body)).metadata.row_group(0).column(DOCUMENTS.get_field_index("text"))
    first = text.dictionary_page_offset or text.data_page_offset
    spans = [(start, end) for k, start, end in read if k == part]
    assert len(spans) > 1  # the first is the end of the file, with its footer
    assert all(end <= first or start >= first + text.total_compressed_size for start, end in spans[1:])


def test_no_such_shard_or_token_is_told(made):
    with pytest.raises(InputError, match="no token dataset"):
        locate_token(made, "0" * 32 + ".bin", 1)
    key = shards(made)[0][0]
    with pytest.raises(InputError, match="tokens, none is number"):
        locate_token(made, key, 10**9)


def test_only_shards_are_taken_for_a_place():
    stem = "0123456789abcdef" * 3
    assert parse_place(f"datasets/tokens/shards/{stem[:32]}-{stem[:16]}.bin:77")[1] == 77
    assert parse_place(f"{stem[:32]}-{stem[:16]}:0") == (f"{stem[:32]}-{stem[:16]}", 0)
    for text in ("http://host.example:8080", "host:80", stem[:32], f"{stem[:32]}:x", ""):
        assert parse_place(text) is None
    assert re.fullmatch("[0-9a-f]{32}", stem[:32])
