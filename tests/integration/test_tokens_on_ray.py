"""Ray's actors and one process give the same scores and the same token shards, whatever is killed on the way."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs import score_quality, tokenize_documents, train_quality, train_tokenizer
from jobs.runtime import ray_map
from jobs.runtime.context import Context
from jobs.runtime.ray_session import OBJECT_STORE_BYTES
from pipelines.datasets import open_dataset
from pipelines.datasets.store import open_store
from tests.faults.kill_driver import CHECKOUT, kill_when
from tests.made_documents import commit_documents, join, prose

pytestmark = pytest.mark.ray


def corpus(files=4):
    rng = random.Random(2)
    rows = [{"text": join(prose(rng, ("zh", "en")[i % 2], 60))} for i in range(10 * files)]
    return {f"crawl-{file:02d}": rows[file::files] for file in range(files)}


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


def objects(root):
    """Keys of a version's objects: they end in a hash of their bytes."""
    return set(open_dataset(open_store(root), "tokens").part_list["key"].to_pylist())


def test_a_killed_driver_changes_no_shard(tmp_path):
    """kill -9 of the driver once a spill is stored, and once a shard is; the same command then ends the work."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    ctx = Context(store=open_store(whole), engine="process")
    commit_documents(ctx, corpus(), "corpus")
    train_tokenizer.run(train_tokenizer.Config(vocab_size=1600, character_coverage=1.0), ctx)
    shutil.copytree(whole, broken)
    tokenize_documents.run(tokenize_documents.Config(shard_tokens=2000, quality=""), ctx)
    line = [sys.executable, "-m", "cluster.cli", "run", "tokenize_documents", "--root", str(broken)]
    line += ["--set", "shard_tokens=2000", "--set", "quality="]
    for pattern in ("work/*/spill-*/spill/*.parquet", "shards/*.bin"):
        assert kill_when(broken, line, f"datasets/tokens/{pattern}"), pattern
    done = subprocess.run(line, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert objects(broken) == objects(whole) and not list((broken / "datasets/tokens/work").glob("*/spill-*/spill/*"))


# `ray start` refuses to join by loopback; this is what it does, and what Ray's own tests do.
NODE = """
import sys, time
from ray._private.node import Node
from ray._private.parameter import RayParams
params = RayParams(gcs_address=sys.argv[1], node_ip_address="127.0.0.1", num_cpus=2, include_log_monitor=False,
                   object_store_memory=int(sys.argv[2]))
Node(params, head=False, shutdown_at_exit=False, spawn_reaper=False)
time.sleep(3600)
"""


@pytest.fixture
def second_node(ray_context):
    """A node of two slots that joins the context's Ray; its processes are a session of their own."""
    address = ray_context.ray().get_runtime_context().gcs_address
    node = subprocess.Popen([sys.executable, "-c", NODE, address, str(OBJECT_STORE_BYTES)], start_new_session=True)
    try:
        wait_for_nodes(ray_context, 2)
        yield node
    finally:
        kill_group(node)


def wait_for_nodes(ctx, count):
    deadline = time.monotonic() + 120
    while sum(node["Alive"] for node in ctx.ray().nodes()) != count:
        assert time.monotonic() < deadline, f"never {count} nodes"
        time.sleep(0.2)


def kill_group(node):
    """End every process of a node, as a lost machine does."""
    if node.poll() is None:
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()


def test_a_lost_node_changes_no_shard(tmp_path, ray_context, second_node, monkeypatch):
    """A machine with two of the four actors goes while all of them have work."""
    ray_context.parallelism = 4
    wait, lost = ray_map._Hands.wait, []

    def wait_and_lose(hands):
        for rows in wait(hands):
            if not lost:  # the units are small: none more is sent until all actors are there
                starting = [call for call, (_, number) in hands._calls.items() if number is None]
                hands._ray.get(starting, timeout=120)
            if not lost and len(hands.pids) == 4:
                lost.append({number for _, number in hands._calls.values()})
                kill_group(second_node)
            yield rows

    monkeypatch.setattr(ray_map._Hands, "wait", wait_and_lose)
    alone = Context(store=open_store(tmp_path / "alone"), engine="process")
    for ctx in (alone, ray_context):
        commit_documents(ctx, corpus(24), "corpus")
        train_tokenizer.run(train_tokenizer.Config(vocab_size=1600, character_coverage=1.0), ctx)
        tokenize_documents.run(tokenize_documents.Config(shard_tokens=2000, quality=""), ctx)
    wait_for_nodes(ray_context, 1)
    assert lost and len(lost[0]) > 2, "no unit was under way"
    assert objects(tmp_path / "ray") == objects(tmp_path / "alone")
