"""Deduplication whole: recall on planted copies, no removal without evidence, CPU a document beside the peers.

`python -m tests.benchmarks.dedup [--data FOLDER] [--recall-documents N] [--documents N] [--engine process]` prints a
table on stderr and one JSON line on stdout. Similarities are worked out anew as sets of n-grams in the unit of the
job (characters in Chinese, words in English) of its normal form; a pair counts as found when its two documents are not
both kept. CPU is user and system of the job's process and all its children, JVM and Python workers included, from
documents that lie as Parquet; `marginal_us` is what each document beyond the first `--documents` costs, up to four
times as many, less reading them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
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


def spent(command: list[str]) -> float:
    """CPU seconds of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def job_seconds(data: Path, language: str, count: int, engine: str, folder: Path) -> tuple[float, float]:
    """(CPU seconds of the whole job, CPU seconds of reading its documents)."""
    root = folder / f"{language}-{count}"
    commit(context(root, "process"), [text for text, _ in documents(data, language, count, seed=1)])
    shutil.rmtree(root / "made", ignore_errors=True)
    begun = time.process_time()
    for _ in open_dataset(open_store(root), "documents").batches(["id", "text", "date", "file", "offset"]):
        pass
    reading = time.process_time() - begun
    seconds = spent([sys.executable, "-m", "tests.benchmarks.dedup", "--run", str(root), "--engine", engine])
    stats = open_dataset(open_store(root), "dedup").manifest.stats["pairs"]
    told = {name: stats[name] for name in ("exact", "by_round", "rejected", "too_unlike", "verified", "shuffle_bytes")}
    note(f"{language}  {count:,} documents: {seconds:.1f} s CPU, {seconds / count * 1e6:.0f} us each; {told}")
    shutil.rmtree(root)
    return seconds, reading


def datatrove_seconds(data: Path, language: str, count: int, folder: Path) -> float | None:
    """CPU seconds a document of datatrove's four stages."""
    try:
        import datatrove  # noqa: F401
    except ImportError as error:
        note(f"datatrove is not installed ({error}): its figures are null")
        return None
    source = folder / f"{language}.jsonl"
    with source.open("w") as file:
        for number, (text, _) in enumerate(documents(data, language, count, seed=1)):
            file.write(json.dumps({"id": str(number), "text": text}) + "\n")
    command = [sys.executable, "-m", "tests.benchmarks.dedup", "--peer", str(source), "--language", language]
    seconds = spent(command) / count
    note(f"{language}  datatrove, four stages, {count:,} documents: {seconds * 1e6:,.0f} us each")
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
    parser.add_argument("--skip", action="append", default=[], choices=["recall", "cpu", "peers"])
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
    result: dict[str, Any] = {"name": "dedup", "engine": options.engine}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if "recall" not in options.skip:
            measure_recall(options, folder, result)
        if "cpu" not in options.skip:
            measure_cpu(options, folder, result)
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
            result[f"recall_{name}"] = round(min(result.get(f"recall_{name}", 1.0), share), 4)
        note(f"{language}  {found['removed']} removed, {found['removed_unverified']} of them without evidence")
    if (options.data / "crawl" / "truth.jsonl.gz").exists():
        result["crawl"] = crawl_table(options.data, folder / "crawl")
        note(f"crawl  {result['crawl']} (pairs, found; of those below the threshold none has to be)")


def measure_cpu(options: argparse.Namespace, folder: Path, result: dict[str, Any]) -> None:
    """vs_datatrove_zh, vs_text_dedup_en, marginal_us, vs_datatrove_zh_marginal."""
    few, many = options.documents, 4 * options.documents
    less, read_less = job_seconds(options.data, "zh", few, options.engine, folder)
    more, read_more = job_seconds(options.data, "zh", many, options.engine, folder)
    marginal = ((more - less) - (read_more - read_less)) / (many - few)
    result["us_a_document_zh"] = round(less / few * 1e6, 1)
    result["marginal_us"] = round(marginal * 1e6, 1)
    english, _ = job_seconds(options.data, "en", few, options.engine, folder)
    result["us_a_document_en"] = round(english / few * 1e6, 1)
    peer = None
    if "peers" not in options.skip:
        peer = datatrove_seconds(options.data, "zh", options.peer_documents, folder)
        note("text-dedup needs packages of its own that do not go with ours: its figure is null")
    result["vs_datatrove_zh"] = None if peer is None else round(peer / (less / few), 1)
    result["vs_datatrove_zh_marginal"] = None if peer is None else round(peer / marginal, 1)
    result["vs_text_dedup_en"] = None


if __name__ == "__main__":
    main()
