"""Scoring on Ray's actors: the content of one process, also where an actor is killed in the middle of its work."""

import json
import os
import random
import signal

import pytest

from jobs import score_quality, train_quality
from jobs.runtime import ray_map
from jobs.runtime.context import Context
from jobs.runtime.progress import LineProgress
from pipelines.datasets.store import open_store
from tests.made_documents import commit_documents, join, prose

pytestmark = pytest.mark.ray


def corpus():
    rng = random.Random(2)
    rows = [{"text": join(prose(rng, ("zh", "en")[i % 2], 60))} for i in range(60)]
    return {f"crawl-{file}": rows[file::12] for file in range(12)}


def labels(path):
    rng = random.Random(3)
    pages = [
        {
            "text": join(prose(rng, ("zh", "en")[i % 2], 30)) + (" buy now" * 9 if i % 4 > 1 else ""),
            "label": "bad" if i % 4 > 1 else "good",
            "language": ("zh", "en")[i % 2],
            "domain": f"site{i}.example",
        }
        for i in range(60)
    ]
    path.write_text("".join(json.dumps(page) + "\n" for page in pages), "utf-8")
    return str(path)


def test_a_killed_actor_loses_nothing_and_the_content_is_that_of_one_process(tmp_path, monkeypatch, capsys):
    killed = []
    wait = ray_map._Hands.wait

    def wait_and_kill(hands):
        for rows in wait(hands):
            if not killed:
                killed.append(next(iter(hands.pids.values())))
                os.kill(killed[0], signal.SIGKILL)
            yield rows

    monkeypatch.setattr(ray_map._Hands, "wait", wait_and_kill)
    examples = labels(tmp_path / "pages.jsonl")
    made = []
    for name, engine in (("alone", "process"), ("ray", "ray")):
        ctx = Context(store=open_store(tmp_path / name), engine=engine, parallelism=2, progress=LineProgress())
        try:
            commit_documents(ctx, corpus())
            train_quality.run(train_quality.Config(examples=examples, epochs=2, buckets=1024), ctx)
            (scored,) = score_quality.run(score_quality.Config(), ctx)
            made.append((scored.content_sum, scored.books, scored.stats))
        finally:
            ctx.close()
    assert made[0] == made[1]
    assert len(killed) == 1
    told = capsys.readouterr().err
    assert "actors at most, the largest of" in told and "documents/s" in told
