"""From committed Parquet to committed token shards: megabytes of text a CPU second, beside HF tokenizers.

`python -m tests.benchmarks.tokenization --data FOLDER` prints a table on stderr and one JSON line on stdout. Documents
are passages of the texts with clauses shuffled and characters changed, each seen once; the vocabulary of 65,536 is
trained on the texts. CPU is this process's user and system time with its children: one warm-up, then ours, the bare
encoder and the same job with HF tokenizers in turn. Bare is reading the text column and encoding it. The job runs in
one process, so no daemon of an engine is in any figure; `ray` tells the same job on two actors, its daemons apart.
Outside the timing every document's ids are compared with SentencePiece's, peak memory is taken of processes that
tokenize 1 to 8 times as much, random tokens are led back to their pages, and `gristmill plan` is held to a run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs import tokenize_documents
from jobs.runtime.artifacts import make_artifact
from jobs.runtime.context import Context
from jobs.runtime.cost import cpu_seconds, peak_memory_mb
from jobs.runtime.run import run_stage
from jobs.runtime.stage import Output, Stage, Unit, UnitResult, hash_unit
from pipelines.datasets import open_dataset
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.schemas import DOCUMENTS
from pipelines.datasets.store import open_store
from pipelines.tokens.encode import Encoder, EncodeRules
from pipelines.tokens.export import hugging_face_json
from pipelines.tokens.locate import locate_token
from pipelines.tokens.sampling import Sampled, learning_texts
from pipelines.tokens.tokenizer import Tokenizer, reserved_ids, train
from pipelines.tokens.vocabulary import model_hash, read_vocabulary
from tests.benchmarks.filters import note
from tests.benchmarks.tokenizers import READ, TRADITIONAL, VOCAB_SIZE, texts_of_lines, times
from tests.benchmarks.told import told_and_used, worst
from tests.pack import FOLDER

TEXTS = {"zh": ("zh_wiki", "zh_tech", "zh_literature"), "en": ("en_docs", "en_books")}
PART_BYTES = 8 << 20
_CLAUSE = re.compile(r"[^。！？；，,.;!?\n]*[。！？；，,.;!?\n]?")
_DOCUMENT_BYTES = 3000
_passages: dict[tuple[str, str], list[str]] = {}


def clauses_of(data: str, language: str) -> list[str]:
    """All clauses of a language's texts."""
    if (data, language) not in _passages:
        texts = [text for name in TEXTS[language] for text in texts_of_lines(Path(data), name)]
        _passages[data, language] = [clause for text in texts for clause in _CLAUSE.findall(text) if clause]
    return _passages[data, language]


def edited(clauses: list[str], rng: random.Random) -> str:
    """A document of clauses drawn in runs of four, one character in 200 another of the same text."""
    made: list[str] = []
    size = 0
    while size < _DOCUMENT_BYTES:
        at = rng.randrange(len(clauses) - 4)
        run = list("".join(clauses[at : at + 4]))
        for _ in range(len(run) // 200 + (rng.random() < len(run) % 200 / 200)):
            other = rng.choice(clauses)
            run[rng.randrange(len(run))] = other[rng.randrange(len(other))]
        made.append("".join(run))
        size += len(made[-1].encode())
    return "".join(made)


def open_made(worker_config: dict[str, Any], _store: Any) -> Any:
    """Parts of edited documents."""

    def make(unit: Unit) -> UnitResult:
        rng, language = random.Random(unit.spec["seed"]), unit.spec["language"]
        clauses = clauses_of(worker_config["data"], language)
        rows, size = [], 0
        while size < PART_BYTES:
            text = edited(clauses, rng)
            size += len(text.encode())
            rows.append(
                {
                    "id": hash_unit(unit.id, len(rows)),
                    "text": text,
                    "url": f"https://site{len(rows) % 97}.example/{unit.spec['seed']}/{len(rows)}",
                    "language": language,
                    "source": "made",
                    "source_type": "web",
                    "domain": f"site{len(rows) % 97}.example",
                    "file": "made.warc.gz",
                    "offset": len(rows),
                    "length": 1,
                }
            )
        return UnitResult(parts={worker_config["dataset"]: pa.Table.from_pylist(rows, schema=DOCUMENTS)})

    return make


def commit_corpus(context: Context, data: Path, language: str, megabytes: float) -> str:
    """The name of a committed corpus of about so much text."""
    name = f"corpus-{language}"
    count = max(1, round(megabytes * 1e6 / PART_BYTES))
    units = [
        Unit(id=hash_unit(name, i), input=f"part-{i}", spec={"seed": i, "language": language}) for i in range(count)
    ]
    stage = Stage(
        job="made_corpus",
        stage_id=hash_unit("made_corpus"),
        outputs=(Output(dataset=name, kind="documents", schema=DOCUMENTS),),
        worker="tests.benchmarks.tokenization:open_made",
        worker_config={"dataset": name, "data": str(data)},
    )
    run_stage(context, stage, units, engine="process")
    return name


def trained(data: Path) -> bytes:
    """The vocabulary."""
    documents = [
        Sampled(text=text, language=name[:2], times=count)
        for name, read in READ.items()
        for number, text in enumerate(texts_of_lines(data, name))
        if (count := times(read, number))
    ]
    return train(learning_texts(documents, TRADITIONAL), VOCAB_SIZE)


def commit_tokenizer(context: Context, model: bytes) -> None:
    """As train_tokenizer commits it."""
    files = {"tokenizer.model": model, "tokenizer.json": hugging_face_json(read_vocabulary(model))}
    stats = {"vocab_size": VOCAB_SIZE, "model_hash": model_hash(model), **reserved_ids()}
    make_artifact(
        context, "tokenizer", "tokenizer", job="train_tokenizer", stage_id="0" * 32, config={},
        make=lambda: (files, stats),
    )  # fmt: skip


def tokenized(context: Context, corpus: str, output: str, encoder: str, shard_tokens: int) -> float:
    """CPU seconds of the job."""
    began = cpu_seconds()
    config = tokenize_documents.Config(
        corpus=corpus, quality="", output=output, encoder=encoder, shard_tokens=shard_tokens
    )
    tokenize_documents.run(config, context)
    return cpu_seconds() - began


def bare(context: Context, corpus: str, model: bytes) -> float:
    """CPU seconds of reading the texts and encoding them, in batches as the job does."""
    dataset, encoder = open_dataset(context.store, corpus), Encoder(Tokenizer(model))
    began = cpu_seconds()
    for key in dataset.parts()["key"].to_pylist():
        encoder.encode(read_parquet(context.store.get(key), ["text"])["text"], EncodeRules())
    return cpu_seconds() - began


def differing(context: Context, corpus: str, output: str, model: bytes) -> tuple[int, int]:
    """(documents whose ids are not SentencePiece's, documents) over all shards; a missing document counts too."""
    tokenizer, dataset = Tokenizer(model), open_dataset(context.store, output)
    left = {}
    for key in open_dataset(context.store, corpus).parts()["key"].to_pylist():
        table = read_parquet(context.store.get(key), ["id", "text"])
        left |= dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
    count, wrong = len(left), 0
    docs = {(row["unit"], row["cell"]): row["key"] for row in dataset.parts("docs").to_pylist()}
    for row in dataset.parts("shard").to_pylist():
        tokens = np.frombuffer(context.store.get(row["key"]), "<u2")
        table = read_parquet(context.store.get(docs[row["unit"], row["cell"]]), ["id", "first_token", "tokens"])
        for name, first, size in zip(*(column.to_pylist() for column in table.columns), strict=True):
            wrong += tokens[first : first + size - 1].tolist() != tokenizer.encode(left.pop(name))
    return wrong + len(left), count


def on_ray(root: Path, corpus: str, output: str) -> dict[str, float]:
    """CPU seconds of the job on two of Ray's actors: of the driver, of the actors, and of Ray's own processes.

    Actors end within the job, so all processes are looked at four times a second.
    """
    context = Context(store=open_store(root), engine="ray", parallelism=2)
    ended = threading.Event()
    context.ray()
    before = _cpu_of_all()
    seen = dict(before)

    def watch() -> None:
        while not ended.wait(0.25):
            seen.update(_cpu_of_all())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        tokenized(context, corpus, output, "fast", 4 << 20)
    finally:
        ended.set()
        watcher.join()
        seen.update(_cpu_of_all())
        context.close()
    used: dict[str, float] = {"driver": 0.0, "actors": 0.0, "daemons": 0.0}
    for pid, (name, seconds) in seen.items():
        kind = "driver" if pid == os.getpid() else "actors" if b"UnitActor" in name else "daemons"
        used[kind] += seconds - before.get(pid, (b"", 0.0))[1]
    return {kind: round(seconds, 2) for kind, seconds in used.items()}


def _cpu_of_all() -> dict[int, tuple[bytes, float]]:
    """(command line, CPU seconds) of this process and of all below it, now."""
    parents: dict[int, int] = {}
    found: dict[int, tuple[bytes, float]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            name = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        parents[int(entry.name)] = int(fields[1])
        found[int(entry.name)] = (name, sum(int(n) for n in fields[11:13]) / os.sysconf("SC_CLK_TCK"))

    def is_below(pid: int) -> bool:
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    return {pid: value for pid, value in found.items() if is_below(pid)}


def way_back_seconds(root: Path, output: str, count: int = 50) -> tuple[float, float]:
    """Seconds to find a token's page: the slowest of `count` tokens in this process, and one as a whole command."""
    store, rng = open_store(root), random.Random(0)
    shards = open_dataset(store, output).parts("shard").select(["key", "tokens"]).to_pylist()
    slowest = 0.0
    for _ in range(count):
        shard = rng.choice(shards)
        began = time.perf_counter()
        found = locate_token(store, shard["key"], rng.randrange(shard["tokens"]))
        slowest = max(slowest, time.perf_counter() - began)
        assert found["url"] and found["file"] and found["offset"] is not None
    place = f"{Path(shards[-1]['key']).stem}:{shards[-1]['tokens'] - 1}"
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "cluster.cli", "explain", place, "--root", str(root)], check=True, capture_output=True
    )
    return round(slowest, 4), round(time.perf_counter() - began, 2)


def peak(data: Path, folder: Path, model: bytes, megabytes: float) -> float:
    """MB at most of a process that tokenizes so much, which was made before."""
    context = Context(store=open_store(folder), engine="process")
    commit_tokenizer(context, model)
    commit_corpus(context, data, "zh", megabytes)
    command = [sys.executable, "-m", "tests.benchmarks.tokenization", "--peak", str(folder)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> int:
    """The rounds, the full check, the memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=FOLDER)
    parser.add_argument("--megabytes", type=float, default=32.0, help="of text, each language")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", type=Path, metavar="ROOT", help="tokenize what lies there, print MB")
    parser.add_argument("--model", type=Path, help="instead of training one")
    arguments = parser.parse_args()
    if arguments.peak:
        tokenized(Context(store=open_store(arguments.peak), engine="process"), "corpus-zh", "tokens", "fast", 1 << 20)
        sys.stdout.write(f"{peak_memory_mb():.0f}\n")
        return 0
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        context = Context(store=open_store(Path(folder) / "root"), engine="process")
        model = arguments.model.read_bytes() if arguments.model else trained(arguments.data)
        commit_tokenizer(context, model)
        over, wrong, documents = [], 0, 0
        for language in TEXTS:
            corpus = commit_corpus(context, arguments.data, language, arguments.megabytes)
            parts = open_dataset(context.store, corpus).parts()["key"].to_pylist()
            size = sum(read_parquet(context.store.get(key), ["text"])["text"].nbytes for key in parts) / 1e6
            seconds: dict[str, list[float]] = {"ours": [], "hf": [], "bare": []}
            for n in range(arguments.rounds + 1):
                made = {
                    "ours": tokenized(context, corpus, f"{language}-{n}", "fast", 4 << 20),
                    "bare": bare(context, corpus, model),
                    "hf": tokenized(context, corpus, f"{language}-hf-{n}", "tokenizers", 4 << 20),
                }
                for name, value in made.items():
                    if n:
                        seconds[name].append(value)
            middle = {name: statistics.median(values) for name, values in seconds.items()}
            for name, values in seconds.items():
                spread = f"{min(values):.2f} to {max(values):.2f} s"
                note(f"{language} {name:5} {size / middle[name]:6.1f} MB/CPU s ({spread})")
            result[f"{language}_mb_per_cpu_s"] = round(size / middle["ours"], 1)
            result[f"vs_hf_{language}"] = round(middle["hf"] / middle["ours"], 2)
            over.append(middle["ours"] / middle["bare"])
            found = differing(context, corpus, f"{language}-0", model)
            wrong, documents = wrong + found[0], documents + found[1]
            same = {open_dataset(context.store, f"{language}{x}-0").manifest.content_sum for x in ("", "-hf")}
            result[f"{language}_shards_equal_hf"] = len(same) == 1
        result |= {"cpu_over_bare": round(max(over), 2), "ids_differ": wrong, "documents": documents}
        root = Path(folder) / "root"
        result["explain_s"], result["explain_command_s"] = way_back_seconds(root, "zh-0")
        result["plan"] = told_and_used(root, "tokenize_documents", "planned", "corpus=corpus-zh", "quality=")
        result["plan_off"] = worst(result["plan"])
        result["ray_cpu_s"] = on_ray(root, "corpus-zh", "zh-ray")
        result["peak_mb"] = {
            f"{n}x": peak(arguments.data, Path(folder) / f"{n}x", model, 16.0 * n) for n in (1, 2, 4, 8)
        }
    note(f"CPU on Ray {result['ray_cpu_s']}; plan {result['plan']}; way back {result['explain_s']} s")
    note(f"peak memory {result['peak_mb']}; {documents} documents, {wrong} differ")
    versions = {name: importlib.metadata.version(name) for name in ("sentencepiece", "tokenizers", "numba", "pyarrow")}
    result |= {"versions": versions, "machine": platform.machine(), "at": time.strftime("%Y-%m-%d")}
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
