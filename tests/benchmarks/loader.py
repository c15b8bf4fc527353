"""The loader: what a position costs, tokens a CPU second, a slow and an ill store, a flipped byte; peers beside ours.

`python -m tests.benchmarks.loader [--parts NAMES] [--tokens N]` prints a table on stderr and one JSON line on stdout.
Peers read the same tokens in their own formats. CPU is user + system of this process and its children, the server of
ranged GETs apart; a warm-up, then ours and peers in turn, five rounds, medians.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import itertools
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.datasets.store import open_store
from tests.benchmarks.filters import note
from tests.benchmarks.loader_peers import LENGTH, PEERS, resumed, wrong_tokens
from tests.unit.training.token_shards import EOS, FILLER, write_tokens
from training.data.batches import BatchPlan
from training.data.cells import CellGeometry, geometry
from training.data.order import Order
from training.data.plan import DatasetPin, Plan, single_segment_plan
from training.data.revise import Change, Source, revise
from training.data.shards import TokenShards
from training.data.stream import RowSource, RowStream

ROUNDS = 5
PACE_13B = 1_873  # tokens a second and GPU, Skywork-13B's report
WORLDS = (1, 2, 3, 4, 5, 8)
PARTS = ("digest", "position", "folder", "server", "faults", "flipped", "peers")


def cpu() -> float:
    """User and system seconds of this process and its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def tokens_of(count: int) -> np.ndarray:
    """Documents of 900 tokens on the mean, ids of a vocabulary of 65,000."""
    rng = np.random.default_rng(7)
    tokens = rng.integers(8, 65_000, count, dtype=np.uint16)
    tokens[np.cumsum(rng.geometric(1 / 900, count // 800))[:-1] % count] = EOS
    return tokens


def dataset(root: Path, tokens: np.ndarray, shards: int = 8) -> Plan:
    """Two cells of shards below `root`, and a plan that reads them in rows of LENGTH."""
    parts = np.array_split(tokens, shards)
    half = shards // 2
    manifest = write_tokens(open_store(root), {"en.web": parts[:half], "zh.web": parts[half:]}, vocab_size=65_000)
    return single_segment_plan(
        seed=1,
        dataset=DatasetPin(name="tokens", version=1, manifest_sha256=manifest.sha256),
        weights={"en.web": 1, "zh.web": 1},
        sequence_length=LENGTH,
        rows_per_batch=64,
        steps=10**6,
    )


class _Sizes:
    """Twelve cells of 13 billion tokens each."""

    def geometry(self, _pin: DatasetPin, _cell: str, name: str, stretch_tokens: int) -> CellGeometry:
        return geometry(name, [32 << 20] * 400, stretch_tokens)


def position_cost() -> dict[str, float]:
    """us a position at 10^12, one at a time and in a batch of 1,024, both ways."""
    names = [f"zh.web.q{number}" for number in range(12)]
    order = Order(
        single_segment_plan(
            seed=1,
            dataset=DatasetPin(name="tokens", version=1, manifest_sha256="a" * 64),
            weights={name: number + 1 for number, name in enumerate(names)},
            sequence_length=LENGTH,
            rows_per_batch=1024,
            steps=2 * 10**12 // 1024,
        ),
        _Sizes(),
    )
    first, count, batch = 10**12, 4096, 1024
    positions = np.arange(first, first + batch)
    where = [order.row(position) for position in range(first, first + count)]
    compiled = order.compiled(0)
    tokens = compiled._tokens[0]
    by_cell: dict[int, list[tuple[int, int, int]]] = {}
    for row in where:
        by_cell.setdefault(row.cell, []).append((row.spans[0].shard, row.spans[0].first, row.k * LENGTH // tokens))
    cell, places = max(by_cell.items(), key=lambda item: len(item[1]))
    asked = np.resize(np.array(places), (batch, 3)).T.copy()

    def one_by_one() -> None:
        for position in range(first, first + count):
            order.row(position)

    def back() -> None:
        for shard, token, ahead in places:
            compiled.position(cell, shard, token, ahead)

    def cost(run: Callable[[], Any], each: int) -> float:
        run()
        spent = []
        for _ in range(ROUNDS):
            began = cpu()
            run()
            spent.append((cpu() - began) / each * 1e6)
        return round(statistics.median(spent), 2)

    forward = cost(one_by_one, count)
    inverse = cost(back, len(places))
    batch_forward = cost(lambda: [order.spans(positions + batch * i) for i in range(50)], 50 * batch)
    batch_inverse = cost(lambda: [compiled.positions(cell, *asked) for _ in range(50)], 50 * batch)
    return {
        "position_us": max(forward, inverse),
        "position_us_batch": max(batch_forward, batch_inverse),
        "position_us_each": [forward, inverse, batch_forward, batch_inverse],
    }


def changed_plans(root: Path) -> list[Plan]:
    """A plan with skips, changed on its way: mixture, a ramp, batch and length, a version that grew, documents gone."""
    store = open_store(root)
    tokens = [part.copy() for part in np.array_split(tokens_of(200_000), 5)]
    tokens[1][5_000:9_000] = FILLER  # what a takedown leaves
    first = write_tokens(store, {"en": tokens[:2], "zh": tokens[2:3]}, vocab_size=65_000)
    grown = {"en": [*tokens[:2], tokens[3]], "zh": tokens[2:3], "code": tokens[4:]}
    second = write_tokens(store, grown, vocab_size=65_000)
    pins = [DatasetPin(name="tokens", version=m.version, manifest_sha256=m.sha256) for m in (first, second)]
    kind = {"seed": 3, "dataset": pins[0], "weights": {"en": 3, "zh": 1}, "sequence_length": 64}
    plans = [single_segment_plan(rows_per_batch=8, steps=40, skips=[(30, 37), (100, 101)], **kind)]
    shards = TokenShards.open(store, pins)
    old = {name: Source(dataset=pins[0], cell=name) for name in ("en", "zh")}
    new = {name: Source(dataset=pins[1], cell=name) for name in ("en", "zh", "code")}
    common = {"sequence_length": 64, "rows_per_batch": 8}
    changes = [
        Change(weights={"en": 1, "zh": 2}, sources=old, steps=60, ramp_steps=12, **common),
        Change(weights={"en": 2, "zh": 1, "code": 1}, sources=new, steps=70, **{**common, "rows_per_batch": 64}),
        Change(weights={"en": 1, "code": 3}, sources=new, steps=90, **{**common, "sequence_length": 96}),
    ]
    for step, change in zip((20, 45, 60), changes, strict=True):
        at = BatchPlan(plans[-1]).batch(step - 1).end
        plans.append(revise(plans[-1], change, at, shards))
    return plans


def digests(source: RowSource, worlds: Sequence[int], cuts: Sequence[int]) -> list[int]:
    """The digest of each step, its rows read by worlds[0] ranks, begun again by worlds[1] at cuts[0], ..."""
    found: list[int] = []
    pieces = itertools.pairwise([0, *cuts, source.batches.steps])
    for world, (start, end) in zip(itertools.cycle(worlds), pieces, strict=False):
        parts = []
        for rank in range(world):
            with RowStream(source, rank=rank, world_size=world, start_step=start, rows_ahead=16, readers=2) as stream:
                parts.append([step.digest for step in itertools.islice(stream, end - start)])
        found += [sum(step) % 2**64 for step in zip(*parts, strict=True)]
    return found


def stream_equal(root: Path) -> dict[str, Any]:
    """Whether every way to read a plan gives the same rows step by step; revisions agree up to where they part."""
    store = open_store(root)
    cases = wrong = 0
    earlier: list[int] = []
    for number, plan in enumerate(changed_plans(root)):
        source = RowSource(store, plan)
        whole = digests(source, [1], [])
        common = (0, 20, 45, 60)[number]
        cases, wrong = cases + 1, wrong + (earlier[:common] != whole[:common])
        ways = [([world], cuts) for world in WORLDS for cuts in ([], [7], [3, 4, 31])]
        for worlds, cuts in [*ways, ([8, 3, 5, 1], [3, 4, 31]), ([1, 8, 2], [10, 11])]:
            cases, wrong = cases + 1, wrong + (digests(source, worlds, cuts) != whole)
        earlier = whole
    return {"stream_digest_equal": int(wrong == 0), "stream_cases": cases}


def read_checked(source: RowSource, rows: int) -> int:
    """The tokens of `rows` rows, pages checked, not shaped."""
    total = 0
    for start in range(0, rows, 64):
        spans = source.order.spans(np.arange(start, start + 64))
        shards = source._by_cell[0]
        cells = np.repeat(spans.cell, np.diff(spans.starts)).tolist()
        places = zip(cells, spans.shard.tolist(), spans.first.tolist(), spans.tokens.tolist(), strict=True)
        flat, _ = source._pages.read([(shards[c][s], f, t) for c, s, f, t in places], source._dtype, 4)
        total += len(flat)
    return total


def read_rows(source: RowSource, rows: int) -> int:
    """Rows through the stream: labels, positions, documents, where they come from, and their digest."""
    total = 0
    with RowStream(source, rank=0, world_size=1) as stream:
        for step in stream:
            total += len(step.rows) * LENGTH
            if step.digest == 0 or total >= rows * LENGTH:
                return total
    return total


def our_readers(root: Path, plan: Plan, _count: int) -> dict[str, Callable[[int], int]]:
    """Rows with their pages checked, and rows with labels, positions, documents and digest."""
    store = open_store(root)
    return {
        "checked": lambda rows: read_checked(RowSource(store, plan), rows),
        "rows": lambda rows: read_rows(RowSource(store, plan), rows),
    }


def peer_readers(name: str, root: Path, count: int) -> dict[str, Callable[[int], int]]:
    """Rows of a peer; none where it is not installed."""
    peer = PEERS[name]
    try:
        peer.write(root / name, tokens_of(count))
    except ImportError as error:
        note(f"{peer.package}: {error}")
        return {}
    return {name: lambda rows: sum(len(row) for row in itertools.islice(peer.read(root / name), rows))}


def serve_readers(pipe: Any, make: Callable[..., dict[str, Callable[[int], int]]], *arguments: Any) -> None:
    """In a process of its own, since peers leave threads at work: (tokens, CPU seconds) of each turn that is asked."""
    readers = make(*arguments)
    pipe.send(list(readers))
    while (turn := pipe.recv()) is not None:
        name, rows = turn
        began = cpu()
        total = readers[name](rows)
        pipe.send((total, cpu() - began))
    os._exit(0)


def folder_speed(root: Path, count: int, plan: Plan) -> dict[str, Any]:
    """Tokens a CPU second from a folder, ours and the peers' in turn."""
    rows = min(count // LENGTH, 20_000) // 64 * 64
    ways = [(our_readers, root, plan, count), *((peer_readers, name, root, count) for name in ("litdata", "mosaicml"))]
    context, pipes, speeds = multiprocessing.get_context("spawn"), {}, {}
    for make, *arguments in ways:
        ours, theirs = context.Pipe()
        context.Process(target=serve_readers, args=(theirs, make, *arguments), daemon=True).start()
        for name in ours.recv():
            pipes[name], speeds[name] = ours, []
    for turn in range(ROUNDS + 1):
        for name, pipe in pipes.items():
            pipe.send((name, rows))
            total, seconds = pipe.recv()
            if turn:
                speeds[name].append(total / seconds / 1e6)
    for pipe in set(pipes.values()):
        pipe.send(None)
    made = {name: statistics.median(found) for name, found in speeds.items()}
    return {
        "tokens_per_cpu_s": round(made["checked"] * 1e6),
        "tokens_per_cpu_s_rows": round(made["rows"] * 1e6),
        "vs_litdata": round(made["rows"] / made["litdata"], 2) if "litdata" in made else None,
        "vs_mosaicml": round(made["rows"] / made["mosaicml"], 2) if "mosaicml" in made else None,
        "vs_litdata_checked": round(made["checked"] / made["litdata"], 2) if "litdata" in made else None,
        "million_tokens_per_cpu_s": {name: [round(min(x), 1), round(max(x), 1)] for name, x in speeds.items()},
    }


@contextmanager
def served(root: Path, *options: str) -> Iterator[str]:
    """The root behind the server of ranged GETs, as an S3 location."""
    command = [sys.executable, "-m", "tests.benchmarks.ranged_server", str(root), *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        endpoint = f"http://127.0.0.1:{port}"
        os.environ.update(AWS_ENDPOINT_URL=endpoint, AWS_ACCESS_KEY_ID="k", AWS_SECRET_ACCESS_KEY="s")
        os.environ["AWS_REGION"] = "us-east-1"
        yield "s3://bucket"
    finally:
        server.kill()
        server.wait()


def server_speed(root: Path, plan: Plan, seconds: float) -> dict[str, Any]:
    """Tokens a second of one rank and CPU a GET, each answer 50 ms late."""
    with served(root) as location:
        source = RowSource(open_store(location), plan, cache_bytes=0, in_flight=128)
        gets = 0
        fetch = source._pages.fetcher.fetch

        def counted(wanted: Any) -> Any:
            nonlocal gets
            gets += len(wanted)
            return fetch(wanted)

        source._pages.fetcher.fetch = counted  # type: ignore[method-assign]
        with RowStream(source, rank=0, world_size=1, rows_ahead=512) as stream:
            steps = iter(stream)
            next(steps)
            began, used, before, rows = time.perf_counter(), cpu(), gets, 0
            for step in steps:
                rows += len(step.rows)
                if time.perf_counter() - began > seconds:
                    break
            took, spent = time.perf_counter() - began, cpu() - used
    return {
        "s3_tokens_per_s_rank": round(rows * LENGTH / took),
        "cpu_ms_per_get": round(1000 * spent / max(1, gets - before), 3),
    }


def ill_server(root: Path, plan: Plan, seconds: float) -> dict[str, Any]:
    """The share of time that a rank of 100 times a 13B rank's pace waits, with slow, hanging and failing answers."""
    rows_per_s = 100 * PACE_13B / LENGTH
    with served(root, "--slow-share=0.01", "--hang-share=0.001", "--error-share=0.01") as location:
        began = time.perf_counter()
        source = RowSource(open_store(location), plan, cache_bytes=0)
        waits: list[float] = []
        with RowStream(source, rank=0, world_size=64) as stream:  # a row a step, as ranks of a large run have
            steps = iter(stream)
            next(steps)
            cold = time.perf_counter() - began
            started = due = time.perf_counter()
            for step in steps:
                waits.append(step.waited_s)
                due += len(step.rows) / rows_per_s
                time.sleep(max(0.0, due - time.perf_counter()))
                if time.perf_counter() - started > seconds:
                    break
            took, hedged = time.perf_counter() - started, source._pages.fetcher.hedged
    return {
        "stall_share": round(sum(waits) / took, 5),
        "cold_start_s": round(cold, 2),
        "wait_ms_p50_p99": [round(1000 * float(np.quantile(waits, q)), 2) for q in (0.5, 0.99)],
        "steps": len(waits),
        "hedged": hedged,
    }


def flipped_byte(root: Path, tokens: np.ndarray) -> dict[str, Any]:
    """Wrong tokens delivered after one flipped byte, by ours and by the peers."""
    small = tokens[:2_000_000]
    plan = dataset(root / "ours", small)
    store = open_store(root / "ours")
    rows = len(small) // LENGTH // 64 * 64
    positions = [np.arange(start, start + 64) for start in range(0, rows, 64)]
    before = {row.position: row.ids for group in positions for row in RowSource(store, plan).rows(group)}
    shard = next(o for o in store.list("datasets/tokens/shards/") if o.key.endswith(".bin"))
    body = bytearray(store.get(shard.key))
    body[len(body) // 2] ^= 4
    store.put(shard.key, bytes(body))
    wrong = masked = 0
    source = RowSource(store, plan)
    for group in positions:
        for row in source.rows(group):
            differs = row.ids != before[row.position]
            wrong += int((differs & (row.ids != 3)).sum())
            masked += sum(void.tokens for void in row.voids)
    made: dict[str, Any] = {"wrong_tokens": wrong, "masked_tokens": masked}
    for name, peer in PEERS.items():
        try:
            made[f"wrong_tokens_{name}"] = wrong_tokens(peer, root / name, small)
        except ImportError as error:
            note(f"{peer.package}: {error}")
            made[f"wrong_tokens_{name}"] = None
    return made


def peers_resumed(root: Path, tokens: np.ndarray) -> dict[str, Any]:
    """How the peers that keep a state go on from it; what else the stream above was changed by they cannot express."""
    made: dict[str, Any] = {}
    for name in ("litdata", "mosaicml"):
        if importlib.util.find_spec("streaming" if name == "mosaicml" else name) is None:
            made[f"resume_{name}"] = None
            continue
        (root / name).mkdir(parents=True)
        try:
            made[f"resume_{name}"] = resumed(name, root / name, tokens[:2_000_000])
        except RuntimeError as error:  # a rank of the peer's ended; its last words are in the message
            note(str(error))
            made[f"resume_{name}"] = None
    return made


def main() -> None:
    """All parts, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--tokens", type=int, default=100_000_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each server's run")
    options = parser.parse_args()
    line: dict[str, Any] = {"benchmark": "loader"}
    with tempfile.TemporaryDirectory() as made:
        tokens, root = tokens_of(options.tokens), Path(made, "root")
        plan = dataset(root, tokens)
        ways: dict[str, Callable[[], dict[str, Any]]] = {
            "digest": lambda: stream_equal(Path(made, "changed")),
            "position": position_cost,
            "folder": lambda: folder_speed(root, options.tokens, plan),
            "server": lambda: server_speed(root, plan, options.seconds),
            "faults": lambda: ill_server(root, plan, options.seconds),
            "flipped": lambda: flipped_byte(Path(made, "flipped"), tokens),
            "peers": lambda: peers_resumed(Path(made, "resumed"), tokens),
        }
        for part in options.parts.split(","):
            line |= ways[part]()
    line["versions"] = {}
    for name in ("numpy", "numba", "obstore", *(peer.package for peer in PEERS.values())):
        try:
            line["versions"][name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            line["versions"][name] = None
    for name, value in line.items():
        note(f"{name:28} {value}")
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
