"""Ray's actors and one process give the same scores and the same token shards."""

import os
import random
import signal
from pathlib import Path

import pytest

from jobs import score_quality, tokenize_documents, train_quality, train_tokenizer
from jobs.runtime.context import Context
from pipelines.datasets.store import open_store
from tests.made_documents import commit_documents, join, prose

pytestmark = pytest.mark.ray


def corpus():
    rng = random.Random(2)
    rows = [{"text": join(prose(rng, ("zh", "en")[i % 2], 60))} for i in range(40)]
    return {f"crawl-{file}": rows[file::4] for file in range(4)}


def labels(path):
    import json

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


@pytest.fixture
def ray_context(tmp_path):
    ctx = Context(store=open_store(tmp_path / "ray"), engine="ray", parallelism=2)
    yield ctx
    ctx.close()


def test_ray_gives_the_content_of_one_process(tmp_path, ray_context):
    examples = labels(tmp_path / "pages.jsonl")
    alone = Context(store=open_store(tmp_path / "alone"), engine="process")
    sums = []
    for ctx in (alone, ray_context):
        commit_documents(ctx, corpus(), "corpus")
        train_tokenizer.run(train_tokenizer.Config(vocab_size=1600, character_coverage=1.0), ctx)
        train_quality.run(train_quality.Config(examples=examples, epochs=2, buckets=1024), ctx)
        (scored,) = score_quality.run(score_quality.Config(documents="corpus"), ctx)
        (made,) = tokenize_documents.run(tokenize_documents.Config(shard_tokens=2000), ctx)
        sums.append((scored.content_sum, made.content_sum, made.stats["cells"], made.books))
    assert sums[0] == sums[1]
    assert sum(cell["shards"] for cell in sums[0][2].values()) > 2


def actors():
    """Process ids of this machine's unit actors."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if b"ray::UnitActor" in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


def test_a_killed_actor_changes_no_shard(tmp_path, ray_context, monkeypatch):
    """The first actor that has stored a spill is killed with -9; its units are done again."""
    alone = Context(store=open_store(tmp_path / "alone"), engine="process")
    strangers, killed = actors(), []
    plain = Context.map

    def mapping(self, task, units, *, engine=None):
        for rows in plain(self, task, units, engine=engine):
            if self is ray_context and not killed and (mine := actors() - strangers):
                killed.append(min(mine))
                os.kill(killed[0], signal.SIGKILL)
            yield rows

    monkeypatch.setattr(Context, "map", mapping)
    sums = []
    for ctx in (alone, ray_context):
        commit_documents(ctx, corpus(), "corpus")
        train_tokenizer.run(train_tokenizer.Config(vocab_size=1600, character_coverage=1.0), ctx)
        (made,) = tokenize_documents.run(tokenize_documents.Config(shard_tokens=2000, quality=""), ctx)
        sums.append((made.content_sum, made.stats["cells"], made.books))
    assert killed and sums[0] == sums[1]
