"""Deduplication and token shards on a real S3 server: the content of a folder."""

import random

import pytest

from jobs import dedup_documents, tokenize_documents, train_tokenizer
from jobs.runtime.context import Context
from pipelines.datasets.store import open_store
from tests.made_documents import commit_documents, edited, join, prose

pytestmark = pytest.mark.s3


def crawl():
    rng = random.Random(4)
    rows = []
    for i in range(30):
        units = prose(rng, ("zh", "en")[i % 2], 60)
        rows += [{"text": join(units)}, {"text": join(edited(rng, units, i % 4))}]
    return {f"crawl-{file}": rows[file::3] for file in range(3)}


def test_s3_gives_the_content_of_a_folder(tmp_path, s3_prefix):
    sums = []
    for root in (tmp_path / "folder", s3_prefix):
        ctx = Context(store=open_store(root), engine="process")
        commit_documents(ctx, crawl())
        marked = dedup_documents.run(dedup_documents.Config(), ctx)[1]
        train_tokenizer.run(train_tokenizer.Config(corpus="documents", vocab_size=1600, character_coverage=1.0), ctx)
        (made,) = tokenize_documents.run(
            tokenize_documents.Config(corpus="documents", quality="", shard_tokens=2000), ctx
        )
        assert not [o.key for o in ctx.store.list("datasets/") if "/wide/" in o.key or "/spill" in o.key]
        sums.append((marked.content_sum, made.content_sum, made.books))
    assert sums[0] == sums[1]
