"""Spark and one process give the same content; no text goes through the shuffle."""

import random

import pytest

from jobs.dedup_documents import Config, Lsh, run
from jobs.runtime.context import Context
from pipelines.datasets.store import open_store
from tests.made_documents import commit_documents, edited, join, prose

pytestmark = pytest.mark.spark


def crawl():
    rng = random.Random(1)
    rows = []
    for i in range(60):
        units = prose(rng, ("zh", "en")[i % 2])
        rows += [{"text": join(units)}, {"text": join(edited(rng, units, i % 12))}]
    rng.shuffle(rows)
    return {f"crawl-{file}": rows[file::6] for file in range(6)}


@pytest.fixture
def spark_context(tmp_path):
    ctx = Context(store=open_store(tmp_path / "spark"), engine="spark", spark_master="local[2,4]")
    yield ctx
    ctx.close()


def test_spark_gives_the_content_of_one_process(tmp_path, spark_context):
    alone = Context(store=open_store(tmp_path / "alone"), engine="process")
    config = Config(lsh=Lsh(num_bands=20), pairs_per_unit=10)
    for ctx in (alone, spark_context):
        commit_documents(ctx, crawl())
    expected = [manifest.content_sum for manifest in run(config, alone)]
    made = run(config, spark_context)
    assert [manifest.content_sum for manifest in made] == expected
    assert made[1].stats["pairs"] and made[1].stats["duplicates"] > 30
