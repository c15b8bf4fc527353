"""The process group of a run: made where no launcher has, and numbered by where its ranks are."""

from __future__ import annotations

import os
import socket
from datetime import timedelta

import torch

from training.layout import order_ranks


def join_process_group(*, rank: int, world_size: int, init_method: str, timeout_s: float = 300.0) -> None:
    """Make the process group where no launcher has: gloo, or NCCL where there are GPUs."""
    os.environ.setdefault("LOCAL_RANK", str(rank))  # asked for by DeepSpeed; launchers set it
    torch.distributed.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        init_method=init_method,
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=timeout_s),
    )


def reorder_ranks(place: tuple[str, str, int], *, timeout_s: float = 300.0) -> int:
    """Number the ranks of the process group by `order_ranks`; this one's number.  Collective.

    `place` is this rank's (node, rack, GPU). Where the numbers stay, so does the group; else it is made anew.
    """
    group = torch.distributed
    places: list[tuple[str, str, int]] = [place] * group.get_world_size()
    group.all_gather_object(places, place)
    order, rank = order_ranks(places), group.get_rank()
    if order == list(range(len(order))):
        return rank
    meeting: list[str | None] = [None]
    if rank == order[0]:
        with socket.socket() as free:  # the new rank 0 keeps the group's store
            free.bind(("", 0))
            meeting = [f"tcp://{_address()}:{free.getsockname()[1]}"]
    group.broadcast_object_list(meeting, src=order[0])
    group.destroy_process_group()
    rank = order.index(rank)
    join_process_group(rank=rank, world_size=len(order), init_method=str(meeting[0]), timeout_s=timeout_s)
    os.environ["RANK"] = str(rank)
    return rank


def _address() -> str:
    """Where other ranks reach this machine: the way to the group's first store, if a launcher told one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((os.environ.get("MASTER_ADDR", "127.0.0.1"), 9))  # sends nothing
            return probe.getsockname()[0]
        except OSError:
            return socket.gethostbyname(socket.gethostname())
