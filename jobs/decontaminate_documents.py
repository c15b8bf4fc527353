"""Mark documents that hold n-grams of evaluation sets; nothing is removed here.

13 words, or 30 characters of Chinese, that stand in an evaluation set's example mark a document. First the documents
that hold each n-gram are counted; one in more than `most_documents` of them (after deduplication) is a phrase of the
language, a licence or a boilerplate line and no leak, and counts nothing: the bound of GPT-3. What is left is compared
letter by letter and written beside the documents; `filter_documents` applies it by `contamination`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.runtime.config import content_config, setting, stage_id
from jobs.runtime.context import Context
from jobs.runtime.entry import job_main
from jobs.runtime.stage import Output, Parent, Stage, Unit, UnitResult, hash_unit, unit_table
from jobs.wide_steps import annotate_after, group_parts, run_step
from pipelines.datasets import aligned_parts
from pipelines.datasets.books import Equation
from pipelines.datasets.manifest import Manifest, first_sha256
from pipelines.datasets.names import work_prefix
from pipelines.datasets.store import Store
from pipelines.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.decontamination.overlap import Index

ENGINE = "spark"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of decontaminate_documents."""

    documents: str = setting("documents", "dataset to read", content=False)
    dedup: str = setting("dedup", "annotations: copies that it removes are not counted; empty: all documents are")
    benchmarks: str = setting("", "folder of the evaluation sets: a file or archive each", content=False)
    output: str = setting("contamination", "annotations to write", content=False)
    most_documents: int = setting(10, "an n-gram in more documents counts nothing")
    bytes_per_step: int = setting(1 << 30, "documents that one task counts, in bytes", content=False)

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


def run(config: Config, context: Context) -> list[Manifest]:
    """The index, the counts, then the annotations."""
    from pipelines.decontamination.benchmarks import read_benchmarks
    from pipelines.decontamination.overlap import CONTAMINATION, build_index

    if config.most_documents < 1:
        raise ConfigError(f"most_documents is {config.most_documents}", mend="at least 1; GPT-3 had 10")
    documents = context.open(config.documents)
    dedup = context.open(config.dedup) if config.dedup else None
    index = build_index(read_benchmarks(Path(config.benchmarks)))
    grams, examples = index.to_tables()
    hasher = hashlib.sha256(index.digests.tobytes())
    for row in examples.select(["benchmark", "name"]).to_pylist():
        hasher.update(f"{row['benchmark']}\n{row['name']}\n".encode())
    digest = hasher.hexdigest()
    pairs = aligned_parts(documents, dedup) if dedup is not None else [(r, None) for r in documents.parts().to_pylist()]
    stage = Stage(
        job="decontaminate_documents",
        stage_id=stage_id("decontaminate_documents", VERSION, config, {"benchmarks": digest}),
        outputs=(Output(dataset=config.output, kind="annotations", schema=CONTAMINATION),),
        worker="jobs.decontaminate_documents:open_annotator",
        equations={"documents": Equation(total="rows", terms=("annotated", "failed"))},
        config=content_config(config),
        artifacts=({"name": "benchmarks", "sha256": digest},),
    )
    # what is guarded depends on all documents, so a unit is its part and the whole: an append judges all again
    whole = hash_unit(sorted([first_sha256(a), b and first_sha256(b)] for a, b in pairs))
    units = unit_table(_units(pairs, whole, config.output))
    prefix = f"{work_prefix(config.output, stage.stage_id)}/wide/{whole}"
    stage = replace(stage, worker_config={"prefix": prefix})
    parents = [Parent(manifest=documents.manifest)]
    parents += [Parent(manifest=dedup.manifest, role="dedup")] if dedup is not None else []

    def count() -> dict[str, Any]:
        _put(context.store, f"{prefix}/grams.parquet", grams)
        _put(context.store, f"{prefix}/examples.parquet", examples)
        rows = [a | {"dedup": b and b["key"]} for a, b in pairs]
        groups = group_parts(rows, config.bytes_per_step, dedup="dedup")
        worker = "jobs.decontaminate_documents:open_counter"
        run_step(context, stage, worker, {"prefix": prefix}, groups, f"{prefix}/counted")
        return _decide(context.store, prefix, index, config.most_documents)

    return [annotate_after(context, stage, units, parents, prefix, {"benchmarks": count})]


def _units(pairs: Sequence[tuple[dict[str, Any], Any]], whole: str, output: str) -> list[Unit]:
    return [
        Unit(
            id=hash_unit(first_sha256(mine), mine["unit"], whole),
            input=mine["input"],
            size_bytes=mine["bytes"],
            spec={"key": mine["key"], "output": output},
        )
        for mine, _ in pairs
    ]


def _decide(store: Store, prefix: str, index: Index, most: int) -> dict[str, Any]:
    """Sum the counts, store which n-grams are guarded; what was met, by benchmark."""
    from pipelines.datasets.dataset import read_parquet

    documents = np.zeros(len(index.digests), np.int64)
    for stored in list(store.list(f"{prefix}/hits/")):
        table = read_parquet(store.get(stored.key))
        np.add.at(documents, np.asarray(table["row"]), np.asarray(table["documents"]))
    guarded = documents > most
    _put(store, f"{prefix}/guarded.parquet", pa.table({"guarded": guarded}))
    names = np.array([example.benchmark for example in index.examples], object)
    met = (documents > 0) & ~guarded
    found = np.bincount(index.owner[met], minlength=len(names))
    told: dict[str, Any] = {}
    for name in sorted(set(names.tolist())):
        mine = names == name
        grams = mine[index.owner]
        told[name] = {
            "examples": int(mine.sum()),
            "too_short": int((mine & (index.grams == 0)).sum()),
            "ngrams": int(grams.sum()),
            "ngrams_met": int((grams & met).sum()),
            "ngrams_guarded": int((grams & guarded).sum()),
            "examples_met": int((mine & (found > 0)).sum()),
            "examples_half_met": int((mine & (found > 0) & (2 * found >= index.grams)).sum()),
        }
    return told


def open_counter(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """How many documents of some parts hold each n-gram, stored below `hits/`."""
    from pipelines.datasets.dataset import read_parquet
    from pipelines.decontamination.overlap import count_hits

    prefix = worker_config["prefix"]
    index = _index(store, prefix)

    def count(unit: Unit) -> UnitResult:
        total = np.zeros(len(index.digests), np.int64)
        for key, beside in zip(unit.spec["keys"], unit.spec["dedup"], strict=True):
            texts = read_parquet(store.get(key), ["text"])["text"]
            counted = np.ones(len(texts), bool)
            if beside:
                counted = np.asarray(read_parquet(store.get(beside), ["dedup.keep"])["dedup.keep"])
            rows, documents = count_hits(texts, counted, index)
            total[rows] += documents
        rows = np.flatnonzero(total)
        _put(store, f"{prefix}/hits/{unit.id}.parquet", pa.table({"row": rows, "documents": total[rows]}))
        return UnitResult(stats={"met": len(rows)})

    return count


def open_annotator(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """The annotations of one documents part: same rows, same order."""
    from pipelines.datasets.dataset import read_parquet
    from pipelines.decontamination.overlap import annotate

    prefix = worker_config["prefix"]
    index = _index(store, prefix)
    guarded = np.asarray(read_parquet(store.get(f"{prefix}/guarded.parquet"))["guarded"])

    def mark(unit: Unit) -> UnitResult:
        documents = read_parquet(store.get(unit.spec["key"]), ["id", "text"])
        table = annotate(documents["id"], documents["text"], index, guarded)
        result = UnitResult(parts={unit.spec["output"]: table})
        ids = [(name or "").encode() for name in documents["id"].to_pylist()]
        result.counters.add("documents.rows", ids)
        result.counters.add("documents.annotated", ids)
        hit = table.filter(pc.greater(table["contamination.hits"], 0))
        result.stats = {"contaminated": hit.num_rows}
        for row in pc.value_counts(hit["contamination.benchmark"]).to_pylist():
            result.stats[f"documents_by_benchmark.{row['values']}"] = row["counts"]
        return result

    return mark


def _index(store: Store, prefix: str) -> Index:
    from pipelines.datasets.dataset import read_parquet
    from pipelines.decontamination.overlap import Index

    grams, examples = (read_parquet(store.get(f"{prefix}/{name}.parquet")) for name in ("grams", "examples"))
    return Index.from_tables(grams, examples)


def _put(store: Store, key: str, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    store.put(key, sink.getvalue().to_pybytes())


if __name__ == "__main__":
    job_main("decontaminate_documents")
