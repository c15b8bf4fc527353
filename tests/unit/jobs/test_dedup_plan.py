from jobs.dedup_documents import Config, Lsh, run
from jobs.runtime.cost import Request, plan_job
from pipelines.datasets import open_dataset
from tests.made_documents import commit_documents
from tests.unit.jobs.test_dedup_documents import context, crawl


def test_the_plan_tells_what_then_goes_through_the_shuffle_and_is_written():
    ctx = context()
    commit_documents(ctx, crawl(count=60))
    before = {stored.key for stored in ctx.store.list("")}
    plan = plan_job("dedup_documents", Config(), ctx, Request(fraction=1.0, cores=2))
    assert {stored.key for stored in ctx.store.list("")} == before
    _, marked, _ = run(Config(), ctx)
    assert abs(plan.figures["shuffle"].value / marked.stats["pairs"]["shuffle_bytes"] - 1) < 0.05
    written = sum(
        part["bytes"] for name in ("signatures", "dedup", "dedup_pairs")
        for part in open_dataset(ctx.store, name).parts().to_pylist()
    )  # fmt: skip
    assert abs(plan.figures["output"].value / written - 1) < 0.5  # many small parts against one
    rows = open_dataset(ctx.store, "documents").parts()["rows"].to_pylist()
    assert plan.figures["documents"].value == sum(rows)
    assert "0.7 85.0%" in plan.notes[0]


def test_the_curve_is_that_of_the_settings():
    ctx = context()
    commit_documents(ctx, crawl(count=8))
    plan = plan_job("dedup_documents", Config(lsh=Lsh(num_bands=14)), ctx, Request())
    assert "14 bands of 8" in plan.notes[0] and "0.7 56.5%" in plan.notes[0]
