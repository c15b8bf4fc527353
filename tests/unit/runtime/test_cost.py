"""Plans: fair samples, errors that hold, and a job without a cost model says so."""

from __future__ import annotations

import json
import random

import pytest

from cluster.cli import main
from jobs.runtime.catalog import JOBS, load_job
from jobs.runtime.context import Context
from jobs.runtime.cost import Ratio, Request, by_hash, cpu_seconds, peak_memory_mb, plan_job
from pipelines.datasets.store import MemoryStore, open_store
from pipelines.errors import ConfigError
from tests.made_crawl import page, write_crawl
from tests.pack import pack


def test_the_ratio_and_its_error_cover_the_truth_as_often_as_they_say():
    rng = random.Random(7)
    hits = 0
    for _ in range(400):
        sizes = [rng.uniform(50, 150) for _ in range(20)]
        costs = [size * rng.gauss(3.0, 0.6) for size in sizes]
        found = Ratio.of(costs, sizes)
        hits += abs(found.value - 3.0) <= found.error * found.value
    assert 0.88 <= hits / 400 <= 0.99


def test_a_sample_by_hash_depends_on_names_alone():
    names = [f"unit {n}" for n in range(1000)]
    shuffled = random.Random(1).sample(names, len(names))
    assert by_hash(names, str)[:50] == by_hash(shuffled, str)[:50] != names[:50]


def test_nothing_costs_nothing():
    assert Ratio.of([], []).value == Ratio.of([0.0], [5.0]).value == 0.0


def test_cpu_and_memory_of_this_process_are_told():
    before = cpu_seconds()
    sum(range(3_000_000))
    assert cpu_seconds() > before and peak_memory_mb() > 5


def test_jobs_without_a_cost_model_name_those_with_one(capsys):
    others = [job for job in JOBS if not hasattr(load_job(job), "plan")]
    with pytest.raises(ConfigError, match="no cost model yet") as caught:
        plan_job(others[0], None, Context(store=MemoryStore()), Request())
    assert "extract_crawl" in caught.value.mend
    with pytest.raises(SystemExit) as left:
        main(["plan", others[0]])
    assert left.value.code == 2 and "no cost model yet" in capsys.readouterr().err


@pytest.fixture(scope="module")
def crawl(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("plan")
    files = {
        f"{name}.warc.gz": [(f"https://mill.example/{name}/{n}", page(n)) for n in range(40)] for name in "abc"
    }
    return write_crawl(folder, files)


def test_the_plan_of_a_small_crawl_is_near_the_truth_and_writes_nothing(crawl, tmp_path, capsys):
    root = tmp_path / "root"
    main(["plan", "extract_crawl", "--crawl", crawl, "--json", "--cores", "2", "--root", str(root)])
    told = json.loads(capsys.readouterr().out)
    figures = {name: figure["value"] for name, figure in told["figures"].items()}
    assert figures["units"] == 3 and told["sample"]["fraction"] == 1.0
    assert figures["records"] == pytest.approx(120) and figures["documents"] == pytest.approx(120)
    assert figures["cpu"] > figures["wall"] / 2 > 0 and figures["memory"] > 1e8
    assert not root.exists() or not list(root.rglob("*.parquet"))

    from jobs.extract_crawl import Config, run

    store = open_store(root)
    run(Config(crawl=crawl), Context(store=store, engine="process"))
    written = sum(o.size_bytes for o in store.list("datasets/") if "/parts/" in o.key or "/ledger/" in o.key)
    assert figures["output"] == pytest.approx(written, rel=0.4)  # files of 40 rows are mostly what Parquet adds


def test_the_table_fits_80_columns(crawl, capsys):
    main(["plan", "extract_crawl", "--crawl", crawl])
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines()) and "cpu" in out


def test_a_fraction_that_is_none_is_refused(crawl):
    for fraction in ("0", "1.5"):
        with pytest.raises(SystemExit) as left:
            main(["plan", "extract_crawl", "--crawl", crawl, "--fraction", fraction])
        assert left.value.code == 2


@pytest.mark.slow
def test_the_plan_of_a_real_crawl_is_within_a_fifth(tmp_path, capsys):
    import subprocess
    import sys

    crawl = str(pack("crawl") / "*.warc.gz")
    root = tmp_path / "root"
    command = [sys.executable, "-m", "cluster.cli"]
    told = subprocess.run(
        [*command, "plan", "extract_crawl", "--crawl", crawl, "--json", "--cores", "1"], capture_output=True, check=True
    )
    figures = {name: figure["value"] for name, figure in json.loads(told.stdout)["figures"].items()}
    command = [*command, "run", "extract_crawl", "--crawl", crawl, "--root", str(root), "--engine", "process"]
    subprocess.run(command, capture_output=True, check=True)
    store = open_store(root)
    written = sum(o.size_bytes for o in store.list("datasets/") if "/parts/" in o.key or "/ledger/" in o.key)
    from pipelines.datasets import open_dataset

    documents = open_dataset(store, "documents").manifest
    assert figures["documents"] == pytest.approx(documents.part_list["rows"], rel=0.2)
    assert figures["records"] == pytest.approx(documents.books["documents"]["read"], rel=0.2)
    assert figures["output"] == pytest.approx(written, rel=0.2)
    assert figures["cpu"] > 0  # how near it comes: python -m tests.benchmarks.crawl --plan
