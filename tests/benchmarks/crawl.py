"""`extract_crawl` end to end: speed, where its CPU goes, its cost beside reading and writing and beside datatrove.

    python -m tests.benchmarks.crawl [--data FOLDER] [--megabytes 1000] [--rounds 1] [--peer-rounds 1] [--no-peers]
    python -m tests.benchmarks.crawl --plan [--megabytes 1000]

The crawl in FOLDER (its *.warc.gz) is repeated, four times a file, until so many megabytes of uncompressed input are
there: files of about the size of a unit, as crawls have them.  CPU is user and system, with children, of a process
that has worked through one file before.

`overhead`: CPU a record outside extraction (with the decoding of bodies and charsets, and the child that guards it),
language and filters (with the cleaning of texts), over that of a bare FastWARC loop and a pyarrow write of the same
rows, from Python values as a loop would have them.  What the timers themselves cost is taken off.
`cpu_vs_datatrove`: CPU a page on the crawl once, against WarcReader, Trafilatura, LanguageFilter, the Gopher, C4 and
FineWeb filters and ParquetWriter, on one task.
`plan`: what `gristmill plan extract_crawl` tells of the repeated crawl from 1% of it, over what a run of it takes: CPU
without what workers do once, and bytes written.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jobs.runtime.cost import cpu_seconds, living_children, peak_memory_mb
from tests.pack import FOLDER

ROUNDS = 5
COPIES_A_FILE = 4


class Split:
    """CPU of this process by phase: functions wrapped by name, so that the job itself carries no timers."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls = 0

    def own_seconds(self) -> float:
        """CPU of the timers themselves, outside what they count."""
        probe = Split()
        probe.nothing = lambda: None  # type: ignore[attr-defined]
        probe.wrap(probe, "nothing", "nothing")
        begun = time.process_time()
        for _ in range(20_000):
            probe.nothing()  # type: ignore[attr-defined]
        spent = time.process_time() - begun - probe.seconds["nothing"]
        return spent / 20_000 * self.calls

    def wrap(self, module: Any, name: str, phase: str) -> None:
        """Count the CPU of `module.name`."""
        inner = getattr(module, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            begun = time.process_time()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds[phase] = self.seconds.get(phase, 0.0) + time.process_time() - begun

        setattr(module, name, timed)

    def wrap_iterator(self, module: Any, name: str, phase: str) -> None:
        """Count the CPU of each step of the iterator that `module.name` gives."""
        inner = getattr(module, name)

        def timed(*args: Any, **kwargs: Any) -> Iterator[Any]:
            steps = iter(inner(*args, **kwargs))
            while True:
                begun = time.process_time()
                item = next(steps, self)
                self.calls += 1
                self.seconds[phase] = self.seconds.get(phase, 0.0) + time.process_time() - begun
                if item is self:
                    return
                yield item

        setattr(module, name, timed)


def run_ours(folder: str, warm: str, out: str) -> dict[str, Any]:
    """One measured run in this process, after a warm-up; made to run in a process of its own."""
    from jobs import extract_worker
    from jobs.extract_crawl import Config, run
    from jobs.runtime.context import Context
    from pipelines.crawl import batches, document, pages
    from pipelines.datasets.store import open_store

    split = Split()
    split.wrap_iterator(extract_worker, "read_records", "read")
    split.wrap(document, "entity_body", "bodies")
    split.wrap(batches, "extract_pages", "extraction")
    split.wrap(batches, "_identify", "language")
    split.wrap(batches, "measure", "filters")
    split.wrap(batches, "_clean", "filters")
    run(Config(crawl=f"{warm}/*.warc.gz"), Context(store=open_store(f"{out}/warm")))
    split.seconds.clear()
    split.calls = 0
    apart, children = pages.isolated_seconds(), children_seconds()
    begun, begun_cpu = time.monotonic(), cpu_seconds()
    documents, filters = run(Config(crawl=f"{folder}/*.warc.gz"), Context(store=open_store(f"{out}/root")))
    cpu, wall = cpu_seconds() - begun_cpu, time.monotonic() - begun
    phases = dict(split.seconds)
    apart, children = pages.isolated_seconds() - apart, children_seconds() - children
    phases["extraction"] = phases.get("extraction", 0.0) + children
    phases["timers"] = split.own_seconds()
    phases["rest"] = cpu - sum(phases.values())
    return {
        "cpu": cpu,
        "wall": wall,
        "phases": phases,
        "isolated": apart,
        "read": documents.books["documents"]["read"],
        "kept": documents.part_list["rows"],
        "output": sum(made.part_list["bytes"] for made in (documents, filters)),
        "rss_mb": peak_memory_mb("self"),
        "child_rss_mb": max([peak_memory_mb(pid) for pid in living_children()], default=0.0),
    }


def run_plan(folder: str) -> dict[str, Any]:
    """What the cost model tells of a folder, in a process of its own."""
    from jobs.extract_crawl import Config, plan
    from jobs.runtime.context import Context
    from jobs.runtime.cost import Request
    from pipelines.datasets.store import open_store

    begun = time.process_time()
    made = plan(Config(crawl=f"{folder}/*.warc.gz"), Context(store=open_store("memory://plan")), Request())
    told = {name: figure.value for name, figure in made.figures.items()}
    return {"figures": told, "sample": made.sample, "own_cpu": time.process_time() - begun}


def children_seconds() -> float:
    """CPU of the processes below this one: the child that extracts large pages."""
    return cpu_seconds() - time.process_time()


def run_datatrove(folder: str, warm: str, out: str) -> dict[str, Any]:
    """The peer's pipeline, after a warm-up; the language model is ours, since its own is fetched from the network."""
    import datatrove.utils.lid
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
        LanguageFilter,
    )
    from datatrove.pipeline.readers import WarcReader
    from datatrove.pipeline.writers import ParquetWriter

    _mend_warcio()
    model = Path(__file__).parents[2] / "pipelines" / "language" / "lid.176.ftz"
    datatrove.utils.lid.cached_asset_path_or_download = lambda *_, **__: str(model)

    def once(source: str, name: str) -> Any:
        steps = [
            WarcReader(source, glob_pattern="*.warc.gz"),
            Trafilatura(timeout=30),
            LanguageFilter(languages=["zh", "en"]),
            GopherRepetitionFilter(),
            GopherQualityFilter(),
            C4QualityFilter(),
            FineWebQualityFilter(),
            ParquetWriter(f"{out}/{name}"),
        ]
        return LocalPipelineExecutor(steps, tasks=1, workers=1, logging_dir=f"{out}/{name}-logs").run()

    once(warm, "warm")
    begun, begun_cpu = time.monotonic(), cpu_seconds()
    stats = once(folder, "all")
    return {
        "cpu": cpu_seconds() - begun_cpu,
        "wall": time.monotonic() - begun,
        "pages": next(iter(stats.stats)).stats["documents"].total,
    }


def _mend_warcio() -> None:
    """warcio 1.8.1 sets an attribute that today's brotli objects do not take, and raises at the first such page."""
    import brotli
    from warcio.bufferedreaders import BufferedReader

    class Inflater:
        unused_data = None

        def __init__(self) -> None:
            self._inner = brotli.Decompressor()

        def decompress(self, piece: bytes) -> bytes:
            return self._inner.process(piece)

    BufferedReader.DECOMPRESSORS["br"] = Inflater


def baseline(folder: Path, root: str) -> dict[str, float]:
    """CPU of a bare FastWARC loop over the files, and of a pyarrow write of the rows that were made of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    from pipelines.datasets import open_dataset

    datasets = [open_dataset(root, name) for name in ("documents", "filters")]
    tables = [*(d.to_arrow() for d in datasets), pa.concat_tables(list(datasets[0].ledger()))]
    rows = [(table.schema, {name: table[name].to_pylist() for name in table.schema.names}) for table in tables]

    def read() -> None:
        for path in sorted(folder.glob("*.warc.gz")):
            with path.open("rb") as file:
                for record in ArchiveIterator(file, record_types=WarcRecordType.response, parse_http=True):
                    record.reader.read()

    def write() -> None:
        for schema, columns in rows:
            arrays = [pa.array(columns[field.name], field.type) for field in schema]
            pq.write_table(pa.Table.from_arrays(arrays, schema=schema), pa.BufferOutputStream(), compression="zstd")

    return {"read": _median_cpu(read), "write": _median_cpu(write)}


def _median_cpu(work: Callable[[], None]) -> float:
    work()
    spent = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        work()
        spent.append(time.process_time() - begun)
    return statistics.median(spent)


def _apart(what: str, *arguments: str) -> dict[str, Any]:
    """Run a function of this file in a process of its own; its result."""
    with tempfile.NamedTemporaryFile(suffix=".json") as answer:
        command = [sys.executable, "-m", "tests.benchmarks.crawl", "--apart", what, answer.name, *arguments]
        quiet = subprocess.DEVNULL
        done = subprocess.run(command, check=False, stdout=quiet, stderr=None if what == "ours" else subprocess.PIPE)
        if done.returncode:
            told = (done.stderr or b"").decode("utf-8", "replace").strip().splitlines()
            raise RuntimeError(f"{what} ended with {done.returncode}: {told[-1] if told else 'no message'}")
        return json.loads(Path(answer.name).read_text())


def _uncompressed(path: Path) -> int:
    import gzip

    with gzip.open(path) as body:
        return sum(len(block) for block in iter(lambda: body.read(1 << 20), b""))


def main() -> None:
    """Ours on the repeated crawl, the baseline and the peer on the crawl once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=None, help="folder with crawl/*.warc.gz")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1, help="of ours on the repeated crawl")
    parser.add_argument("--plan", action="store_true", help="the cost model's word against a run, and nothing else")
    parser.add_argument("--peer-rounds", type=int, default=1)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--apart", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.apart:
        what, answer, *arguments = options.apart
        found = {"ours": run_ours, "datatrove": run_datatrove, "plan": run_plan}[what](*arguments)
        Path(answer).write_text(json.dumps(found))
        return
    scratch = Path(tempfile.mkdtemp(prefix="gm-crawl-"))
    try:
        _measure(options, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _make_files(options: argparse.Namespace, scratch: Path) -> tuple[Path, Path, Path, float]:
    """Folders of the crawl once, of the repeated one, and of what warms up; megabytes that the second inflates to."""
    files = sorted((Path(options.data or FOLDER) / "crawl").glob("*.warc.gz"))
    once, many, warm = (scratch / name for name in ("once", "many", "warm"))
    for folder in (once, many, warm):
        folder.mkdir()
    for path in files:
        shutil.copy(path, once)
    shutil.copy(files[0], warm)
    size = sum(map(_uncompressed, files))
    copies = max(1, round(options.megabytes * 1e6 / size))
    for n in range(0, copies, COPIES_A_FILE):
        with (many / f"crawl-{n:05d}.warc.gz").open("wb") as out:
            for path in files * min(COPIES_A_FILE, copies - n):
                out.write(path.read_bytes())
    return once, many, warm, copies * size / 1e6


def _measure(options: argparse.Namespace, scratch: Path) -> None:
    once, many, warm, megabytes = _make_files(options, scratch)
    if options.plan:
        _measure_plan(str(many), str(warm), str(scratch / "big"), megabytes)
        return
    rounds = []
    for n in range(options.rounds):
        rounds.append(_apart("ours", str(many), str(warm), str(scratch / f"big{n}")))
        shutil.rmtree(scratch / f"big{n}")
    ours = sorted(rounds, key=lambda run: run["cpu"])[(len(rounds) - 1) // 2]
    small = [_apart("ours", str(once), str(warm), str(scratch / f"small{n}")) for n in range(3)]
    floor = baseline(once, str(scratch / "small0" / "root"))
    bare = (floor["read"] + floor["write"]) / small[0]["read"]
    own = statistics.median(_overhead_seconds(run) / run["read"] for run in rounds)
    overhead = own / bare
    peers = []
    if importlib.util.find_spec("datatrove") and not options.no_peers:
        turns = range(options.peer_rounds)
        try:
            peers = [_apart("datatrove", str(once), str(warm), str(scratch / f"peer{n}")) for n in turns]
        except RuntimeError as error:
            sys.stderr.write(f"{error}\n")
    else:
        sys.stderr.write("datatrove: not measured\n")
    a_page = statistics.median(run["cpu"] / run["read"] for run in small)
    ratio = a_page / statistics.median(p["cpu"] / p["pages"] for p in peers) if peers else None
    phases = {name: seconds / ours["read"] * 1e6 for name, seconds in ours["phases"].items()}

    sys.stderr.write(f"{ours['read']} records, {megabytes:.0f} MB uncompressed, {ours['cpu']:.1f} s CPU\n")
    for name, micros in sorted(phases.items(), key=lambda pair: -pair[1]):
        sys.stderr.write(f"  {name:12} {micros:8.0f} us a record\n")
    bare_us = {name: round(seconds / small[0]["read"] * 1e6, 1) for name, seconds in floor.items()}
    sys.stderr.write(f"bare loop and write: {bare_us} us a record; ours beside extraction, language, filters: ")
    sys.stderr.write(f"{own * 1e6:.0f}, overhead {overhead:.2f}\n")
    if peers:
        sys.stderr.write(f"datatrove: {[round(p['cpu'] / p['pages'] * 1e3, 2) for p in peers]} ms CPU a page; ")
        sys.stderr.write(f"ours {a_page * 1e3:.2f}, ratio {ratio:.3f}\n")
    sys.stderr.write(f"peak memory of a worker {ours['rss_mb']:.0f} MB, of its child {ours['child_rss_mb']:.0f} MB\n")
    found = {
        "name": "crawl",
        "pages_per_s": round(ours["read"] / ours["cpu"], 1),
        "mb_per_s": round(megabytes / ours["cpu"], 2),
        "overhead": round(overhead, 3),
        "cpu_vs_datatrove": None if ratio is None else round(ratio, 4),
        "worker_rss_mb": round(ours["rss_mb"] + ours["child_rss_mb"], 1),
        "megabytes": round(megabytes),
        "us_a_record": {name: round(micros, 1) for name, micros in phases.items()},
        "bare_us_a_record": bare_us,
        "own_us_a_record": round(own * 1e6, 1),
        "overhead_beside_reading": round(statistics.median(r["phases"]["rest"] / r["read"] for r in rounds) / bare, 3),
        "rounds_cpu_s": [round(run["cpu"], 1) for run in rounds],
        "overhead_by_round": [round(_overhead_seconds(run) / run["read"] / bare, 3) for run in rounds],
        "peer_ms_a_page": [round(p["cpu"] / p["pages"] * 1e3, 3) for p in peers],
        "ours_ms_a_page": round(a_page * 1e3, 3),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("pyarrow", "FastWARC", "trafilatura", "datatrove")
            if importlib.util.find_spec(name.lower())
        },
    }
    sys.stdout.write(json.dumps(found) + "\n")


def _measure_plan(folder: str, warm: str, out: str, megabytes: float) -> None:
    """The cost model's figures over those of a run."""
    told, ours = _apart("plan", folder), _apart("ours", folder, warm, out)
    figures = told["figures"]
    work = figures["cpu"] - figures["start"]
    ratios = {
        "cpu": round(work / ours["cpu"], 3),
        "output": round(figures["output"] / ours["output"], 3),
        "records": round(figures["records"] / ours["read"], 3),
        "documents": round(figures["documents"] / ours["kept"], 3),
    }
    sample = told["sample"]
    sys.stderr.write(f"sample: {sample['records']} records, {sample['fraction']:.4f} of the bytes; ")
    sys.stderr.write(f"told {work:.0f} s CPU and {figures['output'] / 1e6:.1f} MB; ")
    sys.stderr.write(f"taken {ours['cpu']:.0f} s and {ours['output'] / 1e6:.1f} MB; told over taken: {ratios}\n")
    found = {"name": "crawl_plan", "plan": ratios, "sample": sample, "plan_cpu_s": round(told["own_cpu"], 1)}
    found |= {"megabytes": round(megabytes), "load": os.getloadavg()[0], "python": platform.python_version()}
    sys.stdout.write(json.dumps(found) + "\n")


def _overhead_seconds(run: dict[str, Any]) -> float:
    """CPU outside extraction, language and filters."""
    return run["phases"]["read"] + run["phases"]["rest"]


if __name__ == "__main__":
    main()
