"""The units of deduplication between the shuffles: each reads tables of the work in flight and stores others.

A step is known by the name in its unit's spec; what it stores is found by its prefix, so a step that was killed is done
again to the same keys.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.dedup_exchange import resolve_copies
from jobs.runtime.stage import Unit, UnitResult
from pipelines.datasets.parts import read_parquet, sorted_rows
from pipelines.datasets.store import Store
from pipelines.dedup import survivors
from pipelines.dedup.buckets import EDGES
from pipelines.dedup.gather import gather, read_gathered
from pipelines.dedup.links import earlier_links, earlier_states
from pipelines.dedup.marks import pack, read_all_marks
from pipelines.dedup.nodes import owners, put_chunks, put_table, read_ids, read_tables
from pipelines.dedup.rounds import ROUNDS, uncompared
from pipelines.dedup.sketches import estimates, rejection_bound
from pipelines.dedup.urls import CAPTURE
from pipelines.dedup.verify import similarities

NAMED = pa.schema([*survivors.DECISIONS, ("cluster_id", pa.string()), ("match_id", pa.string())])
_PAIRS_AT_ONCE = 4096


class Work:
    """Where the work in flight is, and what all steps know of it."""

    def __init__(self, config: dict[str, Any], store: Store) -> None:
        """`config` is what `jobs.dedup_documents` gives to each stage."""
        self.config, self.store = config, store
        self.prefix: str = config["prefix"]
        self.starts = np.array(config["generation_starts"], np.int64)
        self.fresh_from: int = config["fresh_from"]
        self.parts = read_parquet(store.get(config["parts"]))
        self.nodes = int(np.sum(self.parts["rows"].to_numpy()))

    def keys(self, folder: str) -> list[str]:
        """Objects of a folder of the work in flight."""
        return [stored.key for stored in self.store.list(f"{self.prefix}/{folder}/")]

    def marks(self, name: str) -> np.ndarray:
        """Bits of all documents."""
        return read_all_marks(self.store, marks_key(self.prefix, name))

    def put_marks(self, name: str, marked: np.ndarray) -> None:
        """Store bits of all documents."""
        self.store.put(marks_key(self.prefix, name), pack(marked))

    def earlier(self) -> list[dict[str, Any]]:
        """What earlier versions decided, a row a part; none where all is decided anew."""
        return read_parquet(self.store.get(self.config["earlier"])).to_pylist()


def marks_key(prefix: str, name: str) -> str:
    """Key of the bits of all documents."""
    return f"{prefix}/marks/{name}"


def wanted_key(prefix: str, kind: str, number: int) -> str:
    """Key of the list of parts whose documents a round wants."""
    return f"{prefix}/wanted/{kind}-{number}.json"


def open_step(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """A unit does the step that it names."""
    work = Work(worker_config, store)
    steps = {
        "resolve": resolve_hot,
        "captures": mark_captures,
        "copies": mark_copies,
        "wanted": list_wanted,
        "gather": gather_part,
        "reject": reject_edges,
        "verify": verify_edges,
        "settle": settle_round,
        "decide": decide_all,
    }

    def step(unit: Unit) -> UnitResult:
        return UnitResult(stats=steps[unit.spec["step"]](work, unit.spec) or {})

    return step


def resolve_hot(work: Work, spec: dict[str, Any]) -> None:
    """Copies that did not travel hang at the best of all parts."""
    resolve_copies(work.store, work.prefix, spec["kind"], spec["name"])


def mark_captures(work: Work, spec: dict[str, Any]) -> None:
    """Bits of the captures for which another one of their URL stays."""
    captures = earlier_states(work.store, work.earlier(), work.nodes) & CAPTURE != 0
    captures[read_tables(work.store, spec["captures"], EDGES)["member"].to_numpy()] = True
    work.put_marks("captures", captures)


def mark_copies(work: Work, spec: dict[str, Any]) -> None:
    """Bits of the exact copies, of all who leave before the bands, and of what earlier versions decided."""
    states = earlier_states(work.store, work.earlier(), work.nodes)
    copies = states & 1 != 0
    copies[read_tables(work.store, spec["copies"], EDGES)["member"].to_numpy()] = True
    work.put_marks("copies", copies)
    if not spec["urls"]:
        work.put_marks("captures", np.zeros(work.nodes, bool))
    captures = np.unpackbits(work.marks("captures"), bitorder="little")[: work.nodes].astype(bool)
    work.put_marks("out", copies | captures)
    for number in range(1, ROUNDS + 1):
        work.put_marks(f"earlier-{number}", (states >> number) & 1 != 0)


def list_wanted(work: Work, spec: dict[str, Any]) -> None:
    """The documents that occur in edges, and which parts they are in."""
    edges = [read_parquet(work.store.get(key), ["centre", "member"]) for key in spec["tables"]]
    columns = [edge[name].to_numpy() for edge in edges for name in ("centre", "member")]
    nodes = np.unique(np.concatenate([np.zeros(0, np.int64), *columns]))
    key = f"{wanted_key(work.prefix, spec['kind'], spec['round'])}.nodes"
    work.store.put(key, nodes.tobytes())
    owner, first = np.unique(owners(work.parts, nodes), return_index=True)
    ends = [*first.tolist(), len(nodes)][1:]
    listed = [
        {"part": part, "nodes": key, "span": [8 * begin, 8 * end]}
        for part, begin, end in zip(owner.tolist(), first.tolist(), ends, strict=True)
    ]
    work.store.put(wanted_key(work.prefix, spec["kind"], spec["round"]), json.dumps(listed).encode())


def gather_part(work: Work, spec: dict[str, Any]) -> dict[str, int]:
    """Sketches or texts of one part's wanted documents."""
    nodes = np.frombuffer(work.store.get_ranges(spec["nodes"], [tuple(spec["span"])])[0], np.int64)
    part = work.parts.slice(spec["part"], 1).to_pylist()[0]
    source = part["signatures"] if spec["kind"] == "sketch" else part["documents"]
    body = gather(work.store.get(source), spec["kind"], part["first_node"], nodes)
    work.store.put(_gathered_key(work, spec["kind"], spec["round"], spec["part"]), body)
    return {f"read_{spec['kind']}": len(nodes), f"read_{spec['kind']}_earlier": int((nodes < work.fresh_from).sum())}


def _gathered_key(work: Work, kind: str, number: int, part: int) -> str:
    return f"{work.prefix}/gathered/{kind}-{number}/{part}"


def _gathered(work: Work, kind: str, number: int, nodes: np.ndarray) -> list[bytes]:
    """Values of nodes, which rise, from the objects of their parts."""
    owner = owners(work.parts, nodes)
    values: list[bytes] = []
    for part in np.unique(owner).tolist():
        values += read_gathered(work.store, _gathered_key(work, kind, number, part), nodes[owner == part])
    return values


def _edges(work: Work, key: str) -> tuple[pa.Table, np.ndarray, np.ndarray, np.ndarray]:
    """(table, its documents in order, place of each centre among them, of each member)."""
    table = read_parquet(work.store.get(key))
    centre, member = table["centre"].to_numpy(), table["member"].to_numpy()
    nodes = np.unique(np.concatenate([centre, member]))
    return table, nodes, np.searchsorted(nodes, centre), np.searchsorted(nodes, member)


def reject_edges(work: Work, spec: dict[str, Any]) -> dict[str, int]:
    """The edges whose sketches do not rule them out."""
    table, nodes, left, right = _edges(work, spec["key"])
    width = work.config["permutations"]
    sketches = np.frombuffer(b"".join(_gathered(work, "sketch", spec["round"], nodes)), np.uint8).reshape(-1, width)
    bound = rejection_bound(work.config["min_similarity"], width)
    passed = np.zeros(len(left), bool)
    for start in range(0, len(left), _PAIRS_AT_ONCE):
        some = slice(start, start + _PAIRS_AT_ONCE)
        passed[some] = estimates(sketches[left[some]], sketches[right[some]]) >= bound
    kept = table.filter(pa.array(passed))
    if kept.num_rows:
        put_table(work.store, f"{work.prefix}/passed-{spec['round']}", kept)
    return {"rejected": table.num_rows - kept.num_rows}


def verify_edges(work: Work, spec: dict[str, Any]) -> dict[str, int]:
    """The edges whose texts are as similar as they must be, as LINKS."""
    table, nodes, left, right = _edges(work, spec["key"])
    texts = pa.array(_gathered(work, "text", spec["round"], nodes), pa.large_binary()).cast(
        pa.large_string(), safe=False
    )
    found = similarities(texts, left, right, measure=work.config["measure"])
    kept = found >= work.config["min_similarity"]
    links = table.filter(pa.array(kept))
    links = links.append_column("similarity", pa.array(found[kept]))
    links = links.append_column("round", pa.array(np.full(links.num_rows, spec["round"], np.int64)))
    if links.num_rows:
        put_table(work.store, f"{work.prefix}/links-{spec['round']}", links.cast(survivors.LINKS))
    return {"verified": links.num_rows, "too_unlike": table.num_rows - links.num_rows}


def _links(work: Work, last_round: int) -> pa.Table:
    """LINKS of documents that are decided now, of the rounds so far."""
    keys = [key for number in range(1, last_round + 1) for key in work.keys(f"links-{number}")]
    return read_tables(work.store, keys, survivors.LINKS)


def settle_round(work: Work, spec: dict[str, Any]) -> None:
    """Bits of the documents that are removed after a round."""
    number = spec["round"]
    earlier = work.marks(f"earlier-{number}")
    gone = survivors.removed_after_round(_links(work, number), work.starts, work.fresh_from, earlier)
    marked = np.unpackbits(earlier, bitorder="little")[: work.nodes].astype(bool)
    marked[gone] = True
    work.put_marks(f"removed-{number}", marked)


def _as_links(work: Work, keys: list[str], similarity: float, number: int) -> pa.Table:
    """EDGES as LINKS of that similarity and round."""
    edges = read_tables(work.store, keys, EDGES)
    edges = edges.append_column("similarity", pa.array(np.full(edges.num_rows, similarity)))
    return edges.append_column("round", pa.array(np.full(edges.num_rows, number, np.int64))).cast(survivors.LINKS)


def decide_all(work: Work, spec: dict[str, Any]) -> None:
    """Survivors, matches and clusters, in this one task; stored as NAMED below `decisions/`, LINKS below `placed/`."""
    captures = _as_links(work, spec["captures"], np.nan, survivors.CAPTURE_ROUND)
    placed = pa.concat_tables([captures, _as_links(work, spec["copies"], 1.0, 0), _links(work, ROUNDS)])
    put_chunks(work.store, f"{work.prefix}/placed", "member", sorted_rows(placed, [("member", "ascending")]))
    every = pa.concat_tables([earlier_links(work.store, work.earlier(), work.parts), placed])
    removed = [work.marks(f"removed-{number}") for number in range(1, ROUNDS + 1)]
    fates = survivors.Fates(captures=work.marks("captures"), copies=work.marks("copies"), removed=removed)
    decisions = survivors.decide(every, work.starts, work.fresh_from, fates)
    columns = [decisions[name].to_numpy() for name in ("cluster",)] + [decisions["match"].drop_null().to_numpy()]
    nodes = np.unique(np.concatenate([np.zeros(0, np.int64), *columns]).astype(np.int64))
    ids = read_ids(work.store, work.parts, nodes)
    named = decisions
    for name in ("cluster", "match"):
        known = decisions[name].is_valid().to_numpy(zero_copy_only=False)
        at = np.searchsorted(nodes, decisions[name].fill_null(0).to_numpy())
        named = named.append_column(f"{name}_id", ids.take(pa.array(at, mask=~known)))
    put_chunks(work.store, f"{work.prefix}/decisions", "node", named.cast(NAMED))
    left = [uncompared(read_parquet(work.store.get(key)), removed, work.fresh_from) for key in spec["buckets"]]
    report = {
        **survivors.cluster_report(named),
        "better_not_taken": survivors.better_not_taken(every, decisions),
        "uncompared": len(np.unique(np.concatenate([np.zeros(0, np.int64), *left]))),
    }
    work.store.put(f"{work.prefix}/report.json", json.dumps(report, sort_keys=True).encode())
