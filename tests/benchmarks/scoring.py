"""CPU of the whole scoring job beside the bare fastText library doing the same preparation and prediction.

`python -m tests.benchmarks.scoring --data FOLDER` prints a table on stderr and one JSON line on stdout. Documents are
edited copies of the texts of the folder, so that none is like another. Ours is `score_quality` in a process of its own,
from Parquet to a committed version: reading, scoring, annotations, books, manifest. The bare library is a process that
reads the same texts from Parquet, prepares each by the definition (`words`) and asks fastText for its prediction.
From both an empty run, on one document, is subtracted: imports, model, compiled code. One warm-up, both in turn, five
rounds, median. `vs_bare_library` is of a model of words alone, which is what the library computes;
`vs_bare_library_form` of the model that train_quality makes by default, whose measures of form and order the library
does not have. `plan` holds what `gristmill plan score_quality` tells to what a run then takes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.told import told_and_used, worst
from tests.pack import FOLDER

DOCUMENTS = 50_000
CHARACTERS = 2500  # of a document, about; pages of a crawl are of this size
ROUNDS = 5
PARTS = 20


def note(line: str) -> None:
    """One line of the table."""
    sys.stderr.write(line + "\n")


def made_documents(data: Path, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Passages of real texts, each with a few words or characters exchanged."""
    from tests.benchmarks.filters import texts_of

    names = ("en_books", "en_docs", "zh_literature", "zh_tech", "zh_wiki")
    texts = [(name[:2], text) for name in names for text in texts_of(data, name)]
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        language, text = texts[rng.randrange(len(texts))]
        size = int(rng.lognormvariate(0, 0.7) * CHARACTERS / (3 if language == "zh" else 1))
        start = rng.randrange(max(1, len(text) - size))
        passage = list(text[start : start + size])
        for _ in range(len(passage) // 100 + 1):
            passage[rng.randrange(len(passage))] = chr(rng.randrange(0x4E00, 0x9000)) if language == "zh" else "x"
        rows.append({"text": "".join(passage), "language": language})
    return rows


def prepare(root: Path, data: Path, count: int) -> int:
    """Documents and two models below `root`; bytes of the texts."""
    from jobs import train_quality
    from jobs.runtime.context import Context
    from pipelines.datasets import open_dataset
    from pipelines.datasets.store import open_store
    from tests.made_documents import commit_documents

    rows = made_documents(data, count)
    each = -(-len(rows) // PARTS)
    for folder, parts in (("full", PARTS), ("empty", 1)):
        ctx = Context(store=open_store(root / folder), engine="process")
        some = {f"crawl-{n:02d}": rows[n * each : (n + 1) * each] for n in range(parts)}
        commit_documents(ctx, some if folder == "full" else {"one": rows[:1]})
        for form in (True, False):
            config = train_quality.Config(output="form" if form else "words", form=form, epochs=5)
            train_quality.run(config, ctx)
            artifact = open_dataset(ctx.store, f"artifacts/{config.output}")
            (root / folder / f"{config.output}.bin").write_bytes(artifact.read_file("model.bin"))
    return sum(len(row["text"].encode()) for row in rows)


def cpu_of(arguments: list[str]) -> tuple[float, str]:
    """(CPU seconds, output) of a process with its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, done.stdout


def ours(root: str, model: str) -> None:
    """The job, in this process; prints its peak memory."""
    from jobs import score_quality
    from jobs.runtime.context import Context
    from jobs.runtime.cost import peak_memory_mb
    from pipelines.datasets.store import open_store

    output = f"quality_{os.getpid()}"
    ctx = Context(store=open_store(root), engine="process")
    (made,) = score_quality.run(score_quality.Config(model=model, output=output), ctx)
    sys.stdout.write(json.dumps({"rows": made.part_list["rows"], "mb": round(peak_memory_mb())}))


def bare(root: str, model: str) -> None:
    """The library, in this process."""
    import fasttext
    import pyarrow.parquet as pq

    from pipelines.quality.words import words

    loaded = fasttext.load_model(f"{root}/{model}.bin")
    rows = 0
    for path in sorted(Path(root, "datasets", "documents", "parts").glob("*.parquet")):
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            prepared = [words(text) for text in file.read_row_group(group, ["text"])["text"].to_pylist()]
            loaded.predict(prepared, k=2)
            rows += len(prepared)
    sys.stdout.write(json.dumps({"rows": rows}))


def main() -> None:
    """Prepare, warm up, measure in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=FOLDER)
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--as", nargs=3, metavar=("WHO", "ROOT", "MODEL"), dest="role")
    options = parser.parse_args()
    if options.role:
        {"ours": ours, "bare": bare}[options.role[0]](*options.role[1:])
        return
    with tempfile.TemporaryDirectory() as folder:
        size = prepare(Path(folder), options.data, options.documents)
        note(f"{options.documents} documents, {size / 1e6:.0f} MB of UTF-8")
        measured: dict[tuple[str, str, str], list[float]] = {}
        memory = 0
        sides = [(who, m, r) for m in ("words", "form") for who in ("ours", "bare") for r in ("full", "empty")]
        sides = [side for side in sides if side[:2] != ("bare", "form")]
        for round_ in range(options.rounds + 1):
            for who, model, which in sides:
                run = ["-m", "tests.benchmarks.scoring", "--as", who, f"{folder}/{which}", model]
                used, told = cpu_of(run)
                if which == "full":
                    assert json.loads(told)["rows"] == options.documents
                    memory = max(memory, json.loads(told).get("mb", 0))
                if round_:
                    measured.setdefault((who, model, which), []).append(used)
        medians = {side: statistics.median(values) for side, values in measured.items()}
        net = {side[:2]: medians[side] - medians[(*side[:2], "empty")] for side in medians if side[2] == "full"}
        for side, values in sorted(measured.items()):
            note(f"{' '.join(side):<24}{statistics.median(values):8.2f} s  ({min(values):.2f} to {max(values):.2f})")
        library = net[("bare", "words")]
        told = told_and_used(Path(folder, "full"), "score_quality", "planned", "model=form")
        result = {
            "vs_bare_library": round(net[("ours", "words")] / library, 3),
            "vs_bare_library_form": round(net[("ours", "form")] / library, 3),
            "documents_per_cpu_s": round(options.documents / net[("ours", "words")]),
            "documents_per_cpu_s_form": round(options.documents / net[("ours", "form")]),
            "documents_per_cpu_s_bare": round(options.documents / library),
            "mb_per_cpu_s": round(size / 1e6 / net[("ours", "words")], 1),
            "memory_mb": memory,
            "plan": told,
            "plan_off": worst(told),
            "documents": options.documents,
            "versions": {n: importlib.metadata.version(n) for n in ("fasttext-community", "numba", "numpy", "pyarrow")}
            | {"python": platform.python_version()},
        }
        for who, value in sorted(net.items()):
            note(f"{' '.join(who):<24}{value:8.2f} s net, {1e6 * value / options.documents:.0f} us a document")
        note(f"plan: {told}")
        note(f"vs_bare_library: {result['vs_bare_library']} (bar: at most 1.25); memory of a process {memory} MB")
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
