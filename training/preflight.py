"""What is known to go wrong, refused before it does: with the reason and the mend.

Model and layout are arithmetic (`require_fit`, which the engine asks too). What the machines are like is told by
`Machine`, one for each rank: `this_machine` looks here, and everything else can be tested without any.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.errors import ConfigError, SetupError
from training.layout import EngineConfig, data_size
from training.model.decoder import ModelConfig

VERSIONS_OF = ("torch", "deepspeed", "numpy")
MIN_SHM_BYTES = 1 << 30  # NCCL's channels between the processes of a node; a container has 64 MiB unless told
Trap = tuple[str, str]  # what was found and what comes of it; the mend


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The facts of the place where one rank runs."""

    node: str
    versions: dict[str, str]
    gpu: str = ""  # its name; empty: none
    gpus_here: int = 0
    has_bf16: bool = True
    shm_bytes: int = MIN_SHM_BYTES
    has_compiler: bool = True
    environment: dict[str, str] = field(default_factory=dict)


def require_fit(model: ModelConfig, layout: EngineConfig, world_size: int) -> None:
    """ConfigError where the model cannot be laid out so on so many ranks."""
    data_size(world_size, layout)
    size = layout.tensor_parallel
    uneven = {
        name: count
        for name, count in (("heads", model.heads), ("kv_heads", model.kv_heads), ("d_ff", model.d_ff))
        if count % size
    }
    if uneven:
        raise ConfigError(
            f"tensor_parallel {size} does not divide the model's {', '.join(f'{k} {v}' for k, v in uneven.items())}",
            mend="a tensor_parallel that divides them",
        )
    if layout.pipeline_stages > model.layers:
        raise ConfigError(
            f"pipeline_stages {layout.pipeline_stages} for {model.layers} layers: a stage would have none",
            mend=f"at most {model.layers} stages",
        )


def preflight(
    model: ModelConfig,
    layout: EngineConfig,
    machines: Sequence[Machine],
    *,
    rows_per_batch: int,
    use_gpu: bool,
    exports_llama: bool = False,
) -> None:
    """ConfigError or SetupError, with every trap that was found; `machines` in the order of the ranks."""
    require_fit(model, layout, len(machines))
    if found := [
        *_row_traps(layout, len(machines), rows_per_batch, use_gpu=use_gpu),
        *_model_traps(model, exports_llama=exports_llama),
        *_placement_traps(layout, machines, use_gpu=use_gpu),
    ]:
        raise ConfigError("; ".join(trap for trap, _ in found), mend="; ".join(mend for _, mend in found))
    if found := [*_difference_traps(machines, use_gpu=use_gpu), *_machine_traps(layout, machines, use_gpu=use_gpu)]:
        raise SetupError("; ".join(trap for trap, _ in found), mend="; ".join(mend for _, mend in found))


def _row_traps(layout: EngineConfig, world_size: int, rows_per_batch: int, *, use_gpu: bool) -> list[Trap]:
    data = data_size(world_size, layout)
    traps = []
    if rows_per_batch < data:
        traps.append(
            (
                f"rows_per_batch {rows_per_batch} on {data} data ranks leaves {data - rows_per_batch} without a row",
                "fewer ranks, more rows, or tensor and pipeline parallelism",
            )
        )
    micro_steps = -(-rows_per_batch // (data * layout.micro_batch_rows))
    if use_gpu and layout.pipeline_stages > 1 and micro_steps < layout.pipeline_stages:
        waits = layout.pipeline_stages - 1
        traps.append(
            (
                f"{micro_steps} micro-steps a step in {layout.pipeline_stages} pipeline stages: "
                f"{waits / (micro_steps + waits):.0%} of the time is bubble",
                "fewer micro_batch_rows, or more rows_per_batch",
            )
        )
    return traps


def _model_traps(model: ModelConfig, *, exports_llama: bool) -> list[Trap]:
    if exports_llama and model.positions == "alibi":
        return [("a model with ALiBi cannot be exported as a Llama, which has rotary positions only", "positions=rope")]
    return []


def _placement_traps(layout: EngineConfig, machines: Sequence[Machine], *, use_gpu: bool) -> list[Trap]:
    size, traps = layout.tensor_parallel, []
    for first in range(0, len(machines), size):
        nodes = {machine.node for machine in machines[first : first + size]}
        if len(nodes) > 1:
            traps.append(
                (
                    f"the tensor ranks {first}..{first + size - 1} lie on {len(nodes)} nodes: every layer would cross "
                    "the network four times",
                    "a tensor_parallel that divides the ranks of each node, and ranks in order of their nodes",
                )
            )
            break
    ranks = Counter(machine.node for machine in machines)
    short = [node for node in ranks if use_gpu and any(m.gpus_here < ranks[node] for m in machines if m.node == node)]
    if short:
        gpus = next(machine.gpus_here for machine in machines if machine.node == short[0])
        traps.append((f"{ranks[short[0]]} ranks on {short[0]}, which has {gpus} GPUs", "one rank a GPU"))
    if len(set(ranks.values())) > 1 and size * layout.pipeline_stages > 1:
        traps.append(
            (
                f"nodes have different numbers of ranks ({dict(ranks)}): stages and tensor ranks would not line up",
                "the same number of ranks on every node",
            )
        )
    return traps


def _difference_traps(machines: Sequence[Machine], *, use_gpu: bool) -> list[Trap]:
    traps = []
    for name in sorted({name for machine in machines for name in machine.versions}):
        found = Counter(machine.versions.get(name, "none") for machine in machines)
        if len(found) > 1:
            where = {
                version: next(m.node for m in machines if m.versions.get(name, "none") == version) for version in found
            }
            told = ", ".join(f"{version} (on {node})" for version, node in where.items())
            traps.append((f"ranks have different versions of {name}: {told}", f"the same {name} on every node"))
    kinds = Counter(machine.gpu for machine in machines)
    if use_gpu and len(kinds) > 1:
        traps.append(
            (
                f"ranks have different GPUs ({', '.join(kind or 'none' for kind in kinds)}): the slowest sets the pace "
                "and the smallest the memory",
                "one kind of GPU a run",
            )
        )
    return traps


def _machine_traps(layout: EngineConfig, machines: Sequence[Machine], *, use_gpu: bool) -> list[Trap]:
    traps = []
    several = len({machine.node for machine in machines}) > 1
    interface = "NCCL_SOCKET_IFNAME" if use_gpu else "GLOO_SOCKET_IFNAME"
    if several and (bare := sorted({m.node for m in machines if not m.environment.get(interface)})):
        traps.append(
            (
                f"{interface} is not set on {', '.join(bare[:3])}: on several nodes the first collective may hang on a "
                "wrong interface",
                f"{interface} set to the interface that joins the nodes",
            )
        )
    short = [m for m in machines if m.shm_bytes < MIN_SHM_BYTES]
    if use_gpu and short:
        traps.append(
            (
                f"/dev/shm on {short[0].node} has {short[0].shm_bytes >> 20} MiB: NCCL dies of it with a bus error",
                "start the container with --shm-size of 1 GiB and more, or with --ipc=host",
            )
        )
    if use_gpu and (blind := [m for m in machines if not m.gpu]):
        traps.append((f"no GPU is seen on {blind[0].node}", "drivers, CUDA_VISIBLE_DEVICES, or use_gpu=false"))
    elif layout.precision == "bf16" and (old := [m for m in machines if not m.has_bf16]):
        traps.append((f"{old[0].gpu or 'the processor'} on {old[0].node} has no bf16", "precision=fp32"))
    if layout.compile_model and (bare := sorted({m.node for m in machines if not m.has_compiler})):
        traps.append(
            (f"compile_model needs a C++ compiler, there is none on {bare[0]}", "install g++, or compile_model=false")
        )
    if any(m.environment.get("DS_BUILD_OPS", "0") not in ("", "0") for m in machines):
        traps.append(
            (
                "DS_BUILD_OPS is set: DeepSpeed compiles kernels at import, which none of ours needs, and ranks race",
                "unset DS_BUILD_OPS",
            )
        )
    return traps


def this_machine() -> Machine:
    """The facts of here.  Looks at the environment and at torch: call it in the process that will train."""
    import torch

    gpus = torch.cuda.device_count()
    shm = Path("/dev/shm")
    return Machine(
        node=socket.gethostname(),
        versions={name: importlib.metadata.version(name) for name in VERSIONS_OF if importlib.util.find_spec(name)},
        gpu=torch.cuda.get_device_name() if gpus else "",
        gpus_here=gpus,
        has_bf16=torch.cuda.is_bf16_supported() if gpus else True,
        shm_bytes=shutil.disk_usage(shm).total if shm.exists() else 0,
        has_compiler=shutil.which(os.environ.get("CXX", "g++")) is not None,
        environment={
            name: os.environ.get(name, "") for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "DS_BUILD_OPS")
        },
    )
