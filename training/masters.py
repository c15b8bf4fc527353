"""The fp32 masters and Adam's moments that a rank keeps, as fragments of the model's parameters.

DeepSpeed keeps them in its own ways: whole at stage 0; at 1 and 2 as runs of flat partitions that `_hp_mapping` links
to parameters; at 3 as pieces of ceil(numel / ranks). What is the same for all is what a checkpoint needs: a fragment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipelines.errors import SetupError
from training.layout import EngineConfig, Place, Shape, cut_dimension, tensor_box

STATES = ("master", "exp_avg", "exp_avg_sq")


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


class Masters:
    """Those of one rank; made once DeepSpeed's engine is."""

    def __init__(
        self,
        parameters: dict[str, Any],
        shapes: dict[str, Shape],
        engine: Any,
        config: EngineConfig,
        place: Place,
        data_size: int,
    ) -> None:
        """`parameters` are what the rank holds, by global name; `shapes` the whole model's."""
        self._parameters, self._shapes, self._zero = parameters, shapes, engine.optimizer
        self._stage, self._tensor_size = config.zero_stage, config.tensor_parallel
        self._place, self._data_size = place, data_size
        self._data_group = engine.mpu.get_data_parallel_group() if engine.mpu else None
        self._create_moments()

    def fragments(self, *, owned: bool) -> Iterator[Fragment]:
        """What this rank holds of every parameter, in the model's order.

        Over all ranks the `owned` fragments tile every parameter exactly; the held ones are what a load must
        fill (at stage 0 every rank holds everything and owns its share).
        """
        for name, parameter in self._parameters.items():
            if owned and not self._owns(name):
                continue
            if self._stage == 3:
                fragment = self._partition_of(name, parameter)
            elif self._stage == 0:
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
        if self._stage == 3:
            self._refresh_partitions()
        elif self._stage > 0:
            self._refresh_whole_weights()

    @property
    def _adam(self) -> torch.optim.Optimizer:
        return self._zero if self._stage == 0 else self._zero.optimizer

    def _owns(self, name: str) -> bool:
        """Whether this place writes what it holds of a parameter: one of those that hold the same does."""
        is_first_copy = self._place.tensor == 0 or cut_dimension(name) is not None
        return is_first_copy and not (self._place.pipe > 0 and name == "embedding.weight")  # the copy of a tied one

    def _create_moments(self) -> None:
        """Zero moments, as Adam makes them at its first step: a load needs them before.

        DeepSpeed links them to parameters once, after the first *group* has stepped; those of later groups
        would stay unlinked.
        """
        adam = self._adam
        if self._stage == 0:
            masters = list(self._parameters.values())
        elif self._stage == 3:
            masters = self._zero.fp32_partitioned_groups_flat
        else:
            masters = self._zero.single_partition_of_fp32_groups
        for master in masters:
            if not adam.state[master]:
                adam.state[master].update(
                    step=torch.tensor(0.0),
                    exp_avg=torch.zeros_like(master),
                    exp_avg_sq=torch.zeros_like(master),
                )
        if self._stage in (1, 2):
            self._zero._lazy_init_hp_params_optimizer_state()

    def _whole(self, name: str, parameter: Any, *, owned: bool) -> Fragment:
        first = parameter.numel() * self._place.data // self._data_size if owned else 0
        last = parameter.numel() * (self._place.data + 1) // self._data_size if owned else parameter.numel()
        state = self._adam.state[parameter]
        whole = {"master": parameter.data, "exp_avg": state["exp_avg"], "exp_avg_sq": state["exp_avg_sq"]}
        return self._fragment(name, first, {key: tensor.view(-1)[first:last] for key, tensor in whole.items()})

    def _partition_of(self, name: str, parameter: Any) -> Fragment:
        """ZeRO-3: ceil(numel / W) elements at rank times that; the last rank's padding is uninitialised."""
        shard = self._zero
        master = shard.get_local_fp32_param(parameter)
        first = min(self._place.data * master.numel(), parameter.ds_numel)
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
        box = tensor_box(name, self._shapes[name], rank=self._place.tensor, size=self._tensor_size)
        return Fragment(name, box.start, box.size, offset, tensors)

    @torch.no_grad()
    def _refresh_partitions(self) -> None:
        """ZeRO-3: the partition of the weights, and the whole of every parameter that is kept gathered."""
        for parameter in self._parameters.values():
            master = self._zero.get_local_fp32_param(parameter)
            parameter.ds_tensor.data.view(-1)[: master.numel()].copy_(master)
            if parameter.ds_status.name == "AVAILABLE":
                pieces = [torch.empty_like(parameter.ds_tensor) for _ in range(self._data_size)]
                torch.distributed.all_gather(pieces, parameter.ds_tensor.data, group=self._data_group)
                whole = torch.cat([piece.view(-1) for piece in pieces])[: parameter.ds_numel]
                parameter.data.copy_(whole.view(parameter.data.shape))

    @torch.no_grad()
    def _refresh_whole_weights(self) -> None:
        """ZeRO-1 and 2: every data rank has all weights; each gives the run that it masters."""
        for parameter in self._parameters.values():
            whole = torch.zeros(parameter.numel(), dtype=torch.float32, device=parameter.device)
            mapping = parameter._hp_mapping
            if mapping is not None:
                address = mapping.lp_fragment_address
                whole[address.start : address.start + address.numel] = mapping.hp_fragment.to(whole.device)
            torch.distributed.all_reduce(whole, group=self._data_group)
            parameter.data.copy_(whole.view_as(parameter))
