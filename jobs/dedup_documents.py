"""Find exact and near duplicates among the documents and mark them; nothing is removed here.

Signatures are computed once a document and reused when a crawl is appended. Each band is a restartable step:
Spark shuffles digests and numbers (no text) and stores star edges from each bucket's best copy. Every
candidate is then verified by the exact Jaccard similarity of the two texts. Components and survivors are
computed in one task, which needs about 200 bytes a candidate: enough for tens of millions of duplicates, to
be cut by language beyond that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from jobs.runtime.config import content_config, setting, stage_id
from jobs.runtime.context import Context
from jobs.runtime.entry import job_main
from jobs.runtime.lease import lease
from jobs.runtime.run import fingerprint, run_stage
from jobs.runtime.stage import Output, Parent, Stage, Unit, UnitResult, hash_unit, part_units, unit_table
from pipelines.datasets import aligned_parts, open_dataset
from pipelines.datasets.books import Equation
from pipelines.datasets.manifest import PART_LIST, Manifest, latest_manifest
from pipelines.datasets.names import work_prefix
from pipelines.datasets.store import Store

if TYPE_CHECKING:
    from pipelines.dedup.bands import BandPlan

Pairs = Sequence[tuple[dict[str, Any], dict[str, Any]]]  # rows of the part lists: documents, signatures

ENGINE = "spark"
SIGNATURES_VERSION = 2
VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Lsh:
    """Locality-sensitive hashing."""

    num_bands: int = setting(32, "bands of a signature; more find more")
    rows_per_band: int = setting(8, "minima in a band; more make fewer candidates")
    min_similarity: float = setting(0.7, "exact Jaccard similarity from which on a copy is a duplicate, inclusive")

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of dedup_documents."""

    documents: str = setting("documents", "dataset to read", content=False)
    signatures: str = setting("signatures", "dataset of signatures to write", content=False)
    output: str = setting("dedup", "annotations to write", content=False)
    lsh: Lsh = setting(factory=Lsh, doc="locality-sensitive hashing")  # noqa: RUF009
    bands_per_step: int = setting(8, "bands that are shuffled together, a restartable step", content=False)
    pairs_per_unit: int = setting(5000, "candidate pairs that one task verifies", content=False)

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


def run(config: Config, context: Context) -> list[Manifest]:
    """Signatures, then the wide steps, then the annotations."""
    from pipelines.dedup.bands import BandPlan
    from pipelines.dedup.buckets import signatures_schema
    from pipelines.dedup.survivors import ANNOTATIONS

    plan = BandPlan(**asdict(config.lsh))
    documents = context.open(config.documents)
    bands = {"num_bands": plan.num_bands, "rows_per_band": plan.rows_per_band}
    signed = run_stage(
        context,
        Stage(
            job="dedup_documents",
            stage_id=stage_id("dedup_documents.signatures", SIGNATURES_VERSION, bands),
            outputs=(Output(dataset=config.signatures, kind="signatures", schema=signatures_schema(plan)),),
            worker="jobs.dedup_documents:open_signer",
            worker_config=asdict(config.lsh),
            equations={"documents": Equation(total="rows", terms=("signed", "failed"))},
            config=bands,
        ),
        part_units(documents.parts(), output=config.signatures),
        parents=[Parent(manifest=documents.manifest)],
    )[config.signatures]

    signatures = open_dataset(context.store, config.signatures, signed.version)
    stage = Stage(
        job="dedup_documents",
        stage_id=stage_id("dedup_documents", VERSION, config),
        outputs=(Output(dataset=config.output, kind="annotations", schema=ANNOTATIONS),),
        worker="jobs.dedup_documents:open_annotator",
        equations={"documents": Equation(total="rows", terms=("annotated", "failed"))},
        config=content_config(config),
    )
    pairs = aligned_parts(documents, signatures)
    units = unit_table(_annotation_units(pairs, config.output))
    parents = [Parent(manifest=documents.manifest), Parent(manifest=signed, role="signatures")]
    mark = fingerprint(stage.stage_id, config.output, units, [p.manifest for p in parents])
    latest = latest_manifest(context.store, config.output)
    if latest is not None and latest.fingerprint == mark:
        context.progress.say(f"{config.output} v{latest.version} is finished: nothing to do")
        return [signed, latest]
    prefix = f"{work_prefix(config.output, stage.stage_id)}/wide/{_history(pairs)}"
    with lease(context.store, prefix, say=context.progress.say):
        counts = _decide(config, context, plan, pairs, stage, prefix)
        annotate = replace(stage, worker_config={"decisions": f"{prefix}/decisions/"})
        made = run_stage(context, annotate, units, parents=parents, stats={"pairs": counts})[config.output]
    for stored in list(context.store.list(f"{prefix}/")):
        context.store.delete(stored.key)
    return [signed, made]


def _history(pairs: Pairs) -> str:
    from pipelines.dedup.nodes import history_hashes

    return max(history_hashes(pairs).items(), default=(0, "0"))[1]


def _annotation_units(pairs: Pairs, output: str) -> list[Unit]:
    """A unit a documents part; its id holds what its decisions depend on: signatures up to its generation.

    So an appended crawl takes over the old parts, and a leftover of other inputs is never taken for ours.
    """
    from pipelines.dedup.nodes import history_hashes, number_parts

    history = history_hashes(pairs)
    firsts = {row["documents"]: row["first_node"] for row in number_parts(pairs).to_pylist()}
    return [
        Unit(
            id=hash_unit(mine["sha256"], mine["unit"], history[mine["generation"]]),
            input=mine["input"],
            size_bytes=mine["rows"],
            spec={"key": mine["key"], "first_node": firsts[mine["key"]], "output": output},
        )
        for mine, _ in pairs
    ]


def _decide(
    config: Config, context: Context, plan: BandPlan, pairs: Pairs, stage: Stage, prefix: str
) -> dict[str, int]:
    """The wide steps, each done once: stars a band, candidates, verification, decisions; counts of pairs."""
    from jobs.dedup_exchange import ProcessExchange, SparkExchange
    from jobs.runtime.done import read_done
    from jobs.runtime.execute import Task
    from pipelines.datasets.books import total_counters
    from pipelines.dedup.buckets import EXACT_KEYS, band_keys
    from pipelines.dedup.nodes import number_parts, put_table

    store, parts = context.store, number_parts(pairs)
    spark = context.engine == "spark"
    tables = f"{prefix}/tables"
    exchange = SparkExchange(context.spark(), store, tables) if spark else ProcessExchange(store, tables)
    names, step = band_keys(plan), max(1, config.bands_per_step)
    groups = [list(EXACT_KEYS), *(names[start : start + step] for start in range(0, len(names), step))]
    stars = []
    with context.progress.stage("dedup_documents: bands", len(groups)) as tick:
        for columns in groups:
            name = f"{prefix}/steps/{columns[0]}-{columns[-1]}"
            stars.append(_once(store, name, lambda columns=columns: exchange.stars(parts, columns)))
            tick(PART_LIST.empty_table())
    exact, bands = stars[0], [table for stored in stars[1:] for table in stored]
    chunks = _once(
        store,
        f"{prefix}/steps/candidates",
        lambda: exchange.candidates(exact, bands, config.pairs_per_unit),
    )
    worker_config = {
        "prefix": prefix,
        "parts": put_table(store, tables, parts)["key"],
        "min_similarity": plan.min_similarity,
        "exact": [table["key"] for table in exact],
    }

    def work(step: str, units: list[Unit]) -> dict[str, tuple[int, int]]:
        wide = Stage(
            job=f"dedup_documents: {step}",
            stage_id=stage.stage_id,
            outputs=(Output(dataset=stage.home, kind="annotations"),),
            worker=f"jobs.dedup_documents:open_{step}",
            worker_config=worker_config,
        )
        done = f"{prefix}/{step}"
        table = unit_table(units)
        left = table.filter(pc.invert(pc.is_in(table["unit"], read_done(store, done)["unit"].combine_chunks())))
        task = Task(location=store.location, stage=wide, done_prefix=done, flush_seconds=context.flush_seconds)
        with context.progress.stage(wide.job, left.num_rows) as tick:
            for rows in context.map(task, left):
                tick(rows)
        return total_counters(read_done(store, done)["counters"])

    units = [Unit(id=hash_unit("verify", c["key"]), input=c["key"], size_bytes=c["rows"], spec=c) for c in chunks]
    verified = work("verifier", units)
    work("decider", [Unit(id=hash_unit("decide", prefix), input="components")])
    return {
        "exact": sum(table["rows"] for table in exact),
        "candidates": sum(c["rows"] for c in chunks),
        "verified": verified.get("stats.verified", (0, 0))[0],
    }


def _once(store: Store, name: str, make: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What `make` stored, remembered by a done record: a step that was finished is not done again."""
    key = f"{name}.json"
    if store.head(key) is None:
        store.put(key, json.dumps(make(), sort_keys=True).encode(), create_only=True)
    return json.loads(store.get(key))


def open_signer(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """Signatures of one documents part."""
    from pipelines.datasets.dataset import read_parquet
    from pipelines.dedup.bands import BandPlan
    from pipelines.dedup.buckets import READ_COLUMNS, sign_documents

    plan = BandPlan(**worker_config)

    def sign(unit: Unit) -> UnitResult:
        documents = read_parquet(store.get(unit.spec["key"]), READ_COLUMNS)
        result = UnitResult(parts={unit.spec["output"]: sign_documents(documents, plan)})
        ids = [(document or "").encode() for document in documents["id"].to_pylist()]
        result.counters.add("documents.rows", ids)
        result.counters.add("documents.signed", ids)
        return result

    return sign


def open_verifier(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """The exact similarity of one table of candidate pairs; those that hold are stored below `pairs/`."""
    from pipelines.datasets.dataset import read_parquet
    from pipelines.dedup.buckets import verify_edges
    from pipelines.dedup.nodes import put_table

    parts = read_parquet(store.get(worker_config["parts"]))

    def verify(unit: Unit) -> UnitResult:
        edges = read_parquet(store.get(unit.spec["key"]))
        pairs = verify_edges(store, parts, edges, worker_config["min_similarity"])
        put_table(store, f"{worker_config['prefix']}/pairs", pairs)
        return UnitResult(stats={"verified": pairs.num_rows})

    return verify


def open_decider(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """Components and survivors over all verified pairs, in this one task; stored below `decisions/`."""
    from pipelines.datasets.dataset import read_parquet
    from pipelines.dedup.nodes import put_decisions, read_order, read_pairs
    from pipelines.dedup.survivors import decide

    def decide_all(_unit: Unit) -> UnitResult:
        prefix = worker_config["prefix"]
        parts = read_parquet(store.get(worker_config["parts"]))
        near = [stored.key for stored in store.list(f"{prefix}/pairs/")]
        left, right, similarity = read_pairs(store, worker_config["exact"], near)
        nodes = np.unique(np.concatenate([left, right]))
        decisions = decide(read_order(store, parts, nodes), left, right, similarity)
        put_decisions(store, f"{prefix}/decisions", decisions)
        return UnitResult()

    return decide_all


def open_annotator(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """The annotations of one documents part: same rows, same order."""
    from pipelines.datasets.dataset import read_parquet
    from pipelines.dedup.nodes import read_decisions
    from pipelines.dedup.survivors import annotate

    prefix = worker_config["decisions"]
    keys = [stored.key for stored in store.list(prefix)]

    def annotations(unit: Unit) -> UnitResult:
        ids = read_parquet(store.get(unit.spec["key"]), ["id"])["id"]
        first = unit.spec["first_node"]
        decisions = read_decisions(store, prefix, keys, first, first + len(ids))
        table = annotate(ids, decisions, first)
        names = [(document or "").encode() for document in ids.to_pylist()]
        result = UnitResult(parts={unit.spec["output"]: table})
        result.counters.add("documents.rows", names)
        result.counters.add("documents.annotated", names)
        kept = pc.sum(table["dedup.keep"]).as_py() or 0
        result.stats = {"kept": kept, "duplicates": table.num_rows - kept}
        return result

    return annotations


if __name__ == "__main__":
    job_main("dedup_documents")
