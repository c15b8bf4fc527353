"""Starts the ranks of a process group for tests: forked from one server that has imported torch and DeepSpeed
once."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMEOUT_S = 240
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch", "torch.distributed", "deepspeed", "training.engine"])


def run_ranks(task: Callable[..., Any], world_size: int, *arguments: Any) -> list[Any]:
    """Run task(*arguments) on `world_size` ranks with a gloo group; their results by rank."""
    os.environ.update(OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu")
    with tempfile.TemporaryDirectory() as folder:
        results = _context.SimpleQueue()
        ranks = [
            _context.Process(
                target=_rank, args=(results, task, rank, world_size, f"{folder}/group", arguments)
            )
            for rank in range(world_size)
        ]
        for process in ranks:
            process.start()
        try:
            got: dict[int, Any] = {}
            deadline = time.monotonic() + TIMEOUT_S
            while len(got) < world_size:
                alive = any(process.is_alive() for process in ranks)
                while not results.empty():
                    rank, value, failure = results.get()
                    if failure:
                        raise AssertionError(f"rank {rank} of {world_size} failed:\n{failure}")
                    got[rank] = value
                assert len(got) == world_size or alive, (
                    f"only ranks {sorted(got)} of {world_size} gave a result"
                )
                assert time.monotonic() < deadline, f"only ranks {sorted(got)} gave a result in {TIMEOUT_S} s"
                time.sleep(0.02)
            return [got[rank] for rank in range(world_size)]
        finally:
            for process in ranks:
                process.join(2)
                if process.is_alive():
                    process.kill()


def _rank(results, task, rank: int, world_size: int, group: str, arguments: tuple[Any, ...]) -> None:
    import torch

    from training.process_group import join_process_group

    torch.set_num_threads(1)
    try:
        join_process_group(
            rank=rank, world_size=world_size, init_method=f"file://{Path(group)}", timeout_s=60
        )
        results.put((rank, task(*arguments), None))
    except BaseException:  # noqa: BLE001  (reported by the test)
        results.put((rank, None, traceback.format_exc()))
