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
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.errors import ConfigError
from training.data.rows import RowArrays, SpecialTokens, empty_row
from training.layout import (
    EngineConfig,
    Place,
    bucket_elements,
    cut_dimension,
    data_size,
    place_of,
    stage_bounds,
    tensor_box,
)
from training.masters import Fragment, Masters
from training.model.decoder import Batch, Decoder, ModelConfig, parameter_shapes
from training.model.parallel import TensorGroup
from training.pipeline import Pipeline
from training.preflight import require_fit


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


class Engine:
    """One rank's part of the model, optimizer and process group.

    `rank` and `world_size` are of the whole group; `data_rank` and `data_size` say which rows are this rank's. Ranks
    that share rows (tensor parallelism, pipeline stages) are given the same ones, and one of them `speaks`.
    """

    def __init__(
        self, model: ModelConfig, weights: Callable[[str], Tensor], config: EngineConfig, special: SpecialTokens
    ) -> None:
        """Build this rank's shard; the process group must exist.

        `weights` gives a whole parameter of the model by name, float32 on the host: one at a time is held.
        """
        deepspeed = _deepspeed()
        self.config = config
        self._special = special
        self.zero_stage, self.precision = config.zero_stage, config.precision
        self.world_size, self.rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        require_fit(model, config, self.world_size)
        self.data_size = data_size(self.world_size, config)
        self.place = place_of(self.rank, data_size=self.data_size, tensor_size=config.tensor_parallel)
        self.data_rank = self.place.data
        self.speaks = self.place.tensor == 0 and self.place.pipe == config.pipeline_stages - 1
        self.shapes = parameter_shapes(model)
        self.decayed = {name for name, shape in self.shapes.items() if len(shape) >= 2}
        self.versions = library_versions()
        self.device = torch.device(deepspeed.accelerator.get_accelerator().device_name(int(os.environ["LOCAL_RANK"])))
        with torch.device("meta"):
            decoder = Decoder(model, _tensor_group(self.place, config.tensor_parallel, self.world_size))
        decoder.checkpoint_activations = config.checkpoint_activations
        topology, grid = _topology(config, self.data_size), None
        if topology is not None and config.pipeline_stages == 1:  # else the pipeline's module makes one
            grid = _quietly(deepspeed.runtime.pipe.topology.PipelineParallelGrid, topology=topology)
        self._settings = _settings(config, model.parameters, self.data_size, on_gpu=self.device.type == "cuda")
        bounds = _stage_bounds(decoder, config.pipeline_stages)
        self._parts = range(bounds[self.place.pipe], bounds[self.place.pipe + 1])
        self._parameters = self._materialise(decoder, weights, grid)
        if config.compile_model:
            decoder.compile_layers(self._parts)
        groups = _groups(self._parameters, self.decayed, config)
        self._optimizer = _CheckedAdamW(groups, config, check=config.zero_stage == 0)
        # Stages exchange activations of one shape, and a compiled layer is made for one.
        self._has_one_shape = config.pipeline_stages > 1 or config.compile_model
        self._pipeline: Pipeline | None = None
        module: torch.nn.Module = decoder
        if config.pipeline_stages > 1:
            self._pipeline = Pipeline(decoder, self._parts)
            module = _quietly(_pipeline_module, self._pipeline, bounds, topology)
        deepspeed.utils.groups.mpu = None  # an engine before this one in the process left its own there
        # DeepSpeed hangs its state on parameters and optimizers as it goes: no checker knows these types.
        self._engine: Any = _quietly(
            deepspeed.initialize,
            model=module,
            optimizer=self._optimizer,
            mpu=grid,
            config=self._settings,
            dist_init_required=False,
        )[0]
        self._update = _UpdateTimer(self._engine, self.device)
        self._masters = Masters(self._parameters, self.shapes, self._engine, config, self.place, self.data_size)

    def train_step(
        self, rows: Sequence[RowArrays], *, micro_steps: int, trained_tokens: int, learning_rate: float
    ) -> StepOutcome:
        """Forward and backward over this data rank's rows, then one update.

        `trained_tokens` is N of the global batch; `micro_steps` is equal on all ranks and covers all rows.
        """
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.train()
        batches = list(self._micro_batches(rows, micro_steps))
        if self._pipeline:
            losses = self._train_pipeline(self._pipeline, batches, self.data_size * micro_steps / trained_tokens)
        else:
            losses = []
            for batch in batches:
                by_row = self._engine(*batch)
                self._engine.backward(by_row.sum() * (self.data_size / trained_tokens))
                losses.append(by_row.detach())
            self._engine.step()
        row_losses = np.zeros(len(rows))
        if self.speaks:
            row_losses = torch.cat(losses)[: len(rows)].double().cpu().numpy()
        if self.config.zero_stage == 0:
            grad_norm, applied = self._optimizer.grad_norm, self._optimizer.applied
        else:
            grad_norm = float(self._engine.get_global_grad_norm())
            applied = bool(self._engine.was_step_applied())  # DeepSpeed drops a non-finite update without a word
        return StepOutcome(
            row_losses=row_losses, grad_norm=grad_norm, applied=applied, optimizer_seconds=self._update.seconds()
        )

    @torch.no_grad()
    def evaluate(self, rows: Sequence[RowArrays]) -> np.ndarray:
        """Sum of token losses of each row, float64; every rank passes the same rows (ZeRO-3 gathers on the way)."""
        self._engine.eval()
        batches = list(self._micro_batches(rows, -(-len(rows) // self.config.micro_batch_rows)))
        if not batches:
            return np.zeros(0)
        if self._pipeline is None:
            losses = torch.cat([self._engine(*batch) for batch in batches]).double()
            return losses[: len(rows)].cpu().numpy()
        if self._pipeline.begin(batches, 1.0):
            self._engine.reset_activation_shape()
        self._engine.eval_batch(
            self._pipeline.batches(), reduce_output=None, bcast_loss=False, num_micro_batches=len(batches)
        )
        last = self.config.pipeline_stages - 1
        losses = torch.zeros(sum(len(batch[0]) for batch in batches), dtype=torch.float64, device=self.device)
        if self.place.pipe == last:
            losses = torch.cat(self._pipeline.losses).double()
        grid = self._engine.grid
        torch.distributed.broadcast(losses, grid.stage_to_global(last), group=grid.get_pipe_parallel_group())
        return losses[: len(rows)].cpu().numpy()

    def fragments(self, *, owned: bool) -> Iterator[Fragment]:
        """What this rank holds of every parameter, in the model's order.

        Over all ranks the `owned` fragments tile every parameter exactly; the held ones are what a load must fill.
        """
        return self._masters.fragments(owned=owned)

    @property
    def adam_steps(self) -> int:
        """Updates that Adam has applied; its bias correction depends on it."""
        return self._masters.adam_steps

    def after_load(self, *, adam_steps: int) -> None:
        """Make the filled masters count: Adam's step, and the weights that the forward pass reads."""
        self._masters.after_load(adam_steps=adam_steps)

    @torch.no_grad()
    def _materialise(self, decoder: Decoder, weights: Callable[[str], Tensor], mpu: Any) -> dict[str, Any]:
        """Give this rank's parts their weights, a parameter at a time; with ZeRO-3 partition each part at once."""
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        held: dict[str, Any] = {}
        for i in self._parts:
            part = decoder.get_submodule(decoder.part_names[i])
            for leaf, _ in list(part.named_parameters()):
                name = f"{decoder.part_names[i]}.{leaf}"
                if name in held:
                    continue
                box = tensor_box(name, self.shapes[name], rank=self.place.tensor, size=self.config.tensor_parallel)
                own = weights(name)[tuple(slice(s, s + n) for s, n in zip(box.start, box.size, strict=True))]
                owner, _, leaf_name = leaf.rpartition(".")
                held[name] = torch.nn.Parameter(torch.empty(box.size, dtype=dtype, device=self.device).copy_(own))
                # The gradient's norm counts a parameter that is whole on all tensor ranks once.
                held[name].tensor_model_parallel = cut_dimension(name) is not None  # type: ignore[attr-defined]
                setattr(part.get_submodule(owner), leaf_name, held[name])
            if self.config.zero_stage == 3:
                group = mpu.get_data_parallel_group() if mpu else None
                _quietly(
                    _deepspeed().zero.Init,
                    module=part,
                    data_parallel_group=group,
                    config_dict_or_path=self._settings,
                    dtype=dtype,
                    mpu=mpu,
                )
        return {name: held[name] for name in self.shapes if name in held}

    def _train_pipeline(self, pipeline: Pipeline, batches: list[Batch], scale: float) -> list[Tensor]:
        if pipeline.begin(batches, scale):
            self._engine.reset_activation_shape()
        rows = self.config.micro_batch_rows * self.data_size * len(batches)
        if rows != self._engine.train_batch_size():
            self._engine.set_train_batch_size(rows)
        self._engine.train_batch(pipeline.batches())
        return pipeline.losses

    def _micro_batches(self, rows: Sequence[RowArrays], micro_steps: int) -> Iterator[Batch]:
        size = self.config.micro_batch_rows
        if len(rows) > micro_steps * size:
            raise ConfigError(f"{len(rows)} rows do not fit {micro_steps} micro-steps of {size}")
        length = len(rows[0].ids) if rows else 2
        for i in range(micro_steps):
            chosen = list(rows[i * size : (i + 1) * size])
            least = size if self._has_one_shape else 1
            chosen += [empty_row(length, self._special)] * (least - len(chosen))
            yield Batch(
                *(
                    torch.from_numpy(np.stack([getattr(row, field) for row in chosen])).long().to(self.device)
                    for field in Batch._fields
                )
            )

def library_versions() -> dict[str, str]:
    """What a checkpoint records of the engine."""
    import deepspeed

    return {"torch": torch.__version__, "deepspeed": deepspeed.__version__}


class _UpdateTimer:
    """How long an engine's updates take, a pipeline's too, after gradients are reduced; a GPU is not waited for."""

    def __init__(self, engine: Any, device: torch.device) -> None:
        """Stands before the method of DeepSpeed's that both kinds of engine update by."""
        self._take, self._is_gpu = engine._take_model_step, device.type == "cuda"
        self._marks: tuple[Any, Any] | None = None
        engine._take_model_step = self._timed

    def seconds(self) -> float:
        """Of the newest update."""
        if self._marks is None:
            return 0.0
        first, last = self._marks
        if not self._is_gpu:
            return last - first
        last.synchronize()
        return first.elapsed_time(last) / 1000

    def _timed(self, *arguments: Any, **more: Any) -> None:
        begun = self._mark()
        self._take(*arguments, **more)
        self._marks = begun, self._mark()

    def _mark(self) -> Any:
        if not self._is_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _deepspeed() -> Any:
    if torch.distributed.get_backend() == "gloo":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read by DeepSpeed at import; else it takes a GPU it sees
    import deepspeed
    import deepspeed.runtime.pipe.topology
    from deepspeed.utils.logging import logger

    logger.setLevel("ERROR")
    # The op would be compiled by C++ at start; it only shortens all-reduces inside one machine.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(torch.distributed.get_backend(), auto_mpi_discovery=False, dist_init_required=False)
    return deepspeed


def _quietly(make: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
    """DeepSpeed prints its topology and stages."""
    with redirect_stdout(StringIO()):
        return make(*arguments, **settings)


def _groups(parameters: dict[str, Any], decayed: set[str], config: EngineConfig) -> list[dict[str, Any]]:
    """Matrices decay, norms do not; a pipeline stage may have one kind only."""
    matrices = [p for name, p in parameters.items() if name in decayed]
    norms = [p for name, p in parameters.items() if name not in decayed]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": norms, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _tensor_group(place: Place, size: int, world_size: int) -> TensorGroup | None:
    """Collective: every rank makes every group."""
    if size == 1:
        return None
    rank, mine = torch.distributed.get_rank(), None
    for first in range(0, world_size, size):
        group = torch.distributed.new_group(list(range(first, first + size)))
        if first <= rank < first + size:
            mine = group
    return TensorGroup(place.tensor, size, mine)


def _topology(config: EngineConfig, data_size: int) -> Any:
    """DeepSpeed's account of the layout, or None with data parallelism alone."""
    if config.tensor_parallel == config.pipeline_stages == 1:
        return None
    return _deepspeed().runtime.pipe.topology.PipeModelDataParallelTopology(
        num_pp=config.pipeline_stages, num_mp=config.tensor_parallel, num_dp=data_size
    )


def _stage_bounds(decoder: Decoder, stages: int) -> list[int]:
    """Where the chain of parts is cut; a tied embedding weighs at both ends."""
    parts = [decoder.get_submodule(name) for name in decoder.part_names]
    return stage_bounds([sum(p.numel() for p in part.parameters()) for part in parts], stages)


def _pipeline_module(pipeline: Pipeline, bounds: list[int], topology: Any) -> Any:
    """DeepSpeed's module of this rank's stage, around parts that are made already."""
    from deepspeed.pipe import PipelineModule, TiedLayerSpec

    decoder = pipeline.decoder
    parts: list[Any] = [decoder.get_submodule(name) for name in decoder.part_names]

    class Tied(TiedLayerSpec):
        def build(self, **_: Any) -> Any:
            return decoder.embedding

    class Stage(PipelineModule):
        def _partition_layers(self, method: str = "") -> None:
            self.parts = bounds
            self._set_bounds(bounds[self.stage_id], bounds[self.stage_id + 1])

        def forward(self, x: Tensor) -> Tensor:
            return pipeline.forward(x)

    if decoder.config.tied_embeddings:
        parts[0], parts[-1] = Tied("embedding", type(decoder.embedding)), Tied("embedding", type(decoder.embedding))
    return Stage(parts, topology=topology, loss_fn=pipeline.loss)


def _settings(config: EngineConfig, parameters: int, data_size: int, *, on_gpu: bool) -> dict[str, Any]:
    """DeepSpeed's configuration."""
    bucket = bucket_elements(parameters // (config.tensor_parallel * config.pipeline_stages), data_size)
    zero: dict[str, Any] = {
        "stage": config.zero_stage,
        "overlap_comm": on_gpu and config.zero_stage == 2,  # elsewhere gradients are reduced in step() alone
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        "stage3_param_persistence_threshold": config.persist_below_parameters,
        # Stage 3 updates group by group; at its start it takes fp32 gradients of the largest.
        "sub_group_size": min(max(parameters // 8, 10_000_000), 1_000_000_000),
    }
    if config.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": on_gpu}
    if config.offload == "all":
        zero["offload_param"] = {"device": "cpu", "pin_memory": on_gpu}
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": config.micro_batch_rows,
        "gradient_accumulation_steps": 1,
        "train_batch_size": config.micro_batch_rows * data_size,
        "managed_gradient_accumulation": config.pipeline_stages > 1,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # it is compiled where it first runs; torch's AdamW is not
        "zero_optimization": zero,
        "steps_per_print": 10**9,
    }
    # At stage 0 _CheckedAdamW clips; left out, DeepSpeed would clip at 1.0.
    settings["gradient_clipping"] = config.gradient_clip if config.zero_stage else 0.0
    if config.precision == "bf16":
        settings["bf16"] = {"enabled": True}
        settings["communication_data_type"] = "fp32"
    return settings


class _CheckedAdamW(torch.optim.AdamW):
    """AdamW; at stage 0, where DeepSpeed reports no norm and drops no non-finite update, it does both."""

    def __init__(self, groups: list[dict[str, Any]], config: EngineConfig, *, check: bool) -> None:
        """`check` is for stage 0: with ZeRO the gradients here are this rank's part only."""
        fused = groups[0]["params"][0].is_cuda and config.offload == "none"  # one kernel for all of a group's elements
        super().__init__(groups, lr=0.0, betas=(config.beta1, config.beta2), eps=config.eps, fused=fused)
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
