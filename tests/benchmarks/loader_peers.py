"""The peers of the loader's benchmark: the same tokens in their own formats, read in rows; and how they resume.

`python -m tests.benchmarks.loader_peers TASK` is one rank of a peer's process group, started by `resumed`: TASK is a
JSON file that says what to read and where to write the rows' hashes.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LENGTH = 4096
WORLDS = (4, 2, 8, 1, 3)  # what a state of world size 4 is loaded into
BATCH, STOP, STEPS = 24, 5, 6  # rows a step, steps before the state is taken, steps after it


class Peer(NamedTuple):
    """`write` puts tokens below a folder, `read` gives them in rows, `files` are those that hold tokens."""

    package: str
    write: Callable[[Path, np.ndarray], None]
    read: Callable[[Path], Iterator[np.ndarray]]
    files: str


def _litdata_write(place: Path, tokens: np.ndarray) -> None:
    import torch
    from litdata import TokensLoader
    from litdata.streaming.writer import BinaryWriter

    place.mkdir()
    writer = BinaryWriter(str(place), chunk_size=8_000_000, item_loader=TokensLoader(block_size=LENGTH + 1))
    for number, part in enumerate(np.array_split(tokens, max(1, len(tokens) // 1_000_000))):
        writer[number] = torch.from_numpy(part.copy())
    writer.done()
    writer.merge()


def _litdata_open(place: Path) -> Any:
    from litdata import StreamingDataset, TokensLoader

    loader = TokensLoader(block_size=LENGTH + 1)
    # What it sets by itself for more than one rank, and refuses a state by.
    return StreamingDataset(str(place), item_loader=loader, shuffle=True, seed=1, drop_last=True)


def _litdata_read(place: Path) -> Iterator[np.ndarray]:
    """TokensLoader over its own chunks, shuffled."""
    for row in _litdata_open(place):
        yield row.numpy()


def _mosaicml_write(place: Path, tokens: np.ndarray) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=str(place), columns={"tokens": "bytes"}) as writer:
        for start in range(0, len(tokens) - LENGTH, LENGTH):
            writer.write({"tokens": tokens[start : start + LENGTH].tobytes()})


def _mosaicml_open(place: Path, batch_size: int) -> Any:
    from streaming import StreamingDataset

    return StreamingDataset(local=str(place), shuffle=True, shuffle_seed=1, batch_size=batch_size)


def _mosaicml_read(place: Path) -> Iterator[np.ndarray]:
    """MDS samples of one row each, shuffled."""
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    for sample in _mosaicml_open(place, 64):
        yield np.frombuffer(sample["tokens"], np.uint16)


def _hf_write(place: Path, tokens: np.ndarray) -> None:
    from datasets import Dataset

    rows = tokens[: len(tokens) // LENGTH * LENGTH].reshape(-1, LENGTH)
    Dataset.from_dict({"tokens": list(rows)}).save_to_disk(str(place))


def _hf_read(place: Path) -> Iterator[np.ndarray]:
    """A dataset saved to disk, rows as numpy."""
    from datasets import load_from_disk

    for row in load_from_disk(str(place)).with_format("numpy"):
        yield row["tokens"]


def _megatron_write(place: Path, tokens: np.ndarray) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    place.mkdir()
    builder = IndexedDatasetBuilder(str(place / "tokens.bin"), dtype=np.uint16)
    for start in range(0, len(tokens) - LENGTH, LENGTH):
        builder.add_document(tokens[start : start + LENGTH], [LENGTH])
    builder.finalize(str(place / "tokens.idx"))


def _megatron_read(place: Path) -> Iterator[np.ndarray]:
    """IndexedDataset, a document at a time."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    dataset = IndexedDataset(str(place / "tokens"))
    for number in range(len(dataset)):
        yield dataset[number]


PEERS = {
    "litdata": Peer("litdata", _litdata_write, _litdata_read, "*.bin"),
    "mosaicml": Peer("mosaicml-streaming", _mosaicml_write, _mosaicml_read, "*.mds"),
    "hf_datasets": Peer("datasets", _hf_write, _hf_read, "*.arrow"),
    "megatron": Peer("megatron-core", _megatron_write, _megatron_read, "*.bin"),
}


def wrong_tokens(peer: Peer, place: Path, tokens: np.ndarray) -> int:
    """Tokens that a peer delivers otherwise, without an error, after one byte in its largest file is flipped."""
    peer.write(place, tokens)
    before = [row.copy() for row in peer.read(place)]
    victim = max(place.rglob(peer.files), key=lambda path: path.stat().st_size)
    body = bytearray(victim.read_bytes())
    body[len(body) // 2] ^= 4
    victim.write_bytes(body)
    return sum(int((old != new).sum()) for old, new in zip(before, peer.read(place), strict=True))


def resumed(name: str, root: Path, tokens: np.ndarray) -> dict[str, Any]:
    """A peer's state of world size 4 in other world sizes, and one of size 2 with twice the rows a step.

    Of STEPS steps, how many have the same rows in the same order over the ranks, and how many the same set; with twice
    the rows: how many were shown before, how many of the next ones were left out.
    """
    place = root / "data"
    PEERS[name].write(place, tokens)
    whole = _group(name, root, place, world=4, steps=STOP + STEPS, batch=BATCH)
    _group(name, root, place, world=4, steps=STOP, batch=BATCH, save=True)
    after = whole[STOP:]
    told: dict[str, Any] = {}
    for world in WORLDS:
        found = _group(name, root, place, world=world, steps=STEPS, batch=BATCH, state=True)
        pairs = list(zip(found, after, strict=False))
        told[f"4_to_{world}"] = {
            "same_order": sum(a == b for a, b in pairs),
            "same_set": sum(sorted(a) == sorted(b) for a, b in pairs),
            "of": STEPS,
        }
    _group(name, root, place, world=2, steps=STOP, batch=BATCH, save=True)
    twice = _group(name, root, place, world=2, steps=STEPS // 2, batch=2 * BATCH, state=True)
    steps = _group(name, root, place, world=2, steps=STOP + STEPS, batch=BATCH)
    seen, expected = ({row for step in part for row in step} for part in (steps[:STOP], steps[STOP:]))
    rows = [row for step in twice for row in step]
    told["rows_doubled"] = {"shown_again": sum(row in seen for row in rows), "left_out": len(expected - set(rows))}
    return told


def _group(
    name: str, root: Path, place: Path, *, world: int, steps: int, batch: int, **options: bool
) -> list[list[str]]:
    """For each step the rows' hashes in the order of the ranks."""
    for old in (*root.glob("group*"), *root.glob("rank-*")):
        old.unlink()
    ranks = []
    for rank in range(world):
        task = {"peer": name, "place": str(place), "root": str(root), "rank": rank, "world": world, **options}
        path = root / f"task-{rank}.json"
        path.write_text(json.dumps({**task, "steps": steps, "batch": batch, "out": str(root / f"rank-{rank}.json")}))
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
        environment |= {"LOCAL_WORLD_SIZE": str(world), "NODE_RANK": "0", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.benchmarks.loader_peers", str(path)]
        ranks.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
    for process in ranks:
        _, told = process.communicate(timeout=300)
        if process.returncode:
            raise RuntimeError(f"{name}, world size {world}: {told.decode()[-800:]}")
    hashes = [json.loads((root / f"rank-{rank}.json").read_text()) for rank in range(world)]
    return [[row for part in step for row in part] for step in zip(*hashes, strict=True)]


def _rank(task: dict[str, Any]) -> None:
    import torch

    place, size = Path(task["place"]), task["batch"] // task["world"]
    group = f"file://{task['root']}/group"
    torch.distributed.init_process_group("gloo", init_method=group, rank=task["rank"], world_size=task["world"])
    if task["peer"] == "litdata":
        from litdata import StreamingDataLoader

        loader = StreamingDataLoader(_litdata_open(place), batch_size=size, num_workers=0)
    else:
        from streaming import StreamingDataLoader
        from streaming.base.util import clean_stale_shared_memory

        if task["rank"] == 0:
            clean_stale_shared_memory()
        torch.distributed.barrier()
        loader = StreamingDataLoader(
            _mosaicml_open(place, size), batch_size=size, num_workers=0, collate_fn=lambda rows: {"tokens": rows}
        )
    state = Path(task["root"], "state.json")
    if task.get("state"):
        loader.load_state_dict(json.loads(state.read_text()))
    steps = []
    for batch in islice(loader, task["steps"]):
        rows = batch["tokens"] if isinstance(batch, dict) else batch
        bodies = [row["tokens"] if isinstance(row, dict) else np.asarray(row).tobytes() for row in rows]
        steps.append([hashlib.md5(body).hexdigest() for body in bodies])
    if task.get("save") and task["rank"] == 0:
        state.write_text(json.dumps(loader.state_dict()))
    Path(task["out"]).write_text(json.dumps(steps))
    while len(list(Path(task["root"]).glob("rank-*"))) < task["world"]:  # who leaves early breaks the others' group
        time.sleep(0.05)
    os._exit(0)  # what the peers leave running is not waited for


if __name__ == "__main__":
    _rank(json.loads(Path(sys.argv[1]).read_text()))
