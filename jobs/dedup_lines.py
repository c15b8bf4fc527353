"""Mark paragraphs and sentences that recur too often over the corpus; nothing is removed here.

Each document's paragraphs and sentences are digested once. A sketch of bounded memory tells which digests may be
frequent, only those are counted exactly, and the spans that leave are written beside the documents; `filter_documents`
cuts them out. What an earlier crawl's documents lost never changes when another is appended: a unit leaves from the
generation on at which it became frequent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.runtime.config import content_config, setting, stage_id
from jobs.runtime.context import Context
from jobs.runtime.cost import Plan, Request
from jobs.runtime.entry import job_main
from jobs.runtime.run import run_stage
from jobs.runtime.stage import Output, Parent, Stage, Unit, UnitResult, hash_unit, unit_table
from jobs.wide_steps import (
    annotate_after,
    check_sketch,
    generation_numbers,
    group_parts,
    parts_beside,
    run_step,
    sketch_shape,
    step_tag,
    survivor_columns_of,
)
from pipelines.datasets import aligned_parts, open_dataset
from pipelines.datasets.books import Equation
from pipelines.datasets.manifest import Manifest, first_sha256
from pipelines.datasets.names import work_prefix
from pipelines.datasets.store import Store
from pipelines.errors import ConfigError

Pairs = Sequence[tuple[dict[str, Any], dict[str, Any]]]  # rows of the part lists: documents, digests

ENGINE = "spark"
DIGESTS_VERSION = 1
VERSION = 1
COUNTED = ("documents", "occurrences")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of dedup_lines."""

    documents: str = setting("documents", "dataset to read", content=False)
    dedup: str = setting("dedup", "annotations: copies that it removes are not counted; empty: all documents are")
    signatures: str = setting("", "signatures whose survivor order holds here too; empty: length, then date, then id")
    digests: str = setting("line_digests", "dataset of digests to write", content=False)
    output: str = setting("lines", "annotations to write", content=False)
    paragraphs: bool = setting(True, "whether paragraphs (lines) are compared")
    sentences: bool = setting(True, "whether the sentences of a paragraph are compared")
    min_bytes: int = setting(30, "shortest unit, in bytes of its normal form: 30 letters of English, 10 Chinese")
    count: str = setting("documents", "what is counted: documents that hold a unit, or all occurrences")
    min_count: int = setting(50, "count from which on a unit recurs too often, inclusive, 2 to 65000")
    policy: str = setting("keep_first", "keep_first: it stays where it came first; drop_everywhere: it goes")
    min_kept_share: float = setting(0.3, "documents that keep a smaller share of their characters are marked hollow")
    sketch_mib: int = setting(1024, "most memory of the sketch in MiB, a power of two", content=False)
    bytes_per_step: int = setting(1 << 30, "digests that one task counts, in bytes", content=False)

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


def plan(config: Config, context: Context, request: Request) -> Plan:
    """The sketch, bytes and time, from a sample of the documents."""
    from jobs.lines_plan import Measure, plan_repeats

    def told(marked: Manifest) -> tuple[int, int]:
        return marked.stats["counted"]["units"], marked.stats["counted"]["candidates"]

    outputs = ("digests", "output")
    measure = Measure(
        job="dedup_lines",
        run=run,
        outputs=outputs,
        told=told,
        bound=config.min_count,
        held=lambda text, _: 8 * text,
        aside_s=1e-6,
    )
    return plan_repeats(config, context, request, measure)


def run(config: Config, context: Context) -> list[Manifest]:
    """Digests, then the counts, then the annotations."""
    from pipelines.dedup.lines import POLICIES
    from pipelines.dedup.spans import span_schema

    for name, allowed in (("count", COUNTED), ("policy", POLICIES)):
        if getattr(config, name) not in allowed:
            raise ConfigError(f"{name} is {getattr(config, name)!r}", mend=f"one of {', '.join(allowed)}")
    sketch_shape(0, config.min_count, config.sketch_mib)  # refused before anything is read
    documents = context.open(config.documents)
    digested = _digest(config, context)
    shape = sketch_shape(digested.stats.get("units", 0), config.min_count, config.sketch_mib)
    digests = open_dataset(context.store, config.digests, digested.version)
    rules = _rules(config)
    stage = Stage(
        job="dedup_lines",
        stage_id=stage_id("dedup_lines", VERSION, config),
        outputs=(Output(dataset=config.output, kind="annotations", schema=span_schema("lines")),),
        worker="jobs.dedup_lines:open_annotator",
        worker_config={"policy": config.policy, "rules": rules, "min_kept_share": config.min_kept_share},
        equations={
            "documents": Equation(total="rows", terms=("annotated", "failed")),
            "characters": Equation(total="in", terms=("out", "removed")),
        },
        config=content_config(config),
    )
    pairs = aligned_parts(documents, digests)
    units = unit_table(_annotation_units(pairs, config.output))
    parents = [Parent(manifest=documents.manifest), Parent(manifest=digested, role="digests")]
    prefix = f"{work_prefix(config.output, stage.stage_id)}/wide/{_history(pairs)}"
    stage = replace(stage, worker_config={**stage.worker_config, "frequent": f"{prefix}/frequent/"})

    def count() -> dict[str, int]:
        return _count(config, context, shape, pairs, stage, prefix, digested.stats.get("units", 0))

    return [digested, annotate_after(context, stage, units, parents, prefix, {"counted": count})]


def _rules(config: Config) -> dict[str, Any]:
    return {"paragraphs": config.paragraphs, "sentences": config.sentences, "min_bytes": config.min_bytes}


def _digest(config: Config, context: Context) -> Manifest:
    """The digests of all documents, of which an earlier version's are taken over."""
    from pipelines.dedup.lines import DIGESTS
    from pipelines.dedup.paragraphs import UnitRules

    documents = context.open(config.documents)
    beside = {"dedup": config.dedup, "signatures": config.signatures}
    settings = {**asdict(UnitRules(**_rules(config))), "count": config.count, **beside}
    found, parents = parts_beside(context, documents, beside)
    units = [
        Unit(
            id=hash_unit(first_sha256(mine), mine["unit"], {role: first_sha256(part) for role, part in theirs.items()}),
            input=mine["input"],
            size_bytes=mine["bytes"],
            spec={
                "key": mine["key"],
                **{role: theirs[role]["key"] if role in theirs else None for role in beside},
                "output": config.digests,
            },
        )
        for mine, theirs in found
    ]
    stage = Stage(
        job="dedup_lines",
        stage_id=stage_id("dedup_lines.digests", DIGESTS_VERSION, settings),
        outputs=(Output(dataset=config.digests, kind="signatures", schema=DIGESTS),),
        worker="jobs.dedup_lines:open_digester",
        worker_config={"rules": _rules(config), "per_document": config.count == "documents"},
        equations={"documents": Equation(total="rows", terms=("digested", "copies", "failed"))},
        config=settings,
    )
    return run_stage(context, stage, units, parents=parents)[config.digests]


def _history(pairs: Pairs) -> str:
    from pipelines.dedup.nodes import history_hashes

    return max(history_hashes(pairs).items(), default=(0, "0"))[1]


def _annotation_units(pairs: Pairs, output: str) -> list[Unit]:
    """A unit a documents part; its id holds the digests up to its generation, on which its spans depend."""
    from pipelines.dedup.nodes import history_hashes

    history, numbers = history_hashes(pairs), generation_numbers(mine for mine, _ in pairs)
    return [
        Unit(
            id=hash_unit(first_sha256(mine), mine["unit"], history[mine["generation"]]),
            input=mine["input"],
            size_bytes=mine["bytes"],
            spec={
                "key": mine["key"],
                "digests": theirs["key"],
                "generation": numbers[mine["generation"]],
                "output": output,
            },
        )
        for mine, theirs in pairs
    ]


def _count(
    config: Config, context: Context, shape: Any, pairs: Pairs, stage: Stage, prefix: str, digests: int
) -> dict[str, int]:
    """Sketches, their sum, exact counts of candidates, what is frequent: each step once; figures for the manifest."""
    groups = group_parts([theirs | {"generation": mine["generation"]} for mine, theirs in pairs], config.bytes_per_step)
    partitions = 1 << min(12, (digests // 20_000_000).bit_length())
    tag = step_tag(shape, groups)
    worker_config = {
        "prefix": prefix,
        "tag": tag,
        "shape": asdict(shape),
        "bound": config.min_count,
        "partitions": partitions,
    }

    def work(step: str, units: list[Unit], worker: str = "jobs.dedup_lines") -> dict[str, int]:
        done = f"{prefix}/{step}-{tag}"
        return run_step(context, stage, f"{worker}:open_{step}", worker_config, units, done)

    work("sketcher", groups)
    work("merger", [Unit(id=hash_unit("merge", prefix), input="sketches")], "jobs.wide_steps")
    check_sketch(context, prefix, tag, shape, digests)
    counted = work("counter", groups)
    frequent = work(
        "decider", [Unit(id=hash_unit("decide", n), input=f"{n}", spec={"n": n}) for n in range(partitions)]
    )
    return {
        "units": digests,
        "candidates": counted.get("candidates", 0),
        "frequent": frequent.get("frequent", 0),
    }


def open_digester(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """Digests of one documents part."""
    from pipelines.datasets.dataset import read_parquet
    from pipelines.dedup.lines import READ_COLUMNS, digest_lines
    from pipelines.dedup.paragraphs import UnitRules

    rules = UnitRules(**worker_config["rules"])

    def digest(unit: Unit) -> UnitResult:
        documents = read_parquet(store.get(unit.spec["key"]), READ_COLUMNS)
        counted = np.ones(documents.num_rows, bool)
        if unit.spec["dedup"]:
            counted = np.asarray(read_parquet(store.get(unit.spec["dedup"]), ["dedup.keep"])["dedup.keep"])
        order = survivor_columns_of(store, documents, unit.spec["signatures"])
        table = digest_lines(documents, counted, rules, per_document=worker_config["per_document"], order=order)
        result = UnitResult(parts={unit.spec["output"]: table})
        names = np.array([(name or "").encode() for name in documents["id"].to_pylist()], object)
        for account, some in (("rows", slice(None)), ("digested", counted), ("copies", ~counted)):
            result.counters.add(f"documents.{account}", names[some])
        result.stats = {"units": (pc.sum(pc.binary_length(table["digests"])).as_py() or 0) // 8}
        return result

    return digest


def open_sketcher(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """The sketch of some parts of digests, stored below `sketches/`."""
    from pipelines.dedup.frequency import SketchShape
    from pipelines.dedup.lines import sketch_parts

    shape = SketchShape(**worker_config["shape"])

    def sketch(unit: Unit) -> UnitResult:
        body = sketch_parts(store, unit.spec["keys"], shape).to_bytes()
        store.put(f"{worker_config['prefix']}/sketches-{worker_config['tag']}/{unit.id}.zst", body)
        return UnitResult()

    return sketch


def open_counter(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """Exact counts of the candidates in some parts, by partition, stored below `counts/`."""
    from pipelines.dedup.frequency import Frequent, SketchShape
    from pipelines.dedup.lines import count_parts
    from pipelines.dedup.nodes import put_table

    prefix, partitions = worker_config["prefix"], worker_config["partitions"]
    shape = SketchShape(**worker_config["shape"])
    frequent = Frequent.from_bytes(shape, store.get(f"{prefix}/candidates-{worker_config['tag']}.zst"))

    def count(unit: Unit) -> UnitResult:
        rows = 0
        for number, table in count_parts(store, unit.spec["keys"], unit.spec["generation"], frequent, partitions):
            put_table(store, f"{prefix}/counts-{worker_config['tag']}/{number:04d}/{unit.id}", table)
            rows += table.num_rows
        return UnitResult(stats={"candidates": rows})

    return count


def open_decider(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """The frequent units of one range of digests, stored below `frequent/`."""
    import pyarrow.parquet as pq

    from pipelines.datasets.dataset import read_parquet
    from pipelines.dedup.frequency import frequent_digests

    prefix = worker_config["prefix"]

    def decide(unit: Unit) -> UnitResult:
        number = unit.spec["n"]
        stored: Iterable[Any] = store.list(f"{prefix}/counts-{worker_config['tag']}/{number:04d}/")
        table = frequent_digests([read_parquet(store.get(o.key)) for o in stored], worker_config["bound"])
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        store.put(f"{prefix}/frequent/{number:04d}.parquet", sink.getvalue().to_pybytes())
        return UnitResult(stats={"frequent": table.num_rows})

    return decide


def open_annotator(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """The annotations of one documents part: same rows, same order."""
    from pipelines.datasets.dataset import read_parquet
    from pipelines.dedup.lines import FrequentUnits, line_spans
    from pipelines.dedup.paragraphs import UnitRules
    from pipelines.dedup.spans import annotate_spans

    rules, policy = UnitRules(**worker_config["rules"]), worker_config["policy"]
    frequent = FrequentUnits(store, sorted(stored.key for stored in store.list(worker_config["frequent"])))

    def annotate(unit: Unit) -> UnitResult:
        documents = read_parquet(store.get(unit.spec["key"]), ["id", "text"])
        digests = read_parquet(store.get(unit.spec["digests"]), ["place", "tie", "digests"])
        spans = line_spans(documents["text"], digests, unit.spec["generation"], frequent, rules, policy)
        characters = pc.fill_null(pc.utf8_length(documents["text"]), 0).to_pylist()
        table = annotate_spans("lines", documents["id"], characters, spans, worker_config["min_kept_share"])
        result = UnitResult(parts={unit.spec["output"]: table})
        names = [(name or "").encode() for name in documents["id"].to_pylist()]
        result.counters.add("documents.rows", names)
        result.counters.add("documents.annotated", names)
        result.counters.add_count("characters.in", sum(characters))
        result.counters.add_count("characters.out", sum(characters) - (pc.sum(table["lines.removed"]).as_py() or 0))
        for found in spans:
            for start, end, rule in found:
                result.counters.add_count(f"characters.removed.{rule}", end - start)
        result.stats = {
            "changed": sum(bool(found) for found in spans),
            "hollow": pc.sum(table["lines.hollow"]).as_py() or 0,
        }
        return result

    return annotate


if __name__ == "__main__":
    job_main("dedup_lines")
