"""Tensor parallelism: the two places of a block where its ranks meet (Shoeybi et al., 2019, figure 3).

Every rank of a group has the whole of a block's input and output, and a part of the heads or of the feed-forward's
columns. On the way in nothing is done forward and gradients are summed backward; on the way out the reverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TensorGroup:
    """This rank among those that share the heads; `group` is a torch process group of `size` ranks."""

    rank: int
    size: int
    group: Any


def spread(x: Tensor, tensor: TensorGroup | None) -> Tensor:
    """The input of a block that is split over the group."""
    return x if tensor is None else _Spread.apply(x, tensor.group)


def total(x: Tensor, tensor: TensorGroup | None) -> Tensor:
    """The sum of the group's parts of a block's output."""
    return x if tensor is None else _Total.apply(x, tensor.group)


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _sum(gradient, ctx.group), None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        return _sum(x, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None


def _sum(x: Tensor, group: Any) -> Tensor:
    summed = x.contiguous().clone()
    torch.distributed.all_reduce(summed, group=group)
    return summed
