"""Documents datasets for tests of the jobs that read them: rows in, a committed version out."""

from __future__ import annotations

import random

import pyarrow as pa

from jobs.runtime.run import run_stage
from jobs.runtime.stage import Output, Stage, Unit, UnitResult, hash_unit
from pipelines.datasets.schemas import DOCUMENTS

HAN = [chr(code) for code in range(0x4E00, 0x5200)]


def open_worker(worker_config, _store):
    """A unit's rows are its spec."""

    def make(unit):
        table = pa.Table.from_pylist(unit.spec["rows"], schema=DOCUMENTS)
        return UnitResult(parts={worker_config["dataset"]: table})

    return make


def commit_documents(context, parts, name="documents"):
    """Commit `parts`, {input: rows}, as the next version of a documents dataset; equal parts are taken over."""
    units = [
        Unit(
            id=hash_unit(name, part, rows),
            input=part,
            spec={"rows": [_row(part, i, row) for i, row in enumerate(rows)]},
        )
        for part, rows in parts.items()
    ]
    stage = Stage(
        job="made_documents",
        stage_id=hash_unit("made_documents"),
        outputs=(Output(dataset=name, kind="documents", schema=DOCUMENTS),),
        worker="tests.made_documents:open_worker",
        worker_config={"dataset": name},
    )
    return run_stage(context, stage, units, engine="process")[name]


def _row(part, i, row):
    text = row["text"]
    made = {
        "id": hash_unit("id", part, i, text),
        "url": f"https://site{i % 7}.example/{part}/{i}",
        "date": f"2026-11-03T00:{i % 60:02d}:00Z",
        "language": "en" if text and text.isascii() else "zh",
        "source": "made",
        "source_type": "web",
        "domain": f"site{i % 7}.example",
        "file": f"{part}.warc.gz",
        "offset": 1000 * i,
        "length": 500,
    }
    return made | row


def prose(rng: random.Random, language: str, size: int = 200) -> list[str]:
    """Characters or words of a text that is like no other."""
    if language == "zh":
        return [rng.choice(HAN) for _ in range(2 * size)]
    return ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randrange(3, 9))) for _ in range(size)]


def join(units: list[str]) -> str:
    """Characters as one run, words with spaces."""
    return ("" if ord(units[0][0]) > 0x2E80 else " ").join(units)


def edited(rng: random.Random, units: list[str], edits: int) -> list[str]:
    """A copy with so many scattered replacements."""
    copy = list(units)
    for at in rng.sample(range(len(copy)), edits):
        copy[at] = rng.choice(HAN) if ord(copy[at][0]) > 0x2E80 else "changed"
    return copy
