"""Apply the annotations: the documents that stay become `corpus` and, a twentieth of them, `heldout`.

Of what stays, the spans of the annotations named in `cuts` leave the text, each with a row in the ledger.

A rule drops or marks; what the marking rules would drop is counted in the statistics (`marked`) of both datasets. Reads
the measures, the dedup verdicts and the quality scores, never the text, to decide; so moving a bound costs a
scan of small columns and the writing of what stays. Whole dedup clusters go to `heldout`, chosen by hash, at least
five clusters a language (half of them where there are fewer than ten); what is heldout never reaches a tokenizer
or a model.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from jobs.document_stats import document_stats
from jobs.runtime.config import content_config, setting, stage_id
from jobs.runtime.context import Context
from jobs.runtime.run import run_stage
from jobs.runtime.stage import Output, Parent, Stage, Unit, UnitResult, hash_unit
from pipelines.datasets import Dataset, aligned_parts
from pipelines.datasets.books import Equation
from pipelines.datasets.dataset import read_parquet
from pipelines.datasets.manifest import Manifest, first_content_sum, latest_manifest, read_part_list
from pipelines.datasets.schemas import DOCUMENTS, LEDGER
from pipelines.datasets.store import Store
from pipelines.dedup.urls import CAPTURE
from pipelines.errors import InputError
from pipelines.quality.scorers import score_column

ENGINE = "spark"
VERSION = 3
RARE_DOCUMENTS = 2000  # a language with fewer may have too few clusters below the plain fraction
LEAST_CLUSTERS = 5
EXCERPT_CHARACTERS = 200
_CUT = "cut."  # role of annotations that cut, with their number
_SCORE = "score."  # role of annotations of scorers, with the dataset's name
ANY = "any"  # in place of a language: all that are not named
_OPTIONAL = ("cuts", "scores", "contamination")  # settings that are no part of the identity while they are empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of filter_documents."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012
    documents: str = setting("documents", "dataset to read", content=False)
    filters: str = setting("filters", "annotations: measures", content=False)
    dedup: str = setting("dedup", "annotations: dedup verdicts; empty: none are applied")
    quality: str = setting("quality", "annotations: quality scores; empty: none are applied")
    corpus: str = setting("corpus", "dataset to write: what training reads", content=False)
    heldout: str = setting("heldout", "dataset to write: what evaluation reads", content=False)
    bounds: dict[str, float | None] = setting(  # noqa: RUF009 - setting is dataclasses.field
        doc="bounds by rule, instead of pipelines/filters/thresholds.yaml: text.characters.min: 300; null: no rule",
        factory=dict,
    )
    min_quality: float = setting(0.2, "documents with a lower quality score are dropped; inclusive, 0 to 1")
    scores: dict[str, dict[str, float]] = setting(  # noqa: RUF009
        doc="further annotations of score_quality, least scores by language: {quality_bert: {zh: 0.4, any: 0.3}}",
        factory=dict,
    )
    contamination: str = setting("", "annotations of decontaminate_documents; empty: none are applied")
    contamination_hits: int = setting(1, "documents with so many n-grams of an evaluation set are dropped; inclusive")
    heldout_fraction: float = setting(0.05, "share of dedup clusters that go to heldout, 0 to 1")
    cuts: list[str] = setting(  # noqa: RUF009
        doc="annotations whose spans leave the texts, the first one's account first: [lines, substrings]",
        factory=list,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdicts:
    """What a worker needs to judge a part; also the pre-pass of the heldout bounds uses it."""

    bounds: dict[str, float | None]
    min_quality: float
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    contamination_hits: int = 1

    def judge(self, part: dict[str, pa.Table]) -> pa.Table:
        """(n,) reason, value, threshold, match, detail: of the first thing that speaks against it; null: it stays."""
        from pipelines.filters.rules import default_rules, first_broken_rule, with_bounds

        rules = with_bounds(default_rules(), self.bounds)
        documents = part["documents"]
        found = first_broken_rule(part["filters"], documents["language"], rules, documents["source_type"])
        reason, value, threshold = (found[name].combine_chunks() for name in ("reason", "value", "threshold"))
        match, detail = pa.nulls(len(reason), pa.string()), pa.nulls(len(reason), pa.string())
        for role, rule, bounds in self._scored(part):
            score = part[role][score_column(part[role].column_names)].combine_chunks()
            bound = _bound_by_language(documents["language"], bounds)
            low = pc.and_(pc.is_null(reason), pc.fill_null(pc.less(score, bound), False))
            reason = pc.if_else(low, rule, reason)
            value = pc.if_else(low, score, value)
            threshold = pc.if_else(low, bound, threshold)
            detail = pc.if_else(low, role.removeprefix(_SCORE), detail) if role.startswith(_SCORE) else detail
        if "contamination" in part:
            table = part["contamination"]
            hits = table["contamination.hits"].combine_chunks()
            held = pc.and_(pc.is_null(reason), pc.greater_equal(hits, self.contamination_hits))
            reason = pc.if_else(held, "contaminated", reason)
            value = pc.if_else(held, hits.cast(pa.float64()), value)
            threshold = pc.if_else(held, float(self.contamination_hits), threshold)
            detail = pc.if_else(held, table["contamination.example"].combine_chunks(), detail)
        for cut in _cuts(part):
            family = _family(cut)
            hollow = pc.and_(pc.is_null(reason), cut[f"{family}.hollow"].combine_chunks())
            reason = pc.if_else(hollow, "hollow", reason)
            value = pc.if_else(hollow, cut[f"{family}.kept_share"].combine_chunks(), value)
        if "dedup" in part:
            copies = pc.invert(part["dedup"]["dedup.keep"].combine_chunks())
            captures = np.bitwise_and(part["dedup"]["dedup.state"].fill_null(0).to_numpy(), CAPTURE) != 0
            reason = pc.if_else(copies, pc.if_else(pa.array(captures), "duplicate_url", "duplicate"), reason)
            value = pc.if_else(copies, part["dedup"]["dedup.similarity"].combine_chunks(), value)
            threshold = pc.if_else(copies, pa.scalar(None, pa.float64()), threshold)
            match = pc.if_else(copies, part["dedup"]["dedup.match"].combine_chunks(), match)
            detail = pc.if_else(copies, pa.scalar(None, pa.string()), detail)
        gone = documents["file"].combine_chunks().is_null()  # a tombstone: no record is without its file
        reason = pc.if_else(gone, "takedown", reason)
        value, threshold = (pc.if_else(gone, pa.scalar(None, pa.float64()), x) for x in (value, threshold))
        match, detail = (pc.if_else(gone, pa.scalar(None, pa.string()), x) for x in (match, detail))
        told = {"reason": reason, "value": value, "threshold": threshold, "match": match, "detail": detail}
        return pa.table(told)

    def _scored(self, part: dict[str, pa.Table]) -> Iterator[tuple[str, str, dict[str, float]]]:
        """(role, reason, least scores by language) of the annotations of scorers that there are."""
        if "quality" in part:
            yield "quality", "low_quality", {ANY: self.min_quality}
        for name, bounds in sorted(self.scores.items()):
            yield f"{_SCORE}{name}", "low_score", bounds

    def marks(self, part: dict[str, pa.Table]) -> dict[str, np.ndarray]:
        """(n,) bool by rule name, of the rules that mark and drop nothing."""
        from pipelines.filters.rules import broken_rules, default_rules, with_bounds

        rules, documents = with_bounds(default_rules(), self.bounds), part["documents"]
        return broken_rules(part["filters"], documents["language"], rules, documents["source_type"], action="mark")


def run(config: Config, context: Context) -> list[Manifest]:
    """Judge, split, write."""
    documents = context.open(config.documents)
    inputs = {"filters": context.open(config.filters)}
    for role in ("dedup", "quality", "contamination"):
        if name := getattr(config, role):
            inputs[role] = context.open(name)
    inputs |= {f"{_SCORE}{name}": context.open(name) for name in sorted(config.scores)}
    inputs |= {f"{_CUT}{number}": context.open(name) for number, name in enumerate(config.cuts)}
    verdicts = _Verdicts(
        bounds=config.bounds,
        min_quality=config.min_quality,
        scores=config.scores,
        contamination_hits=config.contamination_hits,
    )
    decisive = {k: v for k, v in content_config(config).items() if k not in _OPTIONAL or v}
    if not config.contamination:
        del decisive["contamination_hits"]
    identity = stage_id("filter_documents", VERSION, decisive, {"thresholds": _thresholds_hash()})
    parts = _joined_parts(documents, inputs)
    units, history = _units(context, config, identity, verdicts, documents, parts)
    stage = Stage(
        job="filter_documents",
        stage_id=identity,
        outputs=(
            Output(dataset=config.corpus, kind="documents", schema=DOCUMENTS, stats={"split": "train"}),
            Output(dataset=config.heldout, kind="documents", schema=DOCUMENTS, stats={"split": "heldout"}),
        ),
        worker="jobs.filter_documents:open_worker",
        worker_config={**asdict(verdicts), "corpus": config.corpus, "heldout": config.heldout},
        equations={
            "documents": Equation(total="read", terms=("kept", "rejected", "failed")),
            "split": Equation(total="kept", terms=("corpus", "heldout")),
            **({"characters": Equation(total="in", terms=("out", "removed"))} if config.cuts else {}),
        },
        config=decisive,
    )
    parents = [Parent(manifest=documents.manifest)]
    parents += [Parent(manifest=d.manifest, role=role) for role, d in inputs.items()]
    made = run_stage(context, stage, units, parents=parents, stats={"heldout_bounds": history})
    if made[config.corpus].part_list["rows"] == 0:
        raise InputError(
            f"no document of {documents.name} v{documents.manifest.version} passed the filters:"
            f" {made[config.corpus].books['documents']['rejected']}",
            mend="look at `gristmill datasets sample documents`, or move a bound: --set 'bounds={text.words.min: 20}'",
        )
    return [made[config.corpus], made[config.heldout]]


def _thresholds_hash() -> str:
    from importlib.resources import files

    return xxhash.xxh3_128_hexdigest(files("pipelines.filters").joinpath("thresholds.yaml").read_bytes())


def _joined_parts(documents: Dataset, inputs: dict[str, Dataset]) -> list[dict[str, dict[str, Any]]]:
    """For each part of the documents: its row of the part list, and those of its annotations, by role."""
    joined = [{"documents": row} for row in documents.parts().to_pylist()]
    for role, dataset in inputs.items():
        for entry, (_, theirs) in zip(joined, aligned_parts(documents, dataset), strict=True):
            entry[role] = theirs
    return joined


def _units(
    context: Context,
    config: Config,
    identity: str,
    verdicts: _Verdicts,
    documents: Dataset,
    parts: list[dict[str, dict[str, Any]]],
) -> tuple[list[Unit], list[dict[str, float]]]:
    """Units, and the heldout bounds of each generation.

    A part that an earlier version has split keeps the bounds it was split by, so that no document ever moves
    from one side to the other.
    """
    base = latest_manifest(context.store, config.corpus)
    old: set[str] = set()
    history: list[dict[str, float]] = []
    if base is not None and base.stage_id == identity:
        old = set(read_part_list(context.store, base)["unit"].to_pylist())
        history = list(base.stats["heldout_bounds"])
    kept: dict[str, tuple[str, dict[str, float]]] = {}
    for part in parts:
        for bounds in history:
            if (unit := _unit_id(part, bounds)) in old:
                kept[part["documents"]["key"]] = (unit, bounds)
    fresh = [p for p in parts if p["documents"]["key"] not in kept]
    if fresh:
        have: dict[str, int] = {}
        if kept and (held := latest_manifest(context.store, config.heldout)) is not None:
            have = held.stats.get("by_language", {})
        new_bounds = _heldout_bounds(context.store, verdicts, documents.manifest, fresh, config.heldout_fraction, have)
        history = [*history, new_bounds]
    units = []
    for part in parts:
        row = part["documents"]
        unit, bounds = kept.get(row["key"]) or (_unit_id(part, history[-1]), history[-1])
        keys = {role: r["key"] for role, r in part.items()}
        units.append(Unit(id=unit, input=row["input"], size_bytes=row["bytes"], spec={"keys": keys, "bounds": bounds}))
    return units, history


def _unit_id(part: dict[str, dict[str, Any]], bounds: dict[str, float]) -> str:
    return hash_unit({role: [first_content_sum(r), r["input"]] for role, r in part.items()}, bounds)


def _heldout_bounds(
    store: Store,
    verdicts: _Verdicts,
    manifest: Manifest,
    parts: list[dict[str, dict[str, Any]]],
    fraction: float,
    have: dict[str, int],
) -> dict[str, float]:
    """By language, the bound on a cluster's hash below which it is heldout; "" is the bound of all others.

    Only languages with few documents can fall short of five clusters; for them the small columns are read here,
    keeping five hashes a language. A language never gives more than half of its clusters.
    """
    rare = {k for k, n in manifest.stats.get("by_language", {}).items() if n < RARE_DOCUMENTS}
    least: dict[str, list[float]] = {}
    clusters: Counter[str] = Counter()
    if rare and fraction > 0:
        for part in parts:
            keys = {role: row["key"] for role, row in part.items()}
            loaded = _load(store, keys, ["id", "language", "source_type", "file"])
            stays = pc.is_null(verdicts.judge(loaded)["reason"]).to_pylist()
            for name, point, is_kept in zip(
                loaded["documents"]["language"].to_pylist(), _points(loaded), stays, strict=True
            ):
                if is_kept and name in rare:
                    clusters[name] += 1  # of a cluster at most one document stays
                    smallest = least.setdefault(name, [])
                    heapq.heappush(smallest, -float(point))
                    if len(smallest) > LEAST_CLUSTERS:
                        heapq.heappop(smallest)
    bounds = {"": fraction}
    for name, negated in sorted(least.items()):
        wanted = min(LEAST_CLUSTERS - have.get(name, 0), clusters[name] // 2)
        if wanted > 0:
            reach = sorted(-p for p in negated)[:wanted][-1]
            if reach >= fraction:
                bounds[name] = float(np.nextafter(reach, 2.0))
    return bounds


def _load(store: Store, keys: dict[str, str], columns: list[str] | None) -> dict[str, pa.Table]:
    """The parts by role; of the documents only these columns."""
    return {role: read_parquet(store.get(key), columns if role == "documents" else None) for role, key in keys.items()}


def _points(part: dict[str, pa.Table]) -> np.ndarray:
    """(n,) place of each document's cluster on [0, 1), by hash."""
    clusters = part["dedup"]["dedup.cluster"] if "dedup" in part else part["documents"]["id"]
    return np.array([xxhash.xxh3_64_intdigest(c.encode(), seed=20) / 2**64 for c in clusters.to_pylist()], np.float64)


def open_worker(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """Corpus, heldout and ledger of one documents part."""
    verdicts = _Verdicts(**{name: worker_config[name] for name in _Verdicts.__dataclass_fields__})
    corpus, heldout = worker_config["corpus"], worker_config["heldout"]

    def judge(unit: Unit) -> UnitResult:
        part = _load(store, unit.spec["keys"], None)
        documents = part["documents"]
        verdict = verdicts.judge(part)
        stays = pc.is_null(verdict["reason"])
        limits = unit.spec["bounds"]
        limit = np.array([limits.get(name or "", limits[""]) for name in documents["language"].to_pylist()], np.float64)
        held = pc.and_(stays, pa.array(_points(part) < limit))
        trained = pc.and_not(stays, held)
        result = UnitResult()
        written, changes = _apply_cuts(part, stays, result)
        tables = {corpus: written.filter(trained), heldout: written.filter(held)}
        result.parts, result.ledger = tables, pa.concat_tables([_ledger(documents, verdict), changes])
        for name, table in tables.items():
            result.stats |= document_stats(table, prefix=f"stats@{name}.")
        for name, marked in verdicts.marks(part).items():
            for dataset, side in ((corpus, trained), (heldout, held)):
                if count := int(np.count_nonzero(marked & np.asarray(side))):
                    result.stats[f"stats@{dataset}.marked.{name.removesuffix('.mark')}"] = count
        ids = np.array([i.encode() for i in documents["id"].to_pylist()], object)
        reasons = np.array(verdict["reason"].to_pylist(), object)
        result.counters.add("documents.read", ids)
        for reason in sorted({r for r in reasons if r is not None}):
            result.counters.add(f"documents.rejected.{reason}", ids[reasons == reason])
        for account, mask in (
            ("documents.kept", stays),
            ("split.kept", stays),
            ("split.corpus", trained),
            ("split.heldout", held),
        ):
            result.counters.add(account, ids[np.asarray(mask)])
        return result

    return judge


def _bound_by_language(languages: pa.ChunkedArray, bounds: dict[str, float]) -> pa.Array:
    """(n,) least score of each document; null where its language has no bound."""
    found = [bounds.get(name or "", bounds.get(ANY)) for name in languages.to_pylist()]
    return pa.array(found, pa.float64())


def _cuts(part: dict[str, pa.Table]) -> list[pa.Table]:
    """The annotations that cut, in their order."""
    return [part[role] for role in sorted(part) if role.startswith(_CUT)]


def _family(cut: pa.Table) -> str:
    return next(name.removesuffix(".spans") for name in cut.schema.names if name.endswith(".spans"))


def _apply_cuts(part: dict[str, pa.Table], stays: pa.ChunkedArray, result: UnitResult) -> tuple[pa.Table, pa.Table]:
    """(documents without their spans, ledger rows of what left); counts the characters. Only of what stays."""
    documents, cuts = part["documents"], _cuts(part)
    if not cuts:
        return documents, LEDGER.empty_table()
    from pipelines.dedup.spans import cut_spans, join_spans, read_spans, span_detail

    columns = [cut[f"{_family(cut)}.spans"].combine_chunks() for cut in cuts]
    touched = pc.is_valid(columns[0])
    for column in columns[1:]:
        touched = pc.or_(touched, pc.is_valid(column))
    touched = pc.and_(touched, stays.combine_chunks())
    about = documents.select(["id", "url", "file", "offset", "length", "text"]).filter(touched).to_pylist()
    written = zip(*(column.filter(touched).to_pylist() for column in columns), strict=True)
    texts, rows = [], []
    for row, families in zip(about, written, strict=True):
        spans = join_spans(read_spans(family) for family in families)
        text = row.pop("text")
        texts.append(cut_spans(text, spans))
        by_rule: dict[str, list[tuple[int, int]]] = {}
        for start, end, rule in spans:
            by_rule.setdefault(rule, []).append((start, end))
        for rule, places in sorted(by_rule.items()):
            lost = sum(end - start for start, end in places)
            result.counters.add_count(f"characters.removed.{rule}", lost)
            told = {"stage": "filter_documents", "verdict": "changed", "reason": rule, "value": float(lost)}
            rows.append(row | told | {"detail": span_detail(places)})
    before = documents["text"]
    after = pc.replace_with_mask(before.combine_chunks(), touched, pa.array(texts, before.type))
    for account, column in (("in", before), ("out", after)):
        length = pc.sum(pc.utf8_length(column.filter(stays))).as_py() or 0
        result.counters.add_count(f"characters.{account}", length)
    at = documents.schema.get_field_index("text")
    changed = documents.set_column(at, documents.schema.field(at), after)
    return changed, pa.Table.from_pylist(rows, schema=LEDGER)


def _excerpt(id: str | None, text: str | None) -> str | None:
    """The first characters, for one document in eight, chosen by hash of the id."""
    chosen = xxhash.xxh3_64_intdigest((id or "").encode(), seed=21) % 8 == 0
    return (text or "")[:EXCERPT_CHARACTERS] if chosen else None


def _ledger(documents: pa.Table, verdict: pa.Table) -> pa.Table:
    dropped = pc.is_valid(verdict["reason"])
    about = documents.select(["id", "url", "file", "offset", "length"]).filter(dropped)
    why = verdict.filter(dropped)
    n = about.num_rows
    columns = {name: about[name] for name in about.schema.names} | {name: why[name] for name in why.schema.names}
    columns |= {"stage": pa.array(["filter_documents"] * n), "verdict": pa.array(["rejected"] * n)}
    texts = documents["text"].filter(dropped).to_pylist()
    excerpts = [_excerpt(*item) for item in zip(about["id"].to_pylist(), texts, strict=True)]
    columns["excerpt"] = pa.array(excerpts, pa.string())
    nothing = pa.nulls(n, pa.string())
    return pa.table([columns.get(name, nothing) for name in LEDGER.names], schema=LEDGER)


if __name__ == "__main__":
    from jobs.runtime.entry import job_main

    job_main("filter_documents")
