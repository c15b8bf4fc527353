import random
import time

import pytest

from jobs import score_quality
from jobs.runtime.cost import Request
from pipelines.errors import ConfigError
from tests.made_documents import commit_documents, join, prose
from tests.unit.jobs.test_quality_jobs import context, labels, train, train_quality


@pytest.mark.timeout(300)
def test_what_scoring_will_cost_is_told_from_a_sample(tmp_path):
    ctx = context()
    train_quality.run(train(labels(tmp_path / "pages.jsonl")), ctx)
    rng = random.Random(1)
    texts = [join(prose(rng, ("zh", "en")[i % 2], 400)) for i in range(100)]
    parts = {f"{n:02d}": [{"text": texts[rng.randrange(100)] * 3} for _ in range(150)] for n in range(12)}
    commit_documents(ctx, parts)
    config = score_quality.Config()
    plan = score_quality.plan(config, ctx, Request(fraction=0.2, cores=2))
    assert plan.figures["documents"].value == 1800 and plan.figures["units"].value == 12
    assert 3 <= plan.sample["parts"] < 12 and plan.figures["memory"].value > 1e7
    worker = score_quality.open_worker(
        score_quality.worker_settings(config, ctx.open("artifacts/quality_model")), ctx.store
    )
    begun = time.process_time()
    for unit in score_quality.part_units(ctx.open("documents").parts()):
        worker(unit)
    spent = time.process_time() - begun
    told = plan.figures["cpu"].value - plan.figures["start"].value
    assert 0.5 * spent < told < 2.0 * spent  # a loose bound: a unit test shares its machine
    assert not list(ctx.store.list("datasets/quality/"))


def test_a_job_without_a_cost_model_says_which_have_one():
    from jobs.runtime.cost import plan_job

    with pytest.raises(ConfigError, match="train_quality"):
        plan_job("train_quality", train_quality.Config(), context(), Request())
