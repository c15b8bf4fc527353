"""The cost models of dedup_lines and dedup_substrings beside the runs that follow."""

from __future__ import annotations

import random
import uuid

import pytest

from jobs import dedup_documents, dedup_lines, dedup_substrings
from jobs.lines_plan import _growth, _kind
from jobs.runtime.context import Context
from jobs.runtime.cost import Request, plan_job
from pipelines.datasets.store import MemoryStore
from pipelines.errors import InputError
from tests.made_documents import commit_documents, join, prose


class Metered(MemoryStore):
    read = written = 0

    def get(self, key):
        body = super().get(key)
        self.read += len(body)
        return body

    def put(self, key, body, *, create_only=False):
        self.written += len(body)
        return super().put(key, body, create_only=create_only)


def context(store=None):
    return Context(store=store or Metered(f"memory://{uuid.uuid4().hex}"), engine="process")


def crawl(copies=300):
    rng = random.Random(2)
    shared = [join(prose(rng, "en", 60)) for _ in range(30)]
    texts = [join(prose(rng, ("zh", "en")[i % 2], 300)) + "\n" + rng.choice(shared) for i in range(1200)]
    texts += texts[:copies]
    rows = [{"text": text} for text in texts]
    return {f"crawl-{file}": rows[file::3] for file in range(3)}


@pytest.mark.parametrize(("job", "module"), [("dedup_lines", dedup_lines), ("dedup_substrings", dedup_substrings)])
def test_the_plan_tells_what_the_run_then_reads_writes_and_sketches(job, module):
    ctx = context()
    commit_documents(ctx, crawl())
    dedup_documents.run(dedup_documents.Config(), context(ctx.store))
    config = module.Config(**({"min_count": 20} if job == "dedup_lines" else {}))
    before = set(ctx.store.objects)
    plan = plan_job(job, config, context(ctx.store), Request(fraction=1.0, cores=2))
    assert set(ctx.store.objects) == before
    ctx.store.read = ctx.store.written = 0
    made = module.run(config, context(ctx.store))[-1]
    assert plan.figures["documents"].value == 1500 and plan.figures["units"].value == 3
    assert abs(plan.figures["read"].value / ctx.store.read - 1) < 0.25
    assert abs(plan.figures["written"].value / ctx.store.written - 1) < 0.25
    told = made.stats["counted"]["units"] if job == "dedup_lines" else made.stats["windows"]["anchors"]
    assert f"{told:,} digests" in plan.notes[0]
    assert plan.figures["sketch"].value >= 1 << 20 and plan.figures["cpu"].value > 4  # two workers start


def test_what_repeats_is_taken_to_grow_as_it_grew():
    assert _growth(0.1, 0.2, 2.0, 4.0) == pytest.approx(4.0)
    assert _growth(0.1, 0.2, 2.0, 100.0) == pytest.approx(5.0)  # more than all of them cannot repeat
    assert _growth(0.2, 0.2, 2.0, 4.0) == _growth(0.0, 0.1, 2.0, 4.0) == 1.0


def test_objects_are_told_apart_by_their_place():
    assert _kind("datasets/documents/parts/x.parquet") == "texts"
    assert _kind("datasets/lines/work/a/wide/b/counts-1/x.parquet") == "wide"
    assert _kind("datasets/lines/parts/x.parquet") == "other"


def test_without_documents_there_is_nothing_to_plan():
    ctx = context()
    commit_documents(ctx, {"a": []})
    with pytest.raises(InputError, match="no documents"):
        plan_job("dedup_lines", dedup_lines.Config(dedup=""), ctx, Request())
