"""Deduplication whole: recall on planted copies, no removal without evidence, CPU a document beside the peers.

    python -m tests.benchmarks.dedup [--part recall] [--part cpu] ... [--rounds 5] [--text-dedup PYTHON]

Prints a table on stderr and one JSON line on stdout; without `--part` the line is whole, and a figure of a part that
was not run, or of a peer that is not there, is null. Similarities are worked out anew as sets of n-grams in the unit of
the job (characters in Chinese, words in English) of its normal form; a pair counts as found when its two documents are
not both kept. CPU is user and system of the job's process and all its children, JVM and Python workers included, from
documents that lie as Parquet; `marginal_us` is what each document beyond the first `--documents` costs, up to four
times as many, less reading them. datatrove runs in this Python, text-dedup in one of its own, since its packages do
not go with ours (`--text-dedup /path/to/venv/bin/python`). Ours and the peers run in turn, medians are told.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs import dedup_documents
from jobs.runtime.context import Context
from pipelines.datasets import open_dataset
from pipelines.datasets.store import open_store
from pipelines.dedup.normalize import normal_forms
from tests.benchmarks.filters import crawl_rows, note
from tests.benchmarks.planted import commit, documents
from tests.pack import FOLDER

THRESHOLD = 0.7
PARTS = ("recall", "cpu", "marginal", "datatrove", "text-dedup")
KEYS = (
    "recall_90", "recall_80", "recall_70", "removed_unverified", "vs_datatrove_zh", "vs_text_dedup_en", "marginal_us",
    "vs_datatrove_zh_marginal",
)  # fmt: skip
BINS = {"70": (0.7, 0.8), "80": (0.8, 0.9), "90": (0.9, 1.01)}


def grams(form: str, language: str) -> set[tuple[str, ...]]:
    """The n-grams of a normal form by their definition."""
    units = list(form) if language == "zh" else form.split()
    return {tuple(units[i : i + 5]) for i in range(len(units) - 4)}


def jaccard(a: set[Any], b: set[Any]) -> float:
    """Shared over all."""
    return len(a & b) / len(a | b) if a or b else 0.0


def context(folder: Path, engine: str) -> Context:
    """A store in a folder."""
    return Context(store=open_store(folder), engine=engine, spark_master="local[2,4]" if engine == "spark" else None)


def recall(data: Path, language: str, count: int, folder: Path) -> dict[str, Any]:
    """{"70": [pairs, found], ..., "removed_unverified": n, "kept_copies": n}."""
    ctx = context(folder, "process")
    listed = list(documents(data, language, count))
    commit(ctx, [text for text, _ in listed])
    dedup_documents.run(dedup_documents.Config(), ctx)
    table = open_dataset(ctx.store, "dedup").to_arrow()
    place = {name: i for i, name in enumerate(open_dataset(ctx.store, "documents").to_arrow(["id"])["id"].to_pylist())}
    forms = normal_forms(pa.array([text for text, _ in listed])).to_pylist()
    verdict: list[dict[str, Any]] = [{}] * count
    for row in table.to_pylist():
        verdict[place[row["id"]]] = row
    found: dict[str, Any] = {name: [0, 0] for name in BINS}
    for number, (_, origin) in enumerate(listed):
        if origin is None:
            continue
        similarity = jaccard(grams(forms[number], language), grams(forms[origin], language))
        for name, (low, high) in BINS.items():
            if low <= similarity < high:
                found[name][0] += 1
                found[name][1] += not (verdict[number]["dedup.keep"] and verdict[origin]["dedup.keep"])
    unverified = 0
    for number, row in enumerate(verdict):
        if not row["dedup.keep"]:
            match = place[row["dedup.match"]]
            similarity = jaccard(grams(forms[number], language), grams(forms[match], language))
            held = similarity >= THRESHOLD or forms[number] == forms[match]
            unverified += not (verdict[match]["dedup.keep"] and held)
    found["removed_unverified"] = unverified
    found["removed"] = sum(not row["dedup.keep"] for row in verdict)
    return found


def crawl_table(data: Path, folder: Path) -> dict[str, Any]:
    """Planted pairs of the folder's crawl, as extraction leaves their texts: {kind: [pairs, found]}."""
    place: dict[str, int] = {}
    texts: list[str] = []
    for row, text in crawl_rows(data, lambda _: True):
        if text:
            place[row["id"]] = len(texts)
            texts.append(text)
    ctx = context(folder, "process")
    commit(ctx, texts)
    dedup_documents.run(dedup_documents.Config(), ctx)
    kept = dict(zip(*open_dataset(ctx.store, "dedup").to_arrow(["id", "dedup.keep"]).to_pydict().values(), strict=True))
    ids = open_dataset(ctx.store, "documents").to_arrow(["id"])["id"].to_pylist()
    forms = normal_forms(pa.array(texts)).to_pylist()
    found: dict[str, Any] = {"documents": len(texts), "removed": sum(not keep for keep in kept.values())}
    with gzip.open(data / "crawl" / "truth.jsonl.gz") as file:
        truth = [json.loads(line) for line in file]
    for pair in truth:
        is_pair = pair["kind"] in ("exact_dup", "near_dup", "other_pair")
        if not is_pair or pair["id"] not in place or pair["of"] not in place:
            continue
        a, b = place[pair["id"]], place[pair["of"]]
        similarity = 1.0 if forms[a] == forms[b] else crawl_similarity(forms[a], forms[b])
        name = next((n for n, (low, high) in BINS.items() if low <= similarity < high), "below")
        tally = found.setdefault(f"{pair['kind']} {name}", [0, 0])
        tally[0] += 1
        tally[1] += not (kept[ids[a]] and kept[ids[b]])
    return found


def crawl_similarity(a: str, b: str) -> float:
    """By characters where neither form has spaces, by words where both have."""
    if (" " in a) != (" " in b):
        return 0.0
    language = "en" if " " in a else "zh"
    return jaccard(grams(a, language), grams(b, language))


def spent(command: list[str], env: dict[str, str] | None = None) -> float:
    """CPU seconds of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)
    if done.returncode:
        raise RuntimeError(
            f"{command[1:4]} left with {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}"
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def made_root(data: Path, language: str, count: int, folder: Path) -> tuple[Path, float]:
    """A store with so many documents, and the CPU seconds of reading them."""
    root = folder / f"{language}-{count}"
    commit(context(root, "process"), [text for text, _ in documents(data, language, count, seed=1)])
    shutil.rmtree(root / "made", ignore_errors=True)
    begun = time.process_time()
    for _ in open_dataset(open_store(root), "documents").batches(["id", "text", "date", "file", "offset"]):
        pass
    return root, time.process_time() - begun


def job_seconds(root: Path, count: int, engine: str) -> float:
    """CPU seconds of the whole job, which leaves the store as it found it."""
    seconds = spent([sys.executable, "-m", "tests.benchmarks.dedup", "--run", str(root), "--engine", engine])
    stats = open_dataset(open_store(root), "dedup").manifest.stats["pairs"]
    told = {name: stats[name] for name in ("exact", "by_round", "rejected", "too_unlike", "verified", "shuffle_bytes")}
    note(f"{root.name}: {seconds:.1f} s CPU, {seconds / count * 1e6:.0f} us each; {told}")
    for made in ("signatures", "dedup", "dedup_pairs"):
        shutil.rmtree(root / "datasets" / made)
    return seconds


def peer_source(data: Path, language: str, count: int, folder: Path) -> Path:
    """The same documents as JSON lines."""
    source = folder / f"peers-{language}" / f"{language}.jsonl"
    source.parent.mkdir()
    with source.open("w") as file:
        for number, (text, _) in enumerate(documents(data, language, count, seed=1)):
            file.write(json.dumps({"id": str(number), "text": text}) + "\n")
    return source


def datatrove_seconds(source: Path, language: str) -> float:
    """CPU seconds of datatrove's four stages."""
    seconds = spent([sys.executable, "-m", "tests.benchmarks.dedup", "--peer", str(source), "--language", language])
    shutil.rmtree(source.parent / f"datatrove-{language}")
    return seconds


def text_dedup_seconds(python: Path, source: Path) -> float:
    """CPU seconds of text-dedup's MinHash script: words, 5 of them, 32 bands of 8, threshold .7, one process."""
    work = source.parent / "text-dedup"
    settings = {
        "path": "json", "data_files": source, "split": "train", "cache_dir": work / "cache", "output": work / "output",
        "use_auth_token": "false", "column": "text", "batch_size": 10_000, "num_proc": 1, "ngram": 5,
        "num_perm": 256, "threshold": THRESHOLD, "b": 32, "r": 8,
    }  # fmt: skip
    line = [str(python), "-m", "text_dedup.minhash", *(f"--{name}={value}" for name, value in settings.items())]
    lacks = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    seconds = spent(line, env={**lacks, "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(work / "hf")})
    shutil.rmtree(work)
    return seconds


def run_datatrove(source: Path, language: str) -> None:
    """Signatures, buckets, clusters, filter, in this process."""
    import xxhash
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.typeshelper import Languages

    work = source.parent / f"datatrove-{language}"
    config = MinhashConfig(num_buckets=14, hashes_per_bucket=8)
    tongue = Languages.mandarin_chinese if language == "zh" else Languages.english
    reader = JsonlReader(str(source.parent), glob_pattern=source.name)
    signer = MinhashDedupSignature(output_folder=f"{work}/s", config=config, language=tongue)
    signer._hash_func = lambda shingle: xxhash.xxh64_intdigest(shingle.encode())  # its own takes no string of xxhash 4
    stages: list[tuple[list[Any], int]] = [
        ([reader, signer], 1),
        ([MinhashDedupBuckets(input_folder=f"{work}/s", output_folder=f"{work}/b", config=config)], config.num_buckets),
        ([MinhashDedupCluster(input_folder=f"{work}/b", output_folder=f"{work}/r", config=config)], 1),
        ([reader, MinhashDedupFilter(input_folder=f"{work}/r"), JsonlWriter(f"{work}/o")], 1),
    ]
    for number, (steps, tasks) in enumerate(stages):
        LocalPipelineExecutor(
            pipeline=steps, tasks=tasks, workers=1, logging_dir=f"{work}/l{number}", skip_completed=False
        ).run()


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; --run and --peer are calls of ourselves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=FOLDER)
    parser.add_argument("--engine", default="spark")
    parser.add_argument("--recall-documents", type=int, default=58_000, help="a fifth are copies, over three bins")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--peer-documents", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5, help="of ours and the peers in turn, after a warm-up")
    parser.add_argument("--part", action="append", default=[], choices=PARTS, help="only this one (repeatable)")
    parser.add_argument("--text-dedup", type=Path, help="a Python that has text-dedup 0.4.0")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--language", default="zh", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    """Recall, then CPU."""
    options = options_of()
    if options.run:
        ctx = context(options.run, options.engine)
        dedup_documents.run(dedup_documents.Config(), ctx)
        ctx.close()
        return
    if options.peer:
        run_datatrove(options.peer, options.language)
        return
    parts = options.part or PARTS
    result: dict[str, Any] = {"name": "dedup", "engine": options.engine, **dict.fromkeys(KEYS)}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if "recall" in parts:
            measure_recall(options, folder, result)
        measure_cpu(options, parts, folder, result)
    result |= {"python": platform.python_version(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    sys.stdout.write(json.dumps(result) + "\n")


def measure_recall(options: argparse.Namespace, folder: Path, result: dict[str, Any]) -> None:
    """recall_70, recall_80, recall_90 (the worse language), removed_unverified."""
    result["removed_unverified"] = 0
    for language in ("zh", "en"):
        found = recall(options.data, language, options.recall_documents, folder / f"recall-{language}")
        result["removed_unverified"] += found["removed_unverified"]
        for name in BINS:
            pairs, hits = found[name]
            share = hits / pairs if pairs else 0.0
            low, high = BINS[name][0], min(1.0, BINS[name][1])
            note(f"{language}  J {low} to {high}: {hits} of {pairs} pairs found, {share:.4f}")
            told = result[f"recall_{name}"]
            result[f"recall_{name}"] = round(share if told is None else min(told, share), 4)
        note(f"{language}  {found['removed']} removed, {found['removed_unverified']} of them without evidence")
    if (options.data / "crawl" / "truth.jsonl.gz").exists():
        result["crawl"] = crawl_table(options.data, folder / "crawl")
        note(f"crawl  {result['crawl']} (pairs, found; of those below the threshold none has to be)")


def measure_cpu(options: argparse.Namespace, parts: Sequence[str], folder: Path, result: dict[str, Any]) -> None:
    """vs_datatrove_zh, vs_text_dedup_en, marginal_us, vs_datatrove_zh_marginal."""
    few, many, some = options.documents, 4 * options.documents, options.peer_documents
    counts = {"few_zh": few, "few_en": few, "many_zh": many, "datatrove": some, "text_dedup": some}
    wanted = {"few_zh": {"cpu", "marginal"}, "few_en": {"cpu"}, "many_zh": {"marginal"}}
    steps: dict[str, Callable[[], float]] = {}
    reading: dict[str, float] = {}
    for name, by in wanted.items():
        if by & set(parts):
            root, reading[name] = made_root(options.data, name[-2:], counts[name], folder)
            steps[name] = partial(job_seconds, root, counts[name], options.engine)
    steps |= peer_steps(options, parts, folder)
    found: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(options.rounds + (options.rounds > 1)):
        for name, step in steps.items():
            seconds = step()
            if number or options.rounds == 1:
                found[name].append(seconds)
    each = {}
    for name, seconds in found.items():
        us = [1e6 * one / counts[name] for one in seconds]
        each[name] = statistics.median(us)
        result[f"us_{name}"] = round(each[name], 1)
        result[f"us_{name}_spread"] = [round(min(us), 1), round(max(us), 1)]
        note(f"{name}: {counts[name]:,} documents, {each[name]:,.0f} us each ({min(us):,.0f} to {max(us):,.0f})")
    if "many_zh" in found:
        read = reading["many_zh"] - reading["few_zh"]
        rounds = zip(found["many_zh"], found["few_zh"], strict=True)
        each["marginal"] = statistics.median(1e6 * (more - less - read) / (many - few) for more, less in rounds)
        result["marginal_us"] = round(each["marginal"], 1)
    for key, peer, ours in (
        ("vs_datatrove_zh", "datatrove", "few_zh"),
        ("vs_datatrove_zh_marginal", "datatrove", "marginal"),
        ("vs_text_dedup_en", "text_dedup", "few_en"),
    ):
        if {peer, ours} <= set(each):
            result[key] = round(each[peer] / each[ours], 1)
    result |= {"rounds": options.rounds, "documents": few, "peer_documents": some}


def peer_steps(options: argparse.Namespace, parts: Sequence[str], folder: Path) -> dict[str, Callable[[], float]]:
    """CPU seconds of each peer that is there and wanted."""
    steps: dict[str, Callable[[], float]] = {}
    some = options.peer_documents
    if "datatrove" in parts and is_there("datatrove", importlib.util.find_spec("datatrove") is not None):
        steps["datatrove"] = partial(datatrove_seconds, peer_source(options.data, "zh", some, folder), "zh")
    if "text-dedup" in parts and is_there("text-dedup", options.text_dedup is not None):
        source = peer_source(options.data, "en", some, folder)
        steps["text_dedup"] = partial(text_dedup_seconds, options.text_dedup, source)
    return steps


def is_there(peer: str, there: bool) -> bool:
    """Whether a peer can be run; says so where it cannot."""
    if not there:
        note(f"{peer} is not installed (tests/benchmarks/requirements.txt): its figures are null")
    return there


if __name__ == "__main__":
    main()
