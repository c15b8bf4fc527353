"""Find exact and near duplicates among the documents and mark them; nothing is removed here.

Signatures are computed once a document and reused when a crawl is appended. Where it is asked for, captures of one URL
leave for one of them. Exact copies meet by their digest, the others by bands of minima: Spark shuffles digests and
numbers, never a text. Every pair that removes a document is checked by the exact similarity of the two texts; a sketch
may only reject. Three rounds at most find for each removed document one that stays. Earlier versions' decisions stand,
and nothing of theirs is compared again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.runtime.config import content_config, setting, stage_id
from jobs.runtime.context import Context
from jobs.runtime.entry import job_main
from jobs.runtime.lease import lease
from jobs.runtime.run import fingerprint, run_stage
from jobs.runtime.stage import Output, Parent, Stage, Unit, UnitResult, hash_unit, part_units, unit_table
from pipelines.datasets import aligned_parts, open_dataset
from pipelines.datasets.books import Equation, key_sum
from pipelines.datasets.manifest import Manifest, first_sha256, latest_manifest
from pipelines.datasets.names import work_prefix
from pipelines.datasets.store import Store
from pipelines.errors import ConfigError, GristmillError

if TYPE_CHECKING:
    from jobs.runtime.cost import Plan, Request

_ALIGNED = ("input", "signatures")  # roles of the parents
Pairs = Sequence[tuple[dict[str, Any], dict[str, Any]]]  # rows of the part lists: documents, signatures

ENGINE = "spark"
SIGNATURES_VERSION = 4
VERSION = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Lsh:
    """Locality-sensitive hashing."""

    num_bands: int = setting(32, "bands of a signature; more find more")
    rows_per_band: int = setting(8, "minima in a band; more make fewer candidates")
    min_similarity: float = setting(0.7, "exact similarity from which on a copy is a duplicate, inclusive")

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of dedup_documents."""

    documents: str = setting("documents", "dataset to read", content=False)
    signatures: str = setting("signatures", "dataset of signatures to write", content=False)
    output: str = setting("dedup", "annotations to write", content=False)
    pairs: str = setting("dedup_pairs", "compared pairs to write, which a later run goes on from", content=False)
    lsh: Lsh = setting(factory=Lsh, doc="locality-sensitive hashing")  # noqa: RUF009
    measure: Literal["jaccard", "containment"] = setting(
        "jaccard", "similarity: shared n-grams over all, or over the fewer"
    )
    urls: Literal["off", "latest", "first"] = setting(
        "off", "captures of one URL leave for the latest or first one, whatever they say; off: they are compared"
    )
    mobile_hosts: bool = setting(False, "URLs: m., mobile., wap., 3g., touch. of a site are that site")
    scope: Literal["global", "generation"] = setting("global", "generation: a crawl is compared with itself only")
    survivor: Literal["first", "best"] = setting("first", "best: a later, better copy takes over; all is decided anew")
    score: str = setting("", "column of the documents (0 to 1) that goes before length in the survivor order")
    preferred_domains: tuple[str, ...] = setting((), "domains whose copy stays where length is equal")
    bucket_cap: int = setting(100_000, "documents of one bucket that are compared; bigger buckets are reported")
    pairs_per_unit: int = setting(20_000, "candidate pairs that one task verifies", content=False)
    links_per_task: int = setting(
        4_000_000, "verified links that one task decides on; beyond, clusters are cut into groups", content=False
    )

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def __post_init__(self) -> None:
        """Refuse bands that make no sense, and tasks of nothing, before anything is read."""
        from pipelines.dedup.bands import BandPlan

        BandPlan(**asdict(self.lsh))
        for name, least in (("bucket_cap", 2), ("pairs_per_unit", 1), ("links_per_task", 1)):
            if (given := getattr(self, name)) < least:
                raise ConfigError(f"{name} is {given}; expected {least} or more", mend="the default serves any corpus")


def plan(config: Config, context: Context, request: Request) -> Plan:
    """Shuffle, memory and time, from a sample of the documents."""
    from jobs.dedup_plan import plan_dedup

    return plan_dedup(config, context, request)


def run(config: Config, context: Context) -> list[Manifest]:
    """Signatures, then the wide steps, then the annotations and the verified pairs: the manifests of these three."""
    from jobs.dedup_wide import Wide
    from pipelines.dedup.bands import BandPlan
    from pipelines.dedup.links import PAIRS
    from pipelines.dedup.nodes import number_parts
    from pipelines.dedup.order import OrderRule
    from pipelines.dedup.signed import signatures_schema
    from pipelines.dedup.survivors import ANNOTATIONS

    plan = BandPlan(**asdict(config.lsh))
    documents = context.open(config.documents)
    bands: dict[str, Any] = {"num_bands": plan.num_bands, "rows_per_band": plan.rows_per_band}
    bands["mobile_hosts"] = config.mobile_hosts
    rule = OrderRule(score=config.score, preferred_domains=tuple(config.preferred_domains))
    signed = run_stage(
        context,
        Stage(
            job="dedup_documents",
            stage_id=stage_id("dedup_documents.signatures", SIGNATURES_VERSION, bands | asdict(rule)),
            outputs=(Output(dataset=config.signatures, kind="signatures", schema=signatures_schema(plan)),),
            worker="jobs.dedup_documents:open_signer",
            worker_config={"plan": asdict(config.lsh), "rule": asdict(rule), "mobile_hosts": config.mobile_hosts},
            equations={"documents": Equation(total="rows", terms=("signed", "failed"))},
            config=bands,
        ),
        part_units(documents.parts(), output=config.signatures),
        parents=[Parent(manifest=documents.manifest)],
    )[config.signatures]

    pairs = aligned_parts(documents, open_dataset(context.store, config.signatures, signed.version))
    stage = Stage(
        job="dedup_documents",
        stage_id=stage_id("dedup_documents", VERSION, config),
        outputs=(
            Output(dataset=config.output, kind="annotations", schema=ANNOTATIONS),
            Output(dataset=config.pairs, kind="pairs", schema=PAIRS),
        ),
        worker="jobs.dedup_documents:open_annotator",
        equations={"documents": Equation(total="rows", terms=("annotated", "failed"))},
        config=content_config(config),
    )
    parts = number_parts(pairs)
    units = _annotation_units(pairs, parts, config)
    table = unit_table(units)
    parents = [Parent(manifest=documents.manifest), Parent(manifest=signed, role="signatures")]
    if (latest := _finished(context.store, stage, table, parents)) is not None:
        context.progress.say(f"{config.output} v{latest[0].version} is finished: nothing to do")
        return [signed, *latest]
    earlier = _earlier(context.store, config, stage, units, parts)
    fresh_from = sum(row["rows"] for row in earlier)
    prefix = f"{work_prefix(config.output, stage.stage_id)}/wide/{_history(pairs)}-{fresh_from}"
    with lease(context.store, prefix, say=context.progress.say):
        known = _known(context.store, config, stage, pairs, parts, earlier)
        report = Wide(config, context, plan, parts, earlier, known, stage, prefix).run()
        annotate = replace(stage, worker_config={"prefix": prefix, "parts": report.pop("parts")})
        made = run_stage(context, annotate, table, parents=parents, stats={"pairs": report})
    for stored in list(context.store.list(f"{prefix}/")):
        context.store.delete(stored.key)
    return [signed, made[config.output], made[config.pairs]]


def _finished(store: Store, stage: Stage, units: pa.Table, parents: Sequence[Parent]) -> list[Manifest] | None:
    """Annotations and pairs, where both are of these units: either may have been committed alone."""
    above = [parent.manifest for parent in parents]
    found = []
    for output in stage.outputs:
        latest = latest_manifest(store, output.dataset)
        mark = fingerprint(stage.stage_id, output.dataset, units, [*above, *found])
        if latest is None or latest.fingerprint != mark:
            return None
        found.append(latest)
    return found


def _history(pairs: Pairs) -> str:
    from pipelines.dedup.nodes import history_hashes

    return max(history_hashes(pairs).items(), default=(0, "0"))[1]


def _annotation_units(pairs: Pairs, parts: pa.Table, config: Config) -> list[Unit]:
    """A unit a documents part, in node order; its id holds what its decisions depend on.

    That is the signatures up to its generation (all of them where the best copy stays). So an appended crawl takes over
    the old parts, and a leftover of other inputs is never taken for ours.
    """
    from pipelines.dedup.nodes import history_hashes

    history = history_hashes(pairs)
    last = _history(pairs)
    mine = {documents["key"]: documents for documents, _ in pairs}
    units = []
    for row in parts.to_pylist():
        part = mine[row["documents"]]
        depends = last if config.survivor == "best" else history[part["generation"]]
        spec = {
            "key": part["key"],
            "signatures": row["signatures"],
            "first_node": row["first_node"],
            "outputs": [config.output, config.pairs],
        }
        name = hash_unit(first_sha256(part), part["unit"], depends)
        units.append(Unit(id=name, input=part["input"], size_bytes=part["rows"], spec=spec))
    return units


def _earlier(
    store: Store, config: Config, stage: Stage, units: Sequence[Unit], parts: pa.Table
) -> list[dict[str, Any]]:
    """Rows of EARLIER: the leading generations that the latest version of this very stage has decided as a whole."""
    found = []
    for name in (config.output, config.pairs):
        latest = latest_manifest(store, name)
        if latest is None:
            return []
        rows = open_dataset(store, name, latest.version).part_list.to_pylist()
        found.append({r["unit"]: r for r in rows if r["stage_id"] == stage.stage_id and r["role"] == "part"})
    listed = parts.to_pylist()
    missing = [
        row["generation"] for row, unit in zip(listed, units, strict=True) if any(unit.id not in f for f in found)
    ]
    before = min(missing, default=len(listed))
    return [
        {
            "annotations": found[0][unit.id]["key"],
            "pairs": found[1][unit.id]["key"],
            "links": found[1][unit.id]["rows"],
            "first_node": row["first_node"],
            "rows": row["rows"],
        }
        for row, unit in zip(listed, units, strict=True)
        if row["generation"] < before
    ]


def _known(
    store: Store, config: Config, stage: Stage, pairs: Pairs, parts: pa.Table, earlier: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Rows of KNOWN: what the latest version of this very stage compared, of parts that are to be decided again."""
    latest = latest_manifest(store, config.pairs)
    if latest is None or latest.stage_id != stage.stage_id:
        return []
    pins = {parent["role"]: parent for parent in latest.parents}
    try:
        before = aligned_parts(*(open_dataset(store, p["name"], p["version"]) for p in map(pins.get, _ALIGNED) if p))
    except (GristmillError, TypeError):  # that version of the documents is gone: all is compared again
        return []
    from pipelines.dedup.nodes import number_parts

    numbered = number_parts(before)
    units = _annotation_units(before, numbered, config)
    stored = {row["unit"]: row["key"] for row in open_dataset(store, config.pairs, latest.version).parts().to_pylist()}
    mine = {(part["input"], part["unit"]): (part, signed) for part, signed in before}
    then = {name: unit.id for name, unit in zip(_names(numbered), units, strict=True)}
    now = {(part["input"], part["unit"]): (part, signed) for part, signed in pairs}
    decided = {row["pairs"] for row in earlier}
    same = {
        name
        for name, both in now.items()
        if name in mine and [first_sha256(x) for x in both] == [first_sha256(x) for x in mine[name]]
    }
    rows = zip(_names(parts), parts["first_node"].to_pylist(), strict=True)
    found = [{"pairs": stored.get(then[name]), "first_node": first} for name, first in rows if name in same]
    return [row for row in found if row["pairs"] is not None and row["pairs"] not in decided]


def _names(parts: pa.Table) -> list[tuple[str, str]]:
    return list(zip(parts["input"].to_pylist(), parts["unit"].to_pylist(), strict=True))


def open_signer(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """Signatures of one documents part."""
    from pipelines.datasets.ranged import read_columns
    from pipelines.dedup.bands import BandPlan
    from pipelines.dedup.order import OrderRule
    from pipelines.dedup.signed import READ_COLUMNS, sign_documents

    plan = BandPlan(**worker_config["plan"])
    rule, mobile = worker_config["rule"], worker_config["mobile_hosts"]
    order = OrderRule(score=rule["score"], preferred_domains=tuple(rule["preferred_domains"]))

    def sign(unit: Unit) -> UnitResult:
        documents = read_columns(store, unit.spec["key"], [*READ_COLUMNS, *order.columns])
        result = UnitResult(parts={unit.spec["output"]: sign_documents(documents, plan, order, mobile_hosts=mobile)})
        _count(result, documents["id"], "signed")
        return result

    return sign


def open_annotator(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """The annotations of one documents part, same rows, same order, and what its documents were compared with."""
    from jobs.dedup_steps import NAMED
    from pipelines.datasets.parts import read_parquet
    from pipelines.datasets.ranged import read_columns
    from pipelines.dedup.links import part_pairs
    from pipelines.dedup.nodes import read_chunks
    from pipelines.dedup.survivors import LINKS, annotate

    prefix = worker_config["prefix"]
    parts = read_parquet(store.get(worker_config["parts"]))
    decisions, placed = f"{prefix}/decisions", f"{prefix}/placed"
    decision_keys, link_keys = ([stored.key for stored in store.list(f"{p}/")] for p in (decisions, placed))

    def annotations(unit: Unit) -> UnitResult:
        signatures = read_columns(store, unit.spec["signatures"], ["id", "place"])
        first = unit.spec["first_node"]
        span = (first, first + signatures.num_rows)
        named = read_chunks(store, decisions, decision_keys, "node", span, NAMED)
        table = annotate(signatures, named, first)
        links = read_chunks(store, placed, link_keys, "member", span, LINKS)
        output, pairs = unit.spec["outputs"]
        result = UnitResult(parts={output: table, pairs: part_pairs(links, parts, first)})
        _count(result, signatures["id"], "annotated")
        removed = np.flatnonzero(~table["dedup.keep"].to_numpy(zero_copy_only=False))
        result.stats = {"kept": table.num_rows - len(removed), "duplicates": len(removed)}
        if len(removed):
            domains = read_parquet(store.get(unit.spec["key"]), ["domain"])["domain"].take(pa.array(removed))
            for entry in pc.value_counts(domains.drop_null()).to_pylist():
                result.stats[f"by_domain.{entry['values']}"] = entry["counts"]
        return result

    return annotations


def _count(result: UnitResult, ids: pa.ChunkedArray, name: str) -> None:
    total = key_sum((document or "").encode() for document in ids.to_pylist())
    result.counters.add_sum("documents.rows", len(ids), total)
    result.counters.add_sum(f"documents.{name}", len(ids), total)


if __name__ == "__main__":
    job_main("dedup_documents")
