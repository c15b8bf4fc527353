"""The cost model of extract_crawl: small pieces of the crawl, chosen by hash, through the job's own code.

What is known of the whole is its size in bytes, so costs are measured a byte.  Pieces are small, because neighbours in
a crawl are alike: many small ones tell more than a few large ones.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from jobs.extract_worker import Made, input_settings, rules_of
from jobs.runtime.cost import Figure, Plan, Ratio, Request, by_hash, cpu_seconds, living_children, peak_memory_mb
from pipelines.crawl.batches import BATCH_BYTES, batches
from pipelines.crawl.document import DocumentRules
from pipelines.crawl.inputs import open_source
from pipelines.crawl.items import Item, Record, Skipped
from pipelines.crawl.records import InputSettings, read_records
from pipelines.datasets.store import Store

PIECE_BYTES = 24 << 10
LEAST_RECORDS = 600  # fewer would not hold the error below 20%
MOST_RECORDS = 50_000  # more would not make it smaller
GROUPS = 20
_READ_BLOCK_BYTES = 4 << 20
_BUSY = 0.9  # share of the wall time in which a core works on units


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    row: dict[str, Any]
    start: int
    end: int


@dataclass(slots=True)
class _Group:
    """What some pieces cost."""

    size: int = 0
    cpu: float = 0.0
    records: int = 0
    documents: int = 0
    plain: int = 0  # bytes of the rows before compression
    items: list[Item] = field(default_factory=list)
    held_bytes: int = 0


def plan_crawl(listed: pa.Table, store: Store, worker_config: dict[str, Any], request: Request) -> Plan:
    """The plan of extracting the units `listed` (INPUT_SCHEMA); `store` is opened at the crawl root."""
    units = listed.to_pylist()
    total = sum(row["end"] - row["start"] for row in units)
    rules = rules_of(worker_config)
    fixed = _warm_up(rules, worker_config)
    pieces = by_hash(_pieces(units), lambda piece: f"{piece.row['file']}\0{piece.start}")
    settings = input_settings(worker_config)
    awake = _Group()
    for piece in pieces[:GROUPS]:  # real pages wake what made ones do not: each is measured again below
        _read_piece(awake, piece, store, settings)
    _work(awake, rules, Made(worker_config))
    started = cpu_seconds()  # of this process so far: imports, models, compilation
    made = Made(worker_config)
    groups = _measured(pieces, request.fraction * total, store, rules, settings, made)
    _work_last(groups, rules, made, Made(worker_config))
    groups = [group for group in groups if group.size]
    before = cpu_seconds_fine()
    sizes_written = _written(made)
    encoding = Figure(value=(cpu_seconds_fine() - before) * total / max(1, sum(g.size for g in groups)), unit="s")
    sampled = sum(group.size for group in groups)
    sizes = [float(group.size) for group in groups]

    def scaled(costs: list[float], unit: str, fixed: float = 0.0) -> Figure:
        ratio = Ratio.of(costs, sizes)
        value = ratio.value * total
        return Figure(value=value + fixed, unit=unit, error=ratio.error * value / (value + fixed) if value else None)

    workers = min(request.cores, len(units))
    work = scaled([group.cpu for group in groups], "s")
    cpu = scaled([group.cpu for group in groups], "s", started * workers + encoding.value)
    wall = started + (work.value + encoding.value) / workers / _BUSY
    plain = scaled([float(group.plain) for group in groups], "B")
    packed = max(0, sum(sizes_written) - fixed) / max(1, sum(group.plain for group in groups))
    reads = sum(math.ceil((row["end"] - row["start"]) / _READ_BLOCK_BYTES) + 2 for row in units)
    return Plan(
        job="extract_crawl",
        sample={
            "records": sum(group.records for group in groups),
            "bytes": sampled,
            "fraction": round(sampled / total, 4) if total else 0.0,
            "asked_fraction": request.fraction,
            "least_records": LEAST_RECORDS,
        },
        figures={
            "input": Figure(value=total, unit="B", error=0.0),
            "units": Figure(value=len(units), unit="", error=0.0),
            "records": scaled([float(group.records) for group in groups], ""),
            "cpu": cpu,
            "start": Figure(value=started * workers, unit="s"),
            "wall": Figure(value=wall, unit="s", error=work.error),
            "documents": scaled([float(group.documents) for group in groups], ""),
            "output": Figure(value=plain.value * packed + fixed * len(units), unit="B", error=plain.error),
            "reads": Figure(value=reads, unit="requests"),
            "writes": Figure(value=3 * len(units) + math.ceil(len(units) / 1000) + 8, unit="requests"),
            "memory": Figure(value=_memory_mb() * workers * 1e6, unit="B"),
        },
        notes=[f"wall for {workers} worker processes; start-up of the engine not counted"],
    )


def _pieces(units: list[dict[str, Any]]) -> Iterator[_Piece]:
    """Ranges of files that a reader can begin in; of the other forms, whole units."""
    for row in units:
        start, end = row["start"], row["end"]
        cut = row["form"] in ("warc", "wet", "arc") and row["size_bytes"] > 2 * PIECE_BYTES
        step = PIECE_BYTES if cut else max(1, end - start)
        for at in range(start, end, step):
            yield _Piece(row=row, start=at, end=min(at + step, end))


def _measured(
    pieces: list[_Piece],
    wanted_bytes: float,
    store: Store,
    rules: DocumentRules,
    settings: InputSettings,
    made: Made,
) -> list[_Group]:
    groups = [_Group() for _ in range(GROUPS)]
    taken_bytes = taken_records = 0
    at = 0
    while at < len(pieces) and taken_records < MOST_RECORDS:
        if taken_bytes >= wanted_bytes and taken_records >= LEAST_RECORDS and at % GROUPS == 0:
            break
        # As many pieces go to each group, so that the groups are alike.
        for group, piece in zip(groups, pieces[at : at + GROUPS], strict=False):
            _read_piece(group, piece, store, settings)
            if group.held_bytes >= BATCH_BYTES:
                _work(group, rules, made)
        done = pieces[at : at + GROUPS]
        at += len(done)
        taken_bytes = sum(group.size for group in groups)
        taken_records = sum(group.records for group in groups)
    return groups


def _work_last(groups: list[_Group], rules: DocumentRules, made: Made, spare: Made) -> None:
    """Work on what the groups still hold.  A batch of few records costs more a record, so all are also worked on
    together, as the job does, and the groups share what that costs.
    """
    together, apart = _Group(items=[item for group in groups for item in group.items]), 0.0
    _work(together, rules, spare)
    before = [group.cpu for group in groups]
    for group in groups:
        _work(group, rules, made)
        apart += group.cpu
    apart -= sum(before)
    share = min(1.0, together.cpu / apart) if apart > 0 else 1.0
    for group, cpu in zip(groups, before, strict=True):
        group.cpu = cpu + (group.cpu - cpu) * share


def _read_piece(group: _Group, piece: _Piece, store: Store, settings: InputSettings) -> None:
    """Add the records of a piece, and what reading them cost.

    Finding the first record of a piece is no cost of the job, so the first one counts as an average one.
    """
    row = piece.row
    pages = [(page["file"], page["size_bytes"]) for page in row["pages"]] if row["pages"] else None
    source = open_source(store, row["file"], row["size_bytes"], pages=pages)
    count, reading, first = 0, 0.0, 0.0
    began = time.process_time()
    for item in read_records(source, form=row["form"], start=piece.start, end=piece.end, settings=settings):
        reading = time.process_time() - began
        first = first or reading
        count += 1
        group.items.append(item if item.file else replace(item, file=row["file"]))
        group.records += not isinstance(item, Skipped)
        group.held_bytes += len(item.body) if isinstance(item, Record) else 0
    group.size += piece.end - piece.start
    if count > 1:
        group.cpu += (reading - first) * count / (count - 1)


def _work(group: _Group, rules: DocumentRules, made: Made) -> None:
    """Do with the records that are held what a worker does, and count it."""
    if not group.items:
        return
    before = cpu_seconds_fine()
    for batch in batches(group.items, "", rules):
        made.add(batch)
        made.count(batch.accounts)
        group.documents += batch.documents.num_rows
        group.plain += sum(table.nbytes for table in (batch.documents, batch.measures, batch.ledger))
    group.cpu += cpu_seconds_fine() - before - _EMPTY["cpu"]
    group.items, group.held_bytes = [], 0


_EMPTY = {"cpu": 0.0}  # what a call costs that has no records, known after the warm-up


def cpu_seconds_fine() -> float:
    """CPU of this process, and of extraction in its children, which /proc tells in coarse steps only."""
    from pipelines.crawl.pages import isolated_seconds

    return time.process_time() + isolated_seconds()


def _written(made: Made) -> list[int]:
    """Bytes of the objects of a unit."""
    return [len(writer.finish("plan", "0" * 32, "part").body) for writer in made.writers()]


def _warm_up(rules: DocumentRules, worker_config: dict[str, Any]) -> int:
    """Do everything that a worker does once; the bytes that a unit writes beside its rows."""
    paragraph = "<p>The stones turn slowly and the grain becomes flour, as it always has.</p>"
    body = f"<html><body><article>{paragraph * 12}</article></body></html>".encode()
    record = Record(
        offset=0, length=0, index=0, record_type="resource", headers={"content-type": "text/html"},
        target_uri=b"https://mill.example/", http_status=None, http_headers={}, body=body,
    )  # fmt: skip
    large = replace(record, body=body.replace(b"</article>", paragraph.encode() * 600 + b"</article>"))
    fixed = 0
    for _ in range(2):
        made = Made(worker_config)
        for batch in batches([record, large], "warm-up", rules):
            made.add(batch)
        fixed = sum(_written(made))
    rounds = 5
    made = Made(worker_config)
    before = cpu_seconds_fine()
    for _ in range(rounds):
        for batch in batches([], "warm-up", rules):
            made.add(batch)
    _EMPTY["cpu"] = (cpu_seconds_fine() - before) / rounds
    return fixed


def _memory_mb() -> float:
    return peak_memory_mb() + max([peak_memory_mb(pid) for pid in living_children()], default=0.0)
