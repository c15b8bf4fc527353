"""The local recipe on the sample crawl: repeats, appends, engines, S3, killed drivers."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.runtime.context import Context
from jobs.runtime.recipe import read_recipe, run_steps, select_steps
from pipelines.datasets import open_dataset
from pipelines.datasets.store import open_store
from tests.faults import kill_driver

CHECKOUT = Path(__file__).resolve().parents[2]
SAMPLE = CHECKOUT / "tests" / "sample"
LAST = "tokenize_documents"


def run_recipe(root: str, crawl: Path = SAMPLE, last: str = LAST) -> Context:
    """In this process, without engines."""
    context = Context(store=open_store(root))
    steps = select_steps(read_recipe("local"), first=None, last=last, only=None)
    try:
        run_steps(context, steps, {"extract_crawl": {"crawl": str(crawl)}}, engine="process")
    finally:
        context.close()
    return context


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Path:
    """An unbroken run up to the token shards."""
    root = tmp_path_factory.mktemp("whole") / "root"
    run_recipe(str(root))
    return root


def files_of(root: Path) -> dict[str, int]:
    return {str(p.relative_to(root)): p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}


def test_every_stage_has_something_to_do(whole):
    documents = open_dataset(str(whole), "documents").manifest.books["documents"]
    assert documents["failed"] and documents["rejected"]
    corpus = open_dataset(str(whole), "corpus").manifest
    assert corpus.books["documents"]["rejected"]["duplicate"] >= 10
    assert len(corpus.books["documents"]["rejected"]) >= 4
    assert min(corpus.stats["by_language"][language] for language in ("zh", "en")) >= 50
    held = open_dataset(str(whole), "heldout").manifest.stats["by_language"]
    assert min(held["zh"], held["en"]) >= 5


def test_heldout_documents_and_their_copies_never_reach_the_corpus(whole):
    held = set(open_dataset(str(whole), "heldout").to_arrow(["id"])["id"].to_pylist())
    corpus = set(open_dataset(str(whole), "corpus").to_arrow(["id"])["id"].to_pylist())
    verdicts = open_dataset(str(whole), "documents").annotations("dedup").to_pylist()
    copies = {v["id"] for v in verdicts if v["dedup.cluster"] in held}
    assert held <= copies and not copies & corpus
    shards = open_dataset(str(whole), "tokens")
    from pipelines.datasets.dataset import read_parquet

    docs = [read_parquet(shards.store.get(key)) for key in shards.parts("docs")["key"].to_pylist()]
    tokenized = {i for table in docs for i in table["id"].to_pylist()}
    assert tokenized == corpus


def test_a_second_run_writes_nothing(whole):
    before = files_of(whole)
    context = run_recipe(str(whole))
    after = {k: v for k, v in files_of(whole).items() if not k.startswith((".tmp", "_probe"))}
    assert after == {k: v for k, v in before.items() if not k.startswith((".tmp", "_probe"))}
    assert context.committed == []


def test_a_crawl_file_that_is_added_touches_only_what_is_new(tmp_path):
    crawl, root = tmp_path / "crawl", tmp_path / "root"
    crawl.mkdir()
    files = sorted(SAMPLE.glob("*.warc.gz"))
    for path in files[:-1]:
        shutil.copy(path, crawl)
    run_recipe(str(root), crawl)
    before = files_of(root)
    verdicts = {v["id"]: v for v in open_dataset(str(root), "dedup").to_arrow().to_pylist()}
    shutil.copy(files[-1], crawl)
    run_recipe(str(root), crawl)
    changed = [k for k, v in before.items() if files_of(root).get(k) != v and "/work/" not in k]
    assert changed == []
    for name in ("documents", "filters", "signatures", "dedup", "quality", "corpus", "heldout"):
        manifest = open_dataset(str(root), name).manifest
        assert manifest.version == 2 and manifest.extends["version"] == 1, name
        new = open_dataset(str(root), name).parts()["generation"].to_pylist()
        assert new.count(2) == 1, name
    tokens = open_dataset(str(root), "tokens").manifest
    assert tokens.extends["version"] == 1 and open_dataset(str(root), "artifacts/tokenizer").manifest.version == 1
    now = {v["id"]: v for v in open_dataset(str(root), "dedup", 2).to_arrow().to_pylist()}
    assert all(now[i] == v for i, v in verdicts.items())


@pytest.mark.spark
@pytest.mark.ray
@pytest.mark.torch
def test_the_whole_trip_on_the_real_engines_ends_with_the_same_content_and_a_trained_model(whole, tmp_path):
    root = tmp_path / "root"
    line = [sys.executable, "-m", "cluster.cli", "run", "local", "--root", str(root), "--crawl", str(SAMPLE)]
    done = subprocess.run(line, **kill_driver.beside(root), capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found, expected = kill_driver.contents(root), kill_driver.contents(whole)
    assert {n: found[n] for n in expected} == expected
    for wanted in ("the crawl: read", "tokens in", "loss", "bits per byte", "tiny model", "dropped, and why", "next:"):
        assert wanted in done.stdout, done.stdout
    assert max(len(text) for text in done.stdout.splitlines() if "lies in" not in text) <= 80
    again = subprocess.run(line, **kill_driver.beside(root), capture_output=True, text=True, timeout=300, check=True)
    assert "finished before" in again.stdout
    assert kill_driver.contents(root) == found
    assert not (CHECKOUT / "gristmill.yaml").exists(), "a test notes its root in the checkout"


@pytest.mark.s3
def test_the_same_run_on_s3_has_the_same_content(whole, s3_prefix):
    run_recipe(s3_prefix)
    store, expected = open_store(s3_prefix), kill_driver.contents(whole)
    from pipelines.datasets.manifest import latest_manifest

    for name, (version, content, _, books) in expected.items():
        manifest = latest_manifest(store, name)
        assert (manifest.version, manifest.content_sum, manifest.books) == (version, content, books)


def test_a_driver_killed_in_each_stage_changes_nothing(whole, tmp_path):
    options = argparse.Namespace(crawl=str(SAMPLE), engine="process", delay=0.3, at=[])
    killed = {}
    for step in select_steps(read_recipe("local"), first=None, last=LAST, only=None):
        killed[step.job] = kill_driver.kill_in(tmp_path / "root", step.job, options)
        kill_driver.run_to_end(tmp_path / "root", step.job, options)
    assert killed["extract_crawl"] and sum(killed.values()) >= 3, killed
    assert kill_driver.contents(tmp_path / "root") == kill_driver.contents(whole)
