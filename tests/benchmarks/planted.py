"""Documents with planted near-copies: spliced from clauses of natural text, so that two bases are strangers.

One document in five is an edited copy of another: scattered edits, or a block replaced, so that similarities fill the
range from 0.6 to 1. Documents go into a store as parts of a documents dataset, without an engine.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.runtime.context import Context
from jobs.runtime.run import run_stage
from jobs.runtime.stage import Output, Stage, Unit, UnitResult, hash_unit
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.schemas import DOCUMENTS
from pipelines.dedup.nodes import put_table
from tests.benchmarks.filters import texts_of
from tests.benchmarks.signatures import PROSE

SIZES = {"zh": 640, "en": 280}  # characters, words: about 1.65 kB
_CLAUSE = {
    "zh": re.compile(r"[^，。！？；：\s]{6,40}[，。！？；：]?"),
    "en": re.compile(r"[^,.;:!?\n]{20,120}[,.;:!?]?"),
}
PART_ROWS = 12_500


def clauses(data: Path, language: str) -> list[list[str]]:
    """Clauses of the folder's prose as characters or words."""
    texts = [text for name in PROSE[language] for text in texts_of(data, name)]
    found = {clause for text in texts for clause in _CLAUSE[language].findall(text)}
    return [list(clause) if language == "zh" else clause.split() for clause in sorted(found)]


def base(rng: random.Random, pool: Sequence[list[str]], size: int) -> list[str]:
    """Units of a text that is like no other."""
    units: list[str] = []
    while len(units) < size:
        units += rng.choice(pool)
    return units[: size + rng.randrange(-size // 8, 1)]


def copy_of(rng: random.Random, units: list[str], other: list[str]) -> list[str]:
    """An edited copy whose similarity is about even from 0.65 to 1: scattered edits, or one block of another text."""
    target = rng.uniform(0.65, 1.0)
    lost = max(1, round(len(units) * (1 - target) / (1 + target)))  # shingles: J = (n - lost) / (n + lost)
    made = list(units)
    if rng.random() < 0.5:
        for at in rng.sample(range(len(made)), max(1, lost // 5)):
            made[at] = rng.choice(other)
        return made
    block = max(1, lost - 4)
    at = rng.randrange(max(1, len(made) - block))
    made[at : at + block] = other[:block]
    return made


def documents(data: Path, language: str, count: int, seed: int = 0) -> Iterator[tuple[str, int | None]]:
    """(text, number of the document that it is a copy of): bases first in each block of ten, then two copies."""
    rng = random.Random(f"{seed} {language}")
    pool = clauses(data, language)
    join = "" if language == "zh" else " "
    size = SIZES[language]
    held: list[tuple[int, list[str]]] = []
    for number in range(count):
        if number % 10 < 8:
            units = base(rng, pool, size)
            held.append((number, units))
            yield join.join(units), None
        else:
            origin, units = held.pop(rng.randrange(len(held)))
            yield join.join(copy_of(rng, units, rng.choice(held)[1])), origin
            if number % 10 == 9:
                held = held[-2000:]


def commit(context: Context, texts: Sequence[str], name: str = "documents") -> None:
    """A documents dataset of these texts, in order, PART_ROWS a part."""
    units = []
    for first in range(0, len(texts), PART_ROWS):
        some = texts[first : first + PART_ROWS]
        table = pa.table(
            {
                "id": [hash_unit(first + i) for i in range(len(some))],
                "text": some,
                "date": ["2026-11-03T00:00:00Z"] * len(some),
                "file": ["made"] * len(some),
                "offset": list(range(first, first + len(some))),
                "domain": [f"site{(first + i) % 997}.example" for i in range(len(some))],
            }
        )
        key = put_table(context.store, "made", table)["key"]
        units.append(Unit(id=hash_unit(key), input=f"made-{first:09d}", spec={"key": key, "dataset": name}))
    stage = Stage(
        job="made_documents",
        stage_id=hash_unit("made_documents"),
        outputs=(Output(dataset=name, kind="documents", schema=DOCUMENTS),),
        worker="tests.benchmarks.planted:open_maker",
    )
    run_stage(context, stage, units, engine="process")


def open_maker(_worker_config: dict[str, Any], store: Any) -> Any:
    """The rows of a stored table."""

    def make(unit: Unit) -> UnitResult:
        return UnitResult(parts={unit.spec["dataset"]: read_parquet(store.get(unit.spec["key"]))})

    return make
