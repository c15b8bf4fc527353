"""Spark and one process mark the same lines and substrings; tasks know the store by its location."""

from __future__ import annotations

import random

import pytest

from jobs import dedup_lines, dedup_substrings
from jobs.runtime.context import Context
from pipelines.datasets.store import open_store
from tests.made_documents import commit_documents, join, prose

pytestmark = pytest.mark.spark

NOTICE = "Notice: all of this is reprinted by the kind permission of its owner."


def crawl():
    rng = random.Random(1)
    shared = [join(prose(rng, "en", 60)) for _ in range(4)]
    rows = []
    for i in range(60):
        own = join(prose(rng, ("zh", "en")[i % 2]))
        rows.append({"text": f"{own}\n{shared[i % 4] if i % 3 else ''}\n{NOTICE if i % 2 else own[:70]}"})
    return {f"crawl-{file}": rows[file::6] for file in range(6)}


@pytest.fixture
def spark_context(tmp_path):
    ctx = Context(store=open_store(tmp_path / "spark"), engine="spark", spark_master="local[2,4]")
    yield ctx
    ctx.close()


def test_spark_gives_the_content_of_one_process(tmp_path, spark_context):
    alone = Context(store=open_store(tmp_path / "alone"), engine="process")
    sums = []
    for ctx in (alone, spark_context):
        commit_documents(ctx, crawl())
        lines = dedup_lines.run(dedup_lines.Config(dedup="", min_count=20, bytes_per_step=1), ctx)
        settings = {"dedup": "", "bytes_per_step": 1, "windows_per_partition": 50}
        substrings = dedup_substrings.run(dedup_substrings.Config(**settings), ctx)
        assert lines[1].stats["changed"] == 29 and substrings[0].stats["changed"] > 30
        assert substrings[0].stats["windows"]["partitions"] > 1
        sums.append([manifest.content_sum for manifest in (*lines, *substrings)])
    assert sums[0] == sums[1]
