"""Repeated lines and substrings: MB/s and peak memory of the whole jobs, beside a suffix array of the same text.

    python -m tests.benchmarks.repeats [--data FOLDER] [--megabytes 100] [--rounds 5]

Documents are real texts; where they do not suffice they are taken again with about every 15th character changed, which
leaves a fifth of the anchors but next to no window intact. A third of the documents gets a passage of 100 to 1,000
characters of another, one in twenty a line of ten that recur. The jobs run in one process; the peer of
dedup_substrings (pydivsufsort: suffix array and common prefixes) sees the texts in one buffer, as an array it must.
Each run is a process of its own, whose largest resident size is told; its start is in the CPU time.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import multiprocessing
import os
import random
import re
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from queue import Empty
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import zstandard

from jobs import dedup_lines, dedup_substrings
from jobs.runtime.context import Context
from jobs.runtime.run import run_stage
from jobs.runtime.stage import Output, Stage, Unit, UnitResult, hash_unit
from pipelines.datasets import open_dataset
from pipelines.datasets.schemas import DOCUMENTS
from pipelines.datasets.store import open_store
from tests.pack import FOLDER

PART_BYTES = 16 << 20
LENGTH = 100


def real_texts(folder: Path) -> list[str]:
    """All texts of the data pack, cut to pieces of at most 4,000 characters."""
    texts = []
    for path in sorted((folder / "text").glob("*.jsonl.zst")):
        with path.open("rb") as file:
            for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), "utf-8"):
                text = json.loads(line)["text"]
                texts += [text[at : at + 4000] for at in range(0, len(text), 4000)]
    return texts


def made_texts(folder: Path, size: int, seed: int = 0) -> list[str]:
    """Texts of `size` bytes together, as the module says."""
    rng, real = random.Random(seed), real_texts(folder)
    letters = "".join(sorted(set("".join(real[::50]))))
    texts: list[str] = []
    done = turn = 0
    while done < size:
        for text in real:
            if turn:
                changed, at = list(text), 0
                while (at := at + 1 + int(rng.expovariate(1 / 15))) < len(changed):
                    changed[at] = rng.choice(letters)
                text = "".join(changed)
            if texts and rng.random() < 1 / 3:
                other = rng.choice(texts)
                low, long = rng.randrange(max(1, len(other) - 100)), rng.randrange(100, 1000)
                text += other[low : low + long]
            if rng.random() < 1 / 20:
                text += f"\nThis is notice number {rng.randrange(10)}, and it stands below many a page of this corpus."
            texts.append(text)
            done += len(text.encode())
            if done >= size:
                break
        turn += 1
    return texts


def open_maker(worker_config: dict[str, Any], _store: Any):
    """The documents of a file of texts."""

    def make(unit: Unit) -> UnitResult:
        texts = json.loads(Path(unit.spec["path"]).read_text("utf-8"))
        rows = [
            {"id": hash_unit(unit.id, n), "text": text, "date": "2026-01-01T00:00:00Z", "file": unit.id, "offset": n}
            for n, text in enumerate(texts)
        ]
        return UnitResult(parts={worker_config["dataset"]: pa.Table.from_pylist(rows, schema=DOCUMENTS)})

    return make


def make_documents(folder: Path, root: Path, megabytes: int) -> None:
    """A documents dataset in `root`, in parts of PART_BYTES, and its texts in one file."""
    texts, parts, size = made_texts(folder, megabytes * 1_000_000), [[]], 0
    for text in texts:
        if size > PART_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(text)
        size += len(text.encode())
    root.mkdir(parents=True)
    units = []
    for number, part in enumerate(parts):
        path = root / f"{number}.json"
        path.write_text(json.dumps(part, ensure_ascii=False), "utf-8")
        units.append(Unit(id=hash_unit(number), input=str(number), spec={"path": str(path)}))
    stage = Stage(
        job="made_documents",
        stage_id=hash_unit("repeats"),
        outputs=(Output(dataset="documents", kind="documents", schema=DOCUMENTS),),
        worker="tests.benchmarks.repeats:open_maker",
        worker_config={"dataset": "documents"},
    )
    run_stage(Context(store=open_store(str(root / "store")), engine="process"), stage, units, engine="process")
    (root / "texts").write_bytes("\0".join(texts).encode())


def run_ours(name: str, root: Path, queue: Any) -> None:
    """A job on a fresh output; what it took."""
    store = open_store(str(root / "store"))
    job, settings = (dedup_lines, {}) if name == "lines" else (dedup_substrings, {"min_characters": LENGTH})
    before = time.process_time()
    job.run(job.Config(dedup="", **settings), Context(store=store, engine="process"))
    took = time.process_time() - before
    manifest = open_dataset(store, name).manifest
    books = manifest.books["characters"]
    told = {"seconds": took, "peak_mib": _peak_mib(), "sum": manifest.content_sum}
    told["found"] = manifest.stats["counted" if name == "lines" else "windows"]
    removed = books["removed"]
    queue.put(told | {"share": (sum(removed.values()) if isinstance(removed, dict) else removed) / books["in"]})
    for made in (name, "line_digests"):
        shutil.rmtree(root / "store" / "datasets" / made, ignore_errors=True)


def run_peer(root: Path, queue: Any) -> None:
    """A suffix array of all bytes, and the share of them in repeats of LENGTH bytes or more but the first."""
    import pydivsufsort

    body = np.frombuffer(bytearray((root / "texts").read_bytes()), np.uint8)
    before = time.process_time()
    array = pydivsufsort.divsufsort(body)
    prefixes = pydivsufsort.kasai(body, array)
    took = time.process_time() - before
    queue.put({"seconds": took, "peak_mib": _peak_mib(), "repeats": int((prefixes >= LENGTH).sum())})


def _peak_mib() -> float:
    """Largest resident size since this program began; `ru_maxrss` would count what forked it as well."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def apart(step: Any, *arguments: Any) -> dict[str, Any]:
    """What `step` tells, run in a new process."""
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    process = spawn.Process(target=step, args=(*arguments, queue))
    process.start()
    while True:
        try:
            told = queue.get(timeout=1)
            break
        except Empty:
            if not process.is_alive():
                raise RuntimeError(f"{step.__name__} died with {process.exitcode}") from None
    process.join()
    return told


def main() -> None:
    """Ours and the peer in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=FOLDER)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args()
    is_peer_here = importlib.util.find_spec("pydivsufsort") is not None and not options.no_peer
    with tempfile.TemporaryDirectory() as scratch:
        make_documents(options.data, Path(scratch) / "small", 2)
        for name in ("lines", "substrings"):
            apart(run_ours, name, Path(scratch) / "small")  # compiles
        root = Path(scratch) / "root"
        make_documents(options.data, root, options.megabytes)
        size = (root / "texts").stat().st_size / 1e6
        runs: dict[str, list[dict[str, Any]]] = {"lines": [], "substrings": [], "peer": []}
        for _ in range(options.rounds):
            for name in ("lines", "substrings"):
                runs[name].append(apart(run_ours, name, root))
            if is_peer_here:
                runs["peer"].append(apart(run_peer, root))
    result: dict[str, Any] = {"name": "repeats", "text_mb": round(size, 1)}
    for name, found in runs.items():
        speed = [size / run["seconds"] for run in found]
        result[f"{name}_mb_per_s"] = round(statistics.median(speed), 2) if speed else None
        result[f"{name}_spread"] = [round(min(speed), 2), round(max(speed), 2)] if speed else None
        result[f"{name}_peak_mib"] = round(max(run["peak_mib"] for run in found)) if found else None
        if found and name != "peer":
            result[f"{name}_removed_share"] = round(found[0]["share"], 4)
            result[f"{name}_found"] = found[0]["found"]
            result[f"{name}_same_content"] = len({run["sum"] for run in found}) == 1
    result |= {"load": os.getloadavg()[0], "numba": numba.__version__, "numpy": np.__version__}
    if not is_peer_here:
        sys.stderr.write("pydivsufsort is not installed: no peer\n")
    for name, value in result.items():
        sys.stderr.write(f"{name:24} {value}\n")
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
