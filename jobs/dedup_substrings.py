"""Mark runs of characters that stand in an earlier document as well; nothing is removed here.

Documents are read twice for the anchors of their windows: once for a sketch that tells which anchors occur again, once
to set those windows aside, dealt out by anchor into partitions of bounded size. A partition finds its repeats by
itself. An appended crawl reads the texts of those before it again, but changes nothing that was marked in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.runtime.config import content_config, setting, stage_id
from jobs.runtime.context import Context
from jobs.runtime.cost import Plan, Request
from jobs.runtime.entry import job_main
from jobs.runtime.stage import Output, Stage, Unit, UnitResult, hash_unit, unit_table
from jobs.wide_steps import (
    annotate_after,
    check_sketch,
    group_parts,
    parts_beside,
    run_step,
    sketch_shape,
    step_tag,
    survivor_columns_of,
)
from pipelines.datasets import Dataset
from pipelines.datasets.books import Equation
from pipelines.datasets.manifest import Manifest, first_sha256
from pipelines.datasets.names import work_prefix
from pipelines.datasets.store import Store

Pairs = list[tuple[dict[str, Any], dict[str, Any]]]  # rows: documents; key and sha256 of what is known of them

ENGINE = "spark"
VERSION = 1
SLICE_BYTES = 8 << 20  # of text at a time, of which 30 times as much is held
SPOOL_BYTES = 32 << 20  # windows that a task holds before it writes them out
BLOCK_ROWS, BLOCKS = 20_000, 256  # repeats are stored by range of so many documents or more, at most so many ranges


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of dedup_substrings."""

    documents: str = setting("documents", "dataset to read", content=False)
    dedup: str = setting("dedup", "annotations: copies that it removes are not looked at; empty: all documents are")
    signatures: str = setting("", "signatures whose survivor order holds here too; empty: length, then date, then id")
    output: str = setting("substrings", "annotations to write", content=False)
    min_characters: int = setting(100, "length from which on a run of characters repeats, inclusive, 20 to 10000")
    min_kept_share: float = setting(0.3, "documents that keep a smaller share of their characters are marked hollow")
    sketch_mib: int = setting(1024, "most memory of the sketch of anchors in MiB, a power of two", content=False)
    bytes_per_step: int = setting(1 << 30, "documents that one task reads, in bytes as stored", content=False)
    windows_per_partition: int = setting(100_000, "anchors whose windows one task compares, each 1 kB", content=False)

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


def plan(config: Config, context: Context, request: Request) -> Plan:
    """The sketch, bytes and time, from a sample of the documents."""
    from jobs.lines_plan import Measure, plan_repeats

    def told(marked: Manifest) -> tuple[int, int]:
        return marked.stats["windows"]["anchors"], marked.stats["windows"]["candidates"]

    def held(text: float, windows: float) -> float:
        return max(30 * min(text, SLICE_BYTES), 2500 * min(windows, config.windows_per_partition))

    measure = Measure(
        job="dedup_substrings",
        run=run,
        outputs=("output",),
        told=told,
        bound=2,
        held=held,
        aside_s=7.5e-6,
        expected=lambda documents: _expected_anchors(documents, config.min_characters),
    )
    return plan_repeats(config, context, request, measure)


def run(config: Config, context: Context) -> list[Manifest]:
    """The repeats, then the annotations."""
    from pipelines.dedup.nodes import history_hashes, number_parts
    from pipelines.dedup.spans import span_schema
    from pipelines.dedup.substring import SubstringRules

    rules = SubstringRules(length=config.min_characters)
    documents = context.open(config.documents)
    shape = sketch_shape(_expected_anchors(documents, rules.length), 2, config.sketch_mib)
    beside = {"dedup": config.dedup, "signatures": config.signatures}
    found, parents = parts_beside(context, documents, beside)
    pairs: Pairs = []
    for mine, theirs in found:
        sha256s = {role: first_sha256(part) for role, part in theirs.items()}
        keys = {role: theirs[role]["key"] if role in theirs else "" for role in beside}
        pairs.append((mine, {"key": "", "sha256": hash_unit(first_sha256(mine), sha256s), **keys}))
    history = history_hashes(pairs)
    parts = number_parts(pairs)
    firsts = dict(zip(parts["documents"].to_pylist(), parts["first_node"].to_pylist(), strict=True))
    block = max(BLOCK_ROWS, -(-sum(row["rows"] for row, _ in pairs) // BLOCKS))
    stage = Stage(
        job="dedup_substrings",
        stage_id=stage_id("dedup_substrings", VERSION, config),
        outputs=(Output(dataset=config.output, kind="annotations", schema=span_schema("substrings")),),
        worker="jobs.dedup_substrings:open_annotator",
        equations={
            "documents": Equation(total="rows", terms=("annotated", "failed")),
            "characters": Equation(total="in", terms=("out", "removed")),
        },
        config=content_config(config),
    )
    prefix = f"{work_prefix(config.output, stage.stage_id)}/wide/{max(history.items(), default=(0, '0'))[1]}"
    known = {"repeats": f"{prefix}/repeats", "block": block, "min_kept_share": config.min_kept_share}
    units = [
        Unit(
            id=hash_unit(first_sha256(mine), mine["unit"], history[mine["generation"]]),
            input=mine["input"],
            size_bytes=mine["bytes"],
            spec={"key": mine["key"], "first_node": firsts[mine["key"]], "output": config.output},
        )
        for mine, _ in pairs
    ]
    rows = [
        mine | {role: theirs[role] for role in beside} | {"first_node": firsts[mine["key"]]} for mine, theirs in pairs
    ]
    worker_config = {"prefix": prefix, "shape": asdict(shape), "rules": asdict(rules), "block": block}

    def find() -> dict[str, int]:
        return _find(config, context, replace(stage, worker_config={}), shape, rows, worker_config)

    stage = replace(stage, worker_config=known)
    return [annotate_after(context, stage, unit_table(units), parents, prefix, {"windows": find})]


def _expected_anchors(documents: Dataset, length: int) -> int:
    """At most so many, by what the manifest tells of the texts."""
    characters = documents.manifest.stats.get("characters") or 4 * sum(documents.parts()["bytes"].to_pylist())
    return 2 * characters // (length - length // 4)


def _find(
    config: Config,
    context: Context,
    stage: Stage,
    shape: Any,
    rows: list[dict[str, Any]],
    worker_config: dict[str, Any],
) -> dict[str, int]:
    """Sketches, their sum, windows set aside, repeats: each step once; figures for the manifest."""
    prefix = worker_config["prefix"]
    groups = group_parts(rows, config.bytes_per_step, dedup="dedup", signatures="signatures", first_nodes="first_node")
    tag = step_tag(shape, groups)
    worker_config["tag"] = tag

    def work(step: str, units: list[Unit], worker: str = "jobs.dedup_substrings") -> dict[str, int]:
        done = f"{prefix}/{step}-{tag}-{worker_config.get('partitions', 0)}"
        return run_step(context, stage, f"{worker}:open_{step}", worker_config, units, done)

    sketched = work("sketcher", groups)
    work("merger", [Unit(id=hash_unit("merge", prefix), input="sketches")], "jobs.wide_steps")
    anchors = sketched.get("anchors", 0)
    candidates = check_sketch(context, prefix, tag, shape, anchors)
    partitions = 1 << min(12, max(0, candidates // config.windows_per_partition).bit_length())
    worker_config["partitions"] = partitions
    spooled = work("spooler", groups)
    numbers = [Unit(id=hash_unit("find", n, partitions), input=f"{n}", spec={"n": n}) for n in range(partitions)]
    found = work("finder", numbers)
    return {
        "anchors": anchors,
        "candidates": spooled.get("windows", 0),
        "repeats": found.get("repeats", 0),
        "partitions": partitions,
    }


def _texts(store: Store, unit: Unit, columns: list[str]) -> Iterator[tuple[int, pa.Table, pa.Array, str | None]]:
    """(first node, documents, texts, key of the signatures or None) of each part of a step's unit.

    Copies that were removed have a null text.
    """
    from pipelines.datasets.dataset import read_parquet

    spec = unit.spec
    every = zip(spec["keys"], spec["dedup"], spec["signatures"], spec["first_nodes"], strict=True)
    for key, dedup, signatures, first in every:
        documents = read_parquet(store.get(key), columns)
        texts = documents["text"].combine_chunks()
        if dedup:
            keep = read_parquet(store.get(dedup), ["dedup.keep"])["dedup.keep"].combine_chunks()
            texts = pc.if_else(keep, texts, pa.scalar(None, texts.type))
        yield first, documents, texts, signatures or None


def open_sketcher(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """The sketch of the anchors of some parts, stored below `sketches-TAG/`."""
    from pipelines.dedup.frequency import Sketch, SketchShape
    from pipelines.dedup.normalize import utf8_of
    from pipelines.dedup.substring import SubstringRules, find_anchors, text_slices

    shape, rules = SketchShape(**worker_config["shape"]), SubstringRules(**worker_config["rules"])

    def sketch(unit: Unit) -> UnitResult:
        counted, anchors = Sketch(shape), 0
        for _, _, texts, _ in _texts(store, unit, ["text"]):
            for start, end in text_slices(utf8_of(texts)[1], SLICE_BYTES):
                found = find_anchors(texts.slice(start, end - start), rules)
                counted.add(found.anchor)
                anchors += len(found)
        store.put(f"{worker_config['prefix']}/sketches-{worker_config['tag']}/{unit.id}.zst", counted.to_bytes())
        return UnitResult(stats={"anchors": anchors})

    return sketch


def open_spooler(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """The windows whose anchor occurs again, of some parts, by partition, stored below `windows-.../`."""
    from pipelines.dedup.frequency import Frequent, SketchShape
    from pipelines.dedup.lines import READ_COLUMNS
    from pipelines.dedup.nodes import put_table
    from pipelines.dedup.normalize import utf8_of
    from pipelines.dedup.substring import (
        SubstringRules,
        find_anchors,
        partition_of_anchors,
        text_slices,
        window_rows,
    )

    prefix, partitions = worker_config["prefix"], worker_config["partitions"]
    windows_at = f"{prefix}/windows-{worker_config['tag']}-{partitions}"
    shape, rules = SketchShape(**worker_config["shape"]), SubstringRules(**worker_config["rules"])
    frequent = Frequent.from_bytes(shape, store.get(f"{prefix}/candidates-{worker_config['tag']}.zst"))

    def put(unit: Unit, held: list[pa.Table]) -> None:
        if held:
            rows = pa.concat_tables(held)
            owner = partition_of_anchors(rows["anchor"].to_numpy(), partitions)
            for number in np.unique(owner).tolist():
                part = rows.filter(pa.array(owner == number))
                put_table(store, f"{windows_at}/{number:04d}/{unit.id}", part)

    def spool(unit: Unit) -> UnitResult:
        held: list[pa.Table] = []
        size = windows = 0
        for first, documents, texts, signatures in _texts(store, unit, list(READ_COLUMNS)):
            place, tie = survivor_columns_of(store, documents, signatures)
            node = first + np.arange(documents.num_rows)
            for start, end in text_slices(utf8_of(texts)[1], SLICE_BYTES):
                piece = texts.slice(start, end - start)
                anchors = find_anchors(piece, rules)
                held_here = frequent.holds(anchors.anchor)
                among = slice(start, end)
                order = (unit.spec["generation"], place[among], tie[among], node[among])
                rows = window_rows(piece, anchors, held_here, *order, rules)
                held.append(rows)
                windows, size = windows + rows.num_rows, size + rows.nbytes
                if size > SPOOL_BYTES:
                    put(unit, held)
                    held, size = [], 0
        put(unit, held)
        return UnitResult(stats={"windows": windows})

    return spool


def open_finder(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """The repeats among the windows of one partition, stored below `repeats/` by range of documents."""
    from pipelines.dedup.nodes import put_table, read_tables
    from pipelines.dedup.substring import WINDOWS, SubstringRules, find_repeats

    prefix, rules = worker_config["prefix"], SubstringRules(**worker_config["rules"])
    windows_at = f"{prefix}/windows-{worker_config['tag']}-{worker_config['partitions']}"

    def find(unit: Unit) -> UnitResult:
        place = f"{windows_at}/{unit.spec['n']:04d}/"
        repeats = find_repeats(read_tables(store, [o.key for o in store.list(place)], WINDOWS), rules)
        owner = repeats["node"].to_numpy() // worker_config["block"]
        for block in np.unique(owner).tolist():
            put_table(store, f"{prefix}/repeats/{block:04d}", repeats.filter(pa.array(owner == block)))
        return UnitResult(stats={"repeats": repeats.num_rows})

    return find


def open_annotator(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """The annotations of one documents part: same rows, same order."""
    from pipelines.datasets.dataset import read_parquet
    from pipelines.dedup.spans import annotate_spans
    from pipelines.dedup.substring import RULE, union_spans

    block = worker_config["block"]

    def annotate(unit: Unit) -> UnitResult:
        documents = read_parquet(store.get(unit.spec["key"]), ["id", "text"])
        first, count = unit.spec["first_node"], documents.num_rows
        tables = []
        for number in range(first // block, (first + max(count, 1) - 1) // block + 1):
            keys = [stored.key for stored in store.list(f"{worker_config['repeats']}/{number:04d}/")]
            tables += [read_parquet(store.get(key)) for key in keys]
        spans = union_spans(tables, first, count)
        characters = pc.fill_null(pc.utf8_length(documents["text"]), 0).to_pylist()
        table = annotate_spans("substrings", documents["id"], characters, spans, worker_config["min_kept_share"])
        result = UnitResult(parts={unit.spec["output"]: table})
        names = [(name or "").encode() for name in documents["id"].to_pylist()]
        result.counters.add("documents.rows", names)
        result.counters.add("documents.annotated", names)
        removed = pc.sum(table["substrings.removed"]).as_py() or 0
        result.counters.add_count("characters.in", sum(characters))
        result.counters.add_count("characters.out", sum(characters) - removed)
        result.counters.add_count(f"characters.removed.{RULE}", removed)
        result.stats = {
            "changed": sum(bool(found) for found in spans),
            "hollow": pc.sum(table["substrings.hollow"]).as_py() or 0,
        }
        return result

    return annotate


if __name__ == "__main__":
    job_main("dedup_substrings")
