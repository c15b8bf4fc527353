"""The only file that imports DeepSpeed: a model behind ZeRO 0-3 with a loss that does not depend on the world
size.

The loss of a step is the sum of token losses over N, the labels of the *global* batch. DeepSpeed averages
gradients over the D ranks, so backward is given nll_sum * (D / N): uneven splits, masked rows and empty
micro-batches then leave the gradient as one process has it. (Without the factor the loss hardly moves, Adam
hides it; the gradient's norm is what the tests compare.) Gradients are reduced in `step` only
(`managed_gradient_accumulation` off), and every rank runs the same number of micro-steps, or ZeRO-2 and 3
would not meet in their collectives.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from pipelines.errors import ConfigError, SetupError
from training.data.rows import RowArrays, SpecialTokens, empty_row
from training.layout import Shape
from training.model.decoder import Decoder

STATES = ("master", "exp_avg", "exp_avg_sq")
# Of EngineConfig: what may differ from attempt to attempt without changing what is learnt.
LAYOUT_FIELDS = (
    "zero_stage",
    "micro_batch_rows",
    "persist_below_parameters",
    "tensor_parallel",
    "pipeline_stages",
    "offload",
    "checkpoint_activations",
    "compile_model",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How a model is sharded (LAYOUT_FIELDS) and updated (the others, which decide what is learnt)."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    zero_stage: Literal[0, 1, 2, 3] = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    micro_batch_rows: int = 8
    gradient_clip: float = 1.0  # LLaMA, Skywork
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    persist_below_parameters: int = 100_000  # ZeRO-3 keeps smaller parameters whole (DeepSpeed's default)
    tensor_parallel: int = 1
    pipeline_stages: int = 1
    offload: Literal["none", "optimizer", "all"] = "none"  # masters and moments, or weights too, in host memory
    checkpoint_activations: bool = False  # keep a layer's input, compute its inside again in the backward pass
    compile_model: bool = False

    def __post_init__(self) -> None:
        """Refuse what DeepSpeed has no masters for."""
        if self.precision == "bf16" and self.zero_stage == 0:
            raise ConfigError("bf16 needs zero_stage 1, 2 or 3: stage 0 keeps no fp32 master weights")
        if self.micro_batch_rows < 1 or self.gradient_clip <= 0:
            raise ConfigError(
                f"micro_batch_rows is {self.micro_batch_rows}, gradient_clip {self.gradient_clip}; expected "
                "at least 1 row and a clip above 0"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutcome:
    """`grad_norm` (before clipping) and `applied` are the same on every rank.

    `row_losses` has the sum of token losses of each of this rank's rows, float64; zeros where the rank does not speak.
    """

    row_losses: np.ndarray
    grad_norm: float
    applied: bool
    optimizer_seconds: float = 0.0

    @property
    def nll_sum(self) -> float:
        """Of this rank's rows."""
        return float(self.row_losses.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Fragment:
    """A run of a box of a parameter on this rank: views of the master and both moments, by STATES.

    The box is what this rank's place in the layout holds, `start` and `size` in the global shape; `offset` is in it.
    """

    parameter: str
    start: Shape
    size: Shape
    offset: int
    tensors: dict[str, Tensor]

    @property
    def length(self) -> int:
        """Elements."""
        return self.tensors["master"].numel()


class Engine:
    """One rank's model, optimizer and place in the process group."""

    def __init__(self, model: Decoder, config: EngineConfig, special: SpecialTokens) -> None:
        """Wrap an initialised model; the process group must exist (`join_process_group` makes one)."""
        self.config = config
        self._special = special
        self.zero_stage, self.precision = config.zero_stage, config.precision
        self.world_size = torch.distributed.get_world_size()
        self.rank = torch.distributed.get_rank()
        self.data_rank, self.data_size, self.speaks = self.rank, self.world_size, True
        self.shapes: dict[str, Shape] = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        self.decayed = {name for name, parameter in model.named_parameters() if parameter.ndim >= 2}
        self._optimizer = _CheckedAdamW(_groups(model, config), config, check=config.zero_stage == 0)
        # DeepSpeed hangs its state on parameters and optimizers as it goes: no checker knows these types.
        self._engine: Any = _deepspeed_engine(model, self._optimizer, config, self.world_size)
        self.versions = library_versions()
        self._parameters: dict[str, Any] = dict(self._engine.module.named_parameters())
        self.device = torch.device(self._engine.device)
        self._create_moments()

    def train_step(
        self, rows: Sequence[RowArrays], *, micro_steps: int, trained_tokens: int, learning_rate: float
    ) -> StepOutcome:
        """Forward and backward over this rank's rows, then one update.

        `trained_tokens` is N of the global batch; `micro_steps` is equal on all ranks and covers all rows.
        """
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.train()
        losses = []
        for batch in self._micro_batches(rows, micro_steps):
            by_row = self._engine(*batch)
            self._engine.backward(by_row.sum() * (self.data_size / trained_tokens))
            losses.append(by_row.detach())
        begun = self._mark()
        self._engine.step()
        ended = self._mark()
        row_losses = torch.cat(losses)[: len(rows)].double().cpu().numpy()
        if self.config.zero_stage == 0:
            grad_norm, applied = self._optimizer.grad_norm, self._optimizer.applied
        else:
            grad_norm = float(self._engine.get_global_grad_norm())
            applied = bool(self._engine.was_step_applied())  # DeepSpeed drops a non-finite update without a word
        return StepOutcome(
            row_losses=row_losses, grad_norm=grad_norm, applied=applied, optimizer_seconds=_seconds(begun, ended)
        )

    @torch.no_grad()
    def evaluate(self, rows: Sequence[RowArrays]) -> float:
        """Sum of token losses of rows that every rank passes alike (ZeRO-3 gathers weights on the way)."""
        self._engine.eval()
        micro_steps = -(-len(rows) // self.config.micro_batch_rows)
        return sum(float(self._engine(*batch).sum()) for batch in self._micro_batches(rows, micro_steps))

    def fragments(self, *, owned: bool) -> Iterator[Fragment]:
        """What this rank holds of every parameter, in the model's order.

        Over all ranks the `owned` fragments tile every parameter exactly; the held ones are what a load must
        fill (at stage 0 every rank holds everything and owns its share).
        """
        for name, parameter in self._parameters.items():
            if self.config.zero_stage == 3:
                fragment = self._partition_of(name, parameter)
            elif self.config.zero_stage == 0:
                fragment = self._whole(name, parameter, owned=owned)
            else:
                fragment = self._mapped(name, parameter)
            if fragment is not None and fragment.length:
                yield fragment

    @property
    def adam_steps(self) -> int:
        """Updates that Adam has applied; its bias correction depends on it."""
        steps = {int(state["step"]) for state in self._adam.state.values()}
        if len(steps) != 1:
            raise SetupError(f"parameter groups have applied different numbers of updates: {sorted(steps)}")
        return steps.pop()

    def after_load(self, *, adam_steps: int) -> None:
        """Make the filled masters count: Adam's step by hand, and the weights that the forward pass reads."""
        for state in self._adam.state.values():
            state["step"].fill_(adam_steps)
        if self.config.zero_stage == 3:
            self._refresh_partitions()
        elif self.config.zero_stage > 0:
            self._refresh_whole_weights()

    @property
    def _adam(self) -> torch.optim.Optimizer:
        return self._engine.optimizer if self.config.zero_stage == 0 else self._engine.optimizer.optimizer

    def _mark(self) -> float | torch.cuda.Event:
        """This moment of the device's work; a GPU is not waited for."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _micro_batches(self, rows: Sequence[RowArrays], micro_steps: int) -> Iterator[tuple[Tensor, ...]]:
        size = self.config.micro_batch_rows
        if len(rows) > micro_steps * size:
            raise ConfigError(f"{len(rows)} rows do not fit {micro_steps} micro-steps of {size}")
        length = len(rows[0].ids) if rows else 2
        for i in range(micro_steps):
            chosen = list(rows[i * size : (i + 1) * size]) or [empty_row(length, self._special)]
            yield tuple(
                torch.from_numpy(np.stack([getattr(row, field) for row in chosen])).long().to(self.device)
                for field in ("ids", "positions", "documents", "labels")
            )

    def _create_moments(self) -> None:
        """Zero moments, as Adam makes them at its first step: a load needs them before.

        DeepSpeed links them to parameters once, after the first *group* has stepped; those of later groups
        would stay unlinked.
        """
        adam = self._adam
        if self.config.zero_stage == 0:
            masters = list(self._parameters.values())
        elif self.config.zero_stage == 3:
            masters = self._engine.optimizer.fp32_partitioned_groups_flat
        else:
            masters = self._engine.optimizer.single_partition_of_fp32_groups
        for master in masters:
            if not adam.state[master]:
                adam.state[master].update(
                    step=torch.tensor(0.0),
                    exp_avg=torch.zeros_like(master),
                    exp_avg_sq=torch.zeros_like(master),
                )
        if self.config.zero_stage in (1, 2):
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _whole(self, name: str, parameter: Any, *, owned: bool) -> Fragment:
        first = parameter.numel() * self.rank // self.world_size if owned else 0
        last = parameter.numel() * (self.rank + 1) // self.world_size if owned else parameter.numel()
        state = self._adam.state[parameter]
        whole = {"master": parameter.data, "exp_avg": state["exp_avg"], "exp_avg_sq": state["exp_avg_sq"]}
        return self._fragment(name, first, {key: tensor.view(-1)[first:last] for key, tensor in whole.items()})

    def _partition_of(self, name: str, parameter: Any) -> Fragment:
        """ZeRO-3: ceil(numel / W) elements at rank times that; the last rank's padding is uninitialised."""
        shard = self._engine.optimizer
        master = shard.get_local_fp32_param(parameter)
        first = min(self.rank * master.numel(), parameter.ds_numel)
        length = min(master.numel(), parameter.ds_numel - first)
        states = {key: shard.get_local_fp32_param(parameter, key) for key in STATES[1:]}
        return self._fragment(name, first, {key: t[:length] for key, t in {"master": master, **states}.items()})

    def _mapped(self, name: str, parameter: Any) -> Fragment | None:
        """ZeRO-1 and 2: the run that `_hp_mapping` links to this rank's flat partition."""
        mapping = parameter._hp_mapping
        if mapping is None:
            return None
        states = {key: mapping.get_hp_fragment(key) for key in STATES[1:]}
        return self._fragment(name, mapping.lp_fragment_address.start, {"master": mapping.hp_fragment, **states})

    def _fragment(self, name: str, offset: int, tensors: dict[str, Tensor]) -> Fragment:
        shape = self.shapes[name]
        return Fragment(name, (0,) * len(shape), shape, offset, tensors)

    @torch.no_grad()
    def _refresh_partitions(self) -> None:
        """ZeRO-3: the partition of the weights, and the whole of every parameter that is kept gathered."""
        for parameter in self._parameters.values():
            master = self._engine.optimizer.get_local_fp32_param(parameter)
            parameter.ds_tensor.data.view(-1)[: master.numel()].copy_(master)
            if parameter.ds_status.name == "AVAILABLE":
                pieces = [torch.empty_like(parameter.ds_tensor) for _ in range(self.world_size)]
                torch.distributed.all_gather(pieces, parameter.ds_tensor.data)
                whole = torch.cat([piece.view(-1) for piece in pieces])[: parameter.ds_numel]
                parameter.data.copy_(whole.view(parameter.data.shape))

    @torch.no_grad()
    def _refresh_whole_weights(self) -> None:
        """ZeRO-1 and 2: every rank has all weights; each gives the run that it masters."""
        for parameter in self._parameters.values():
            whole = torch.zeros(parameter.numel(), dtype=torch.float32, device=parameter.device)
            mapping = parameter._hp_mapping
            if mapping is not None:
                address = mapping.lp_fragment_address
                whole[address.start : address.start + address.numel].copy_(mapping.hp_fragment)
            torch.distributed.all_reduce(whole)
            parameter.data.copy_(whole.view_as(parameter))


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


def library_versions() -> dict[str, str]:
    """What a checkpoint records of the engine."""
    import deepspeed

    return {"torch": torch.__version__, "deepspeed": deepspeed.__version__}


def _seconds(first: float | torch.cuda.Event, last: float | torch.cuda.Event) -> float:
    """Between two marks."""
    if isinstance(first, float) or isinstance(last, float):
        return float(last) - float(first)
    last.synchronize()
    return first.elapsed_time(last) / 1000


def _groups(model: Decoder, config: EngineConfig) -> list[dict[str, Any]]:
    """Matrices decay, norms do not."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _deepspeed_engine(model: Decoder, optimizer: torch.optim.Optimizer, config: EngineConfig, world_size: int) -> Any:
    if torch.distributed.get_backend() == "gloo":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read by DeepSpeed at import; else it takes a GPU it sees
    import deepspeed
    from deepspeed.utils.logging import logger

    logger.setLevel("ERROR")
    # The op would be compiled by C++ at start; it only shortens all-reduces inside one machine.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": config.micro_batch_rows,
        "gradient_accumulation_steps": 1,
        "train_batch_size": config.micro_batch_rows * world_size,
        "managed_gradient_accumulation": False,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": config.zero_stage,
            "overlap_comm": False,
            "stage3_param_persistence_threshold": config.persist_below_parameters,
        },
        "steps_per_print": 10**9,
    }
    # At stage 0 _CheckedAdamW clips; left out, DeepSpeed would clip at 1.0.
    settings["gradient_clipping"] = config.gradient_clip if config.zero_stage else 0.0
    if config.precision == "bf16":
        settings["bf16"] = {"enabled": True}
        settings["communication_data_type"] = "fp32"
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings, dist_init_required=False)
    return engine


class _CheckedAdamW(torch.optim.AdamW):
    """AdamW; at stage 0, where DeepSpeed reports no norm and drops no non-finite update, it does both."""

    def __init__(self, groups: list[dict[str, Any]], config: EngineConfig, *, check: bool) -> None:
        """`check` is for stage 0: with ZeRO the gradients here are this rank's part only."""
        super().__init__(groups, lr=0.0, betas=(config.beta1, config.beta2), eps=config.eps)
        self._check, self._clip = check, config.gradient_clip
        self.grad_norm, self.applied = 0.0, True

    def step(self, closure: Any = None) -> Any:
        """One update, or none where the norm is not finite."""
        if self._check:
            gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            self.grad_norm, self.applied = float(norm), bool(torch.isfinite(norm))
            if not self.applied:
                return None
            for gradient in gradients:
                gradient.mul_(torch.clamp(self._clip / (norm + 1e-6), max=1.0))
        return super().step(closure)
