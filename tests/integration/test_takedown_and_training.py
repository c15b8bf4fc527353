"""The steps of a real training run that saw a page, told by arithmetic, are those whose batches hold its tokens."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("deepspeed")

from jobs import tokenize_documents, train_tokenizer
from jobs.runtime.context import Context
from jobs.takedown_documents import apply, request
from jobs.takedown_purge import purge
from jobs.takedown_runs import runs_that_saw
from pipelines.datasets import open_dataset
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.store import open_store
from pipelines.takedown.requests import targets
from tests.made_documents import commit_documents, join, prose
from tests.unit.training.ranks import run_ranks
from tests.unit.training.training_tasks import ENGINE, MODEL, SETTINGS, train_runs
from training.data.batches import BatchPlan
from training.data.order import Order
from training.data.plan import DatasetPin, single_segment_plan
from training.data.shards import TokenShards
from training.loop import recipe_of
from training.run_log import RunLog
from training.schedule import Schedule

pytestmark = pytest.mark.torch


def make(ctx):
    rng = random.Random(3)
    rows = [{"text": join(prose(rng, ("zh", "en")[i % 2], 60))} for i in range(40)]
    commit_documents(ctx, {f"crawl-{file}": rows[file::2] for file in range(2)})
    train_tokenizer.run(train_tokenizer.Config(corpus="documents", vocab_size=1600, character_coverage=0.98), ctx)
    config = tokenize_documents.Config(corpus="documents", quality="", shard_tokens=1500)
    return tokenize_documents.run(config, ctx)[0]


def steps_that_hold(store, plan, ids, steps):
    """By the batches that the loader makes: all rows of all steps, span by span."""
    pins = plan.segments[0].datasets
    shards = TokenShards.open(store, pins)
    order, batches = Order(plan, shards), BatchPlan(plan)
    held = {}
    for row in open_dataset(store, pins[0].name, pins[0].version).parts("docs").to_pylist():
        (number,) = [n for n, s in enumerate(shards.datasets[pins[0]].cells[row["cell"]]) if s.unit == row["unit"]]
        for doc in read_parquet(store.get(row["key"]), ["id", "first_token", "tokens"]).to_pylist():
            if doc["id"] in ids:
                held.setdefault((row["cell"], number), []).append((doc["first_token"], doc["tokens"]))
    found = []
    for step in range(steps):
        spans = [span for at in batches.batch(step).positions for span in order.row(int(at)).spans]
        found += [step] * any(
            first < span.first + span.tokens and span.first < first + count
            for span in spans
            for first, count in held.get((span.cell, span.shard), ())
        )
    return found


def test_the_run_and_the_steps_that_saw_the_page_are_told(tmp_path):
    root = str(tmp_path / "root")
    store = open_store(root)
    ctx = Context(store=store, engine="process")
    tokens = make(ctx)
    pin = DatasetPin(name=tokens.name, version=tokens.version, manifest_sha256=tokens.sha256)
    cells = {row["cell"]: 1.0 for row in open_dataset(store, tokens.name).parts("shard").to_pylist()}
    plan = single_segment_plan(
        seed=5, dataset=pin, weights=cells, sequence_length=24, rows_per_batch=7, steps=14, skips=[(9, 12), (40, 50)]
    )
    vocabulary = tokens.stats["tokenizer"]["vocab_size"]
    recipe = recipe_of(replace(MODEL, vocab_size=vocabulary), Schedule(), ENGINE, seed=5)
    RunLog(store, "tiny").write_plan(plan, recipe)
    run_ranks(train_runs, 1, [(root, "tiny", SETTINGS, 12)])  # dies after step 12; the last checkpoint is at step 10
    trained = RunLog(store, "tiny").state.checkpoint["step"]
    assert trained == 10

    documents = open_dataset(store, "documents").to_arrow(["id", "url"]).to_pylist()
    pages, seen = random.Random(1).sample(documents, 2), []
    for count in (1, 2):
        request(ctx, targets("url", [page["url"] for page in pages[:count]], source="f"), "")
        apply(ctx)
        (told,) = runs_that_saw(store)
        expected = steps_that_hold(store, plan, {page["id"] for page in pages[:count]}, trained)
        assert told["run"] == "tiny" and told["documents"] == count
        assert told["all_steps"] == expected and told["steps"] == len(expected)
        assert (told["first_step"], told["last_step"]) == (expected[0], expected[-1])
        seen.append(expected)
    assert 1 < len(seen[1]) < trained and set(seen[0]) < set(seen[1])  # neither none nor all
    assert purge(ctx).runs == ["tiny"]
