"""The wide steps of dedup_documents, from signatures to decisions: what is done, in which order, and remembered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from jobs.dedup_exchange import (
    PARCELS,
    RECALLED,
    RECALLED_UNLIKE,
    TARGETS,
    Exchange,
    ProcessExchange,
    SparkExchange,
    Stored,
    Terms,
    edge_targets,
    exchange_bands,
    exchange_captures,
    exchange_copies,
    exchange_edges,
    exchange_known,
    hot_copies_folder,
    step_key,
)
from jobs.dedup_groups import exchange_by_node, exchange_groups, find_labels
from jobs.dedup_steps import marks_key, open_step, wanted_key
from jobs.runtime.context import Context
from jobs.runtime.stage import Output, Stage, Unit, hash_unit, unit_table
from jobs.runtime.units import do_units
from pipelines.datasets.books import total_counters
from pipelines.datasets.manifest import PART_LIST
from pipelines.dedup.buckets import HOT
from pipelines.dedup.links import EARLIER
from pipelines.dedup.nodes import counted, generation_starts, put_table, read_tables
from pipelines.dedup.rounds import ROUNDS
from pipelines.dedup.signed import band_columns

if TYPE_CHECKING:
    from jobs.dedup_documents import Config
    from pipelines.dedup.bands import BandPlan

SMALL_ROUND = 20_000  # edges that are compared in this process: less than what sending them out costs
SMALL_DATASET = 1_000_000  # documents of which this process may hold a byte each
FINISH_SHARE = 8  # a cluster's edge takes 24 bytes where only clusters are found, and 300 where they are decided


class Wide:
    """The wide steps, each done once and remembered: copies, buckets a band column, rounds, decisions."""

    def __init__(
        self,
        config: Config,
        context: Context,
        plan: BandPlan,
        parts: pa.Table,
        earlier: list[dict[str, Any]],
        known: list[dict[str, Any]],
        stage: Stage,
        prefix: str,
    ) -> None:
        """`earlier`: rows of EARLIER, decided already; `known`: rows of KNOWN, compared already."""
        self.config, self.context, self.plan, self.parts = config, context, plan, parts
        self.stage, self.prefix, self.store = stage, prefix, context.store
        starts = [] if config.survivor == "best" else generation_starts(parts).tolist()
        self.terms = Terms(
            prefix=prefix,
            generation_starts=tuple(starts),
            fresh_from=sum(row["rows"] for row in earlier),
            bucket_cap=config.bucket_cap,
            apart=config.scope == "generation",
        )
        self.earlier_rows, self.earlier_links = len(earlier), sum(row["links"] for row in earlier)
        self.known = known
        self.parts_key = put_table(self.store, f"{prefix}/tables", parts)["key"]
        self.worker_config = {
            "prefix": prefix,
            "generation_starts": starts,
            "fresh_from": self.terms.fresh_from,
            "parts": self.parts_key,
            "earlier": put_table(self.store, f"{prefix}/tables", pa.Table.from_pylist(earlier, schema=EARLIER))["key"],
            "min_similarity": plan.min_similarity,
            "measure": config.measure,
            "permutations": plan.num_permutations,
        }
        self.counts: dict[str, int] = {}

    def run(self) -> dict[str, Any]:
        """Everything up to the decisions; the report of pairs and clusters."""
        with_urls = self.config.urls != "off"
        gone = marks_key(self.prefix, "captures") if with_urls else None
        out = marks_key(self.prefix, "out")
        captures: Stored = []
        columns = band_columns(self.plan)
        with self.context.progress.stage("dedup_documents: buckets", 1 + with_urls + len(columns)) as tick:
            if with_urls:
                policy = self.config.urls
                captures = self._once(
                    "captures", lambda: exchange_captures(self._exchange(), self.terms, self.parts, policy)
                )
                captures += self._resolved("captures")
                mark = {"step": "captures", "captures": _keys(captures)}
                self._work("captures", [mark], small=self._is_small(captures))
                tick(PART_LIST.empty_table())
            copies = self._once("copies", lambda: exchange_copies(self._exchange(), self.terms, self.parts, gone))
            copies += self._resolved("copies")
            mark = {"step": "copies", "copies": _keys(copies), "urls": with_urls}
            self._work("copies", [mark], small=self._is_small(copies))
            tick(PART_LIST.empty_table())
            stored: Stored = []
            for column in columns:
                stored += self._once(
                    column,
                    lambda column=column: exchange_bands(self._exchange(), self.terms, self.parts, column, out),
                )
                tick(PART_LIST.empty_table())
        buckets = [table for table in stored if table["kind"].startswith("buckets-")]
        hot = [table for table in stored if table["kind"].startswith("hot-")]
        known = self._once(
            "known",
            lambda: (
                exchange_known(self._exchange(), self.terms, self.known, self.parts, edge_targets(buckets))
                if self.known and buckets
                else []
            ),
        )
        rounds: list[Stored] = []
        for number in range(1, ROUNDS + 1):
            rounds.append(self._round(number, buckets, rounds, known))
        self._decide(captures, copies, buckets)
        report = json.loads(self.store.get(f"{self.prefix}/report.json"))
        return {
            "urls": sum(table["rows"] for table in captures),
            "exact": sum(table["rows"] for table in copies),
            "candidates": sum(table["rows"] for edges in rounds for table in edges),
            **self.counts,
            "by_round": [sum(table["rows"] for table in edges) for edges in rounds],
            "capped_buckets": self._hot(hot),
            **report,
            "parts": self.parts_key,
        }

    def _resolved(self, kind: str) -> Stored:
        """Edges of the copies of which a part has so many that only the best of them travelled."""
        folder = hot_copies_folder(self.prefix, kind)
        names = [stored.key.rpartition("/")[2] for stored in self.store.list(f"{folder}/")]
        rows = [int(name.removesuffix(".parquet").partition("-")[2]) for name in names]
        made = [
            {"kind": kind, "target": -1, "key": f"{self.prefix}/resolved-{kind}/{name}", "rows": count}
            for name, count in zip(names, rows, strict=True)
        ]
        if names:
            specs = [{"step": "resolve", "kind": kind, "name": name} for name in names]
            self._work(f"resolve-{kind}", specs, small=self._is_small(made))
        return made

    def _round(self, number: int, buckets: Stored, before: list[Stored], known: Stored) -> Stored:
        """Compare: distinct edges, those known recalled, rejected by sketches, verified by texts; who is removed."""
        removed = [marks_key(self.prefix, f"removed-{r}") for r in range(1, number)]
        every = self._once(
            f"edges-{number}",
            lambda: (
                exchange_edges(
                    self._exchange(), self.terms, buckets, removed, before, known, max(1, self.config.pairs_per_unit)
                )
                if buckets  # a round without edges does not end it: the next centre may still have some
                else []
            ),
        )
        small = self._is_small(every)
        edges = [table for table in every if table["kind"] == "edges"]
        specs = [
            {"step": "recall", "round": number, "key": table["key"], "unlike": table["kind"] == RECALLED_UNLIKE}
            for table in every
            if table["kind"] in (RECALLED, RECALLED_UNLIKE)
        ]
        if specs:
            self._work(f"recall-{number}", specs, small=small)
        if edges:
            chunks = [table["key"] for table in edges]
            if self.config.measure == "jaccard":
                self._gather("sketch", number, {"tables": chunks}, small=small)
                self._work(
                    f"reject-{number}", [{"step": "reject", "round": number, "key": key} for key in chunks], small=small
                )
                passed = f"passed-{number}"
                chunks = [stored.key for stored in self.store.list(f"{self.prefix}/{passed}/")]
            self._gather("text", number, {"tables": chunks}, small=small)
            self._work(
                f"verify-{number}", [{"step": "verify", "round": number, "key": key} for key in chunks], small=small
            )
        links = [table for r in range(1, number + 1) for table in counted(self.store, f"{self.prefix}/links-{r}")]
        settle: dict[str, Any] = {"step": "settle", "round": number}
        if self._rows(links) > self.config.links_per_task:
            groups = self._groups(f"settle-{number}", links)
            specs = [{"step": "settle-group", "round": number, "key": key} for key in _keys(groups)]
            self._work(f"settle-groups-{number}", specs, small=False)
            settle["grouped"] = True
        self._work(f"settle-{number}", [settle], small=small)
        return every

    def _decide(self, captures: Stored, copies: Stored, buckets: Stored) -> None:
        """In one task where all links fit it, else by groups of whole clusters."""
        links = [table for r in range(1, ROUNDS + 1) for table in counted(self.store, f"{self.prefix}/links-{r}")]
        earlier = self.earlier_links
        fresh = self._rows(captures) + self._rows(copies) + self._rows(links)
        if fresh + earlier <= self.config.links_per_task:
            spec = {
                "step": "decide",
                "captures": _keys(captures),
                "copies": _keys(copies),
                "buckets": _keys(buckets),
            }
            self._work("decide", [spec], small=self._is_small([{"rows": fresh + earlier}]))
            return
        specs = [{"step": "as-links", "kind": "captures", "key": key} for key in _keys(captures)]
        specs += [{"step": "as-links", "kind": "copies", "key": key} for key in _keys(copies)]
        specs += [{"step": "as-links", "kind": "earlier", "row": row} for row in range(self.earlier_rows)]
        self._work("as-links", specs, small=False)
        placed = counted(self.store, f"{self.prefix}/links-0") + links
        unlike = [table for r in range(1, ROUNDS + 1) for table in counted(self.store, f"{self.prefix}/unlike-{r}")]
        groups = self._groups("decide", placed + counted(self.store, f"{self.prefix}/links-earlier"))
        self._work("decide-groups", [{"step": "decide-group", "key": key} for key in _keys(groups)], small=False)
        decided = [table["key"] for table in counted(self.store, f"{self.prefix}/decided")]
        nodes = sum(self.parts["rows"].to_pylist())
        exchange_by_node(self._exchange, self._once, self.prefix, "placed", _keys(placed + unlike), "member", nodes)
        tables = _keys(exchange_by_node(self._exchange, self._once, self.prefix, "decided", decided, "node", nodes))
        self._gather("id", 0, {"tables": tables, "columns": ["cluster", "match"]}, small=False)
        self._work("name", [{"step": "name", "key": key} for key in tables], small=False)
        self._work("left", [{"step": "left", "key": key} for key in _keys(buckets)], small=False)
        self._work("report", [{"step": "report"}], small=False)

    def _groups(self, name: str, links: Stored) -> Stored:
        """Tables of whole clusters, each about half of what one task decides on."""
        most = self.config.links_per_task
        stars, rounds = find_labels(self._exchange, self._once, self.prefix, name, links, FINISH_SHARE * most)
        if self._rows(stars) <= FINISH_SHARE * most:
            self._work(f"finish-{name}", [{"step": "finish", "name": name, "keys": _keys(stars)}], small=False)
            stars = counted(self.store, f"{self.prefix}/labels-{name}")
        self.counts["star_rounds"] = self.counts.get("star_rounds", 0) + rounds
        groups = 1 + 2 * self._rows(links) // most
        return exchange_groups(self._exchange, self._once, self.prefix, name, _keys(stars), links, groups)

    @staticmethod
    def _rows(stored: Stored) -> int:
        return sum(table["rows"] for table in stored)

    def _is_small(self, stored: Stored) -> bool:
        """Whether what works on these tables may run in this process: the driver holds nothing that grows."""
        documents = sum(self.parts["rows"].to_pylist())
        return documents <= SMALL_DATASET and sum(table["rows"] for table in stored) <= SMALL_ROUND

    def _gather(self, kind: str, number: int, where: dict[str, Any], *, small: bool) -> None:
        spec = {"step": "wanted", "kind": kind, "round": number, **where}
        self._work(f"wanted-{kind}-{number}", [spec], small=small)
        listed = json.loads(self.store.get(wanted_key(self.prefix, kind, number)))
        specs = [{"step": "gather", "kind": kind, "round": number, **row} for row in listed]
        self._work(f"gather-{kind}-{number}", specs, small=small)

    def _work(self, name: str, specs: Iterable[dict[str, Any]], *, small: bool) -> None:
        """Units of one step, each done once; their counts are added to the report."""
        units = unit_table(Unit(id=hash_unit(name, spec), input=name, spec=spec) for spec in specs)
        wide = Stage(
            job=f"dedup_documents: {name}",
            stage_id=self.stage.stage_id,
            outputs=(Output(dataset=self.stage.home, kind="annotations"),),
            worker=f"{open_step.__module__}:{open_step.__name__}",
            worker_config=self.worker_config,
        )
        done = f"{self.prefix}/steps/{name}"
        rows = do_units(self.context, wide, units, done, engine="process" if small else None)
        for counter, (count, _) in total_counters(rows["counters"]).items():
            key = counter.removeprefix("stats.")
            self.counts[key] = self.counts.get(key, 0) + count

    def _once(self, name: str, make: Callable[[], Stored]) -> Stored:
        """What `make` stored, remembered by a done record: a step that was finished is not done again."""
        key = step_key(self.prefix, name)
        if self.store.head(key) is None:
            self.store.put(key, json.dumps(make(), sort_keys=True).encode(), create_only=True)
        stored = json.loads(self.store.get(key))
        sent = sum(row["rows"] for row in stored if row["kind"] == PARCELS)
        self.counts["shuffle_bytes"] = self.counts.get("shuffle_bytes", 0) + sent
        return [row for row in stored if row["kind"] not in (PARCELS, TARGETS)]

    def _exchange(self) -> Exchange:
        if self.context.engine == "spark":
            return SparkExchange(self.context.spark(), self.store)
        return ProcessExchange(self.store)

    def _hot(self, stored: Stored) -> list[dict[str, Any]]:
        """The biggest of the buckets above the cap."""
        table = read_tables(self.store, [row["key"] for row in stored], HOT)
        order = np.lexsort((table["digest"].to_numpy(), -table["size"].to_numpy()))[:20]
        rows = table.take(pa.array(order)).to_pylist()
        return [{"digest": f"{row['digest'] & (2**64 - 1):016x}", "documents": row["size"]} for row in rows]


def _keys(stored: Stored) -> list[str]:
    return [table["key"] for table in stored]
