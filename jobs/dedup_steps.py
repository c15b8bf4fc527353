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
from jobs.dedup_groups import finish_labels
from jobs.runtime.stage import Unit, UnitResult
from pipelines.datasets.parts import read_parquet, sorted_rows
from pipelines.datasets.ranged import read_columns
from pipelines.datasets.store import Store
from pipelines.dedup import survivors
from pipelines.dedup.buckets import EDGES
from pipelines.dedup.gather import gather, read_gathered
from pipelines.dedup.links import earlier_links, earlier_states
from pipelines.dedup.marks import mark, pack, read_all_marks
from pipelines.dedup.nodes import owners, put_chunks, put_counted, put_table, read_ids, read_tables
from pipelines.dedup.rounds import ROUNDS, UNLIKE, uncompared
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
        "recall": recall_links,
        "settle": settle_round,
        "settle-group": settle_group,
        "decide": decide_all,
        "as-links": as_links,
        "finish": finish,
        "decide-group": decide_group,
        "name": name_decided,
        "left": list_left,
        "report": tell_report,
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
    _mark_members(work, spec["captures"], captures)
    work.put_marks("captures", captures)


def mark_copies(work: Work, spec: dict[str, Any]) -> None:
    """Bits of the exact copies, of all who leave before the bands, and of what earlier versions decided."""
    states = earlier_states(work.store, work.earlier(), work.nodes)
    copies = states & 1 != 0
    _mark_members(work, spec["copies"], copies)
    work.put_marks("copies", copies)
    if not spec["urls"]:
        work.put_marks("captures", np.zeros(work.nodes, bool))
    captures = np.unpackbits(work.marks("captures"), bitorder="little")[: work.nodes].astype(bool)
    work.put_marks("out", copies | captures)
    for number in range(1, ROUNDS + 1):
        work.put_marks(f"earlier-{number}", (states >> number) & 1 != 0)


def _mark_members(work: Work, keys: list[str], marked: np.ndarray) -> None:
    """Set what stands for the members of these tables of EDGES, one table at a time."""
    for key in keys:
        marked[read_columns(work.store, key, ["member"])["member"].to_numpy()] = True


def list_wanted(work: Work, spec: dict[str, Any]) -> None:
    """The documents that occur in edges, and which parts they are in."""
    bits = np.zeros((work.nodes + 7) // 8, np.uint8)
    names = spec.get("columns", ["centre", "member"])
    for name in spec["tables"]:
        table = read_parquet(work.store.get(name), names)
        for column in names:
            mark(bits, table[column].drop_null().to_numpy())
    nodes = np.flatnonzero(np.unpackbits(bits, bitorder="little"))
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
    source = part["documents"] if spec["kind"] == "text" else part["signatures"]
    body = gather(work.store, source, spec["kind"], part["first_node"], nodes)
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
    links = table.append_column("similarity", pa.array(found))
    links = links.append_column("round", pa.array(np.where(kept, 0, UNLIKE) + spec["round"])).cast(survivors.LINKS)
    for folder, some in (("links", kept), ("unlike", ~kept)):
        put_counted(work.store, f"{work.prefix}/{folder}-{spec['round']}", links.filter(pa.array(some)))
    return {"verified": int(kept.sum()), "too_unlike": int((~kept).sum())}


def recall_links(work: Work, spec: dict[str, Any]) -> dict[str, int]:
    """Edges that were compared before, where those that were compared now lie."""
    links = read_parquet(work.store.get(spec["key"]))
    folder, counter = ("unlike", "too_unlike") if spec["unlike"] else ("links", "verified")
    put_counted(work.store, f"{work.prefix}/{folder}-{spec['round']}", links)
    return {"recalled": links.num_rows, counter: links.num_rows}


def _links(work: Work, last_round: int, folder: str = "links") -> pa.Table:
    """LINKS of documents that are decided now, of the rounds so far; or those that were too unlike."""
    keys = [key for number in range(1, last_round + 1) for key in work.keys(f"{folder}-{number}")]
    return read_tables(work.store, keys, survivors.LINKS)


def settle_round(work: Work, spec: dict[str, Any]) -> None:
    """Bits of the documents that are removed after a round."""
    number = spec["round"]
    bits = work.marks(f"earlier-{number}").copy()
    if spec.get("grouped"):
        for key in work.keys(f"gone-{number}"):
            mark(bits, np.frombuffer(work.store.get(key), np.int64))
    else:
        links = _links(work, number)
        mark(bits, survivors.removed_after_round(links, work.starts, work.fresh_from, bits))
    work.store.put(marks_key(work.prefix, f"removed-{number}"), bits.tobytes())


def settle_group(work: Work, spec: dict[str, Any]) -> None:
    """The nodes of a group of clusters that are removed after a round."""
    number = spec["round"]
    links = read_parquet(work.store.get(spec["key"]))
    earlier = work.marks(f"earlier-{number}")
    gone = survivors.removed_after_round(links, work.starts, work.fresh_from, earlier)
    work.store.put(f"{work.prefix}/gone-{number}/{spec['key'].rpartition('/')[2]}", gone.tobytes())


def as_links(work: Work, spec: dict[str, Any]) -> None:
    """Captures and copies as LINKS, below `links-0/`; what earlier versions found, below `links-earlier/`."""
    if spec["kind"] == "earlier":
        links = earlier_links(work.store, [work.earlier()[spec["row"]]], work.parts)
        put_counted(work.store, f"{work.prefix}/links-earlier", links)
        return
    put_counted(work.store, f"{work.prefix}/links-0", _as_links(work, [spec["key"]], spec["kind"]))


def _as_links(work: Work, keys: list[str], kind: str) -> pa.Table:
    """EDGES to captures or exact copies as LINKS."""
    similarity, number = (np.nan, survivors.CAPTURE_ROUND) if kind == "captures" else (1.0, 0)
    edges = read_tables(work.store, keys, EDGES)
    edges = edges.append_column("similarity", pa.array(np.full(edges.num_rows, similarity)))
    return edges.append_column("round", pa.array(np.full(edges.num_rows, number, np.int64))).cast(survivors.LINKS)


def finish(work: Work, spec: dict[str, Any]) -> None:
    """The clusters of edges that fit this one task."""
    finish_labels(work.store, spec["keys"], f"{work.prefix}/labels-{spec['name']}")


def _fates(work: Work) -> survivors.Fates:
    removed = [work.marks(f"removed-{number}") for number in range(1, ROUNDS + 1)]
    return survivors.Fates(captures=work.marks("captures"), copies=work.marks("copies"), removed=removed)


def decide_all(work: Work, spec: dict[str, Any]) -> None:
    """Survivors, matches and clusters, in this one task; stored as NAMED below `decisions/`, LINKS below `placed/`."""
    copies = [_as_links(work, spec[kind], kind) for kind in ("captures", "copies")]
    placed = pa.concat_tables([*copies, _links(work, ROUNDS)])
    told = pa.concat_tables([placed, _links(work, ROUNDS, "unlike")])
    put_chunks(work.store, f"{work.prefix}/placed", "member", sorted_rows(told, [("member", "ascending")]))
    every = pa.concat_tables([earlier_links(work.store, work.earlier(), work.parts), placed])
    fates = _fates(work)
    decisions = survivors.decide(every, work.starts, work.fresh_from, fates)
    columns = [decisions[name].drop_null().to_numpy() for name in ("cluster", "match")]
    nodes = np.unique(np.concatenate([np.zeros(0, np.int64), *columns]).astype(np.int64))
    _put_named(work, decisions, nodes, read_ids(work.store, work.parts, nodes))
    left = [uncompared(read_parquet(work.store.get(key)), fates.removed, work.fresh_from) for key in spec["buckets"]]
    _put_report(
        work,
        [survivors.cluster_report(decisions) | {"better_not_taken": survivors.better_not_taken(every, decisions)}],
        len(np.unique(np.concatenate([np.zeros(0, np.int64), *left]))),
    )


def decide_group(work: Work, spec: dict[str, Any]) -> None:
    """DECISIONS of a group of whole clusters, below `decided/`, and what the report tells of them."""
    every = read_parquet(work.store.get(spec["key"]))
    decisions = survivors.decide(every, work.starts, work.fresh_from, _fates(work))
    put_counted(work.store, f"{work.prefix}/decided", decisions)
    report = survivors.cluster_report(decisions)
    report["better_not_taken"] = survivors.better_not_taken(every, decisions)
    name = spec["key"].rpartition("/")[2]
    work.store.put(f"{work.prefix}/reports/{name}.json", json.dumps(report, sort_keys=True).encode())


def name_decided(work: Work, spec: dict[str, Any]) -> None:
    """DECISIONS as NAMED, with ids that were gathered, below `decisions/`."""
    decisions = read_parquet(work.store.get(spec["key"]))
    columns = [decisions[name].drop_null().to_numpy() for name in ("cluster", "match")]
    nodes = np.unique(np.concatenate(columns))
    ids = pa.array(_gathered(work, "id", 0, nodes), pa.binary()).cast(pa.string())
    _put_named(work, decisions, nodes, ids)


def _put_named(work: Work, decisions: pa.Table, nodes: np.ndarray, ids: pa.Array) -> None:
    """Store DECISIONS with the ids, of nodes that rise, beside them."""
    named = decisions
    for name in ("cluster", "match"):
        known = decisions[name].is_valid().to_numpy(zero_copy_only=False)
        at = np.searchsorted(nodes, decisions[name].fill_null(0).to_numpy())
        named = named.append_column(f"{name}_id", ids.take(pa.array(at, mask=~known)))
    put_chunks(work.store, f"{work.prefix}/decisions", "node", named.cast(NAMED))


def list_left(work: Work, spec: dict[str, Any]) -> None:
    """The nodes of some buckets that a further round would compare."""
    removed = [work.marks(f"removed-{number}") for number in range(1, ROUNDS + 1)]
    left = uncompared(read_parquet(work.store.get(spec["key"])), removed, work.fresh_from)
    work.store.put(f"{work.prefix}/left/{spec['key'].rpartition('/')[2]}", left.tobytes())


def tell_report(work: Work, _spec: dict[str, Any]) -> None:
    """The report, of what the groups told."""
    bits = np.zeros((work.nodes + 7) // 8, np.uint8)
    for key in work.keys("left"):
        mark(bits, np.frombuffer(work.store.get(key), np.int64))
    _put_report(work, [json.loads(work.store.get(key)) for key in work.keys("reports")], int(np.unpackbits(bits).sum()))


def _put_report(work: Work, reports: list[dict[str, Any]], left: int) -> None:
    report = survivors.whole_report(reports) | {"uncompared": left}
    nodes = np.sort(np.array([best for best, *_ in report["biggest_clusters"]], np.int64))
    ids = dict(zip(nodes.tolist(), read_ids(work.store, work.parts, nodes).to_pylist(), strict=True))
    report["biggest_clusters"] = [
        {"cluster": ids[best], "documents": size, "samples": _places(work, [best, *left])}
        for best, size, left in report["biggest_clusters"]
    ]
    work.store.put(f"{work.prefix}/report.json", json.dumps(report, sort_keys=True).encode())


def _places(work: Work, nodes: list[int]) -> list[list[Any]]:
    """[input, unit, row] of nodes: where their texts are, without a word of them."""
    parts = work.parts.take(pa.array(owners(work.parts, np.array(nodes)))).to_pylist()
    return [[part["input"], part["unit"], node - part["first_node"]] for part, node in zip(parts, nodes, strict=True)]
