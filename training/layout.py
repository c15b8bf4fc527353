"""Which rank holds what: tensor, pipeline and data parallelism as plain arithmetic, so that a plan can be printed and
tested without a process group.

Ranks are laid out pipe x data x tensor, tensor innermost: the ranks that talk most are neighbours. A matrix that
tensor parallelism cuts is cut by whole heads or whole columns of the feed-forward: query, key, value, gate and up by
their rows (outputs), output and down by their columns (inputs), as in Megatron-LM (Shoeybi et al., 2019). Embeddings
and norms are on every tensor rank whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_TENSOR_PARALLEL = 8  # the GPUs of a node; checkpoints are written in so many blocks of columns
_BY_ROWS = (
    "attention.query.weight",
    "attention.key.weight",
    "attention.value.weight",
    "feed_forward.gate.weight",
    "feed_forward.up.weight",
)
_BY_COLUMNS = ("attention.output.weight", "feed_forward.down.weight")

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rank stands on each axis."""

    pipe: int
    data: int
    tensor: int


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a parameter: where it begins in the global shape, and its size."""

    start: Shape
    size: Shape


def place_of(rank: int, *, data_size: int, tensor_size: int) -> Place:
    """The place of a rank."""
    left, tensor = divmod(rank, tensor_size)
    pipe, data = divmod(left, data_size)
    return Place(pipe, data, tensor)


def cut_dimension(parameter: str) -> int | None:
    """The dimension along which tensor parallelism cuts a parameter; None: every tensor rank has it whole."""
    if parameter.endswith(_BY_ROWS):
        return 0
    return 1 if parameter.endswith(_BY_COLUMNS) else None


def tensor_box(parameter: str, shape: Shape, *, rank: int, size: int) -> Box:
    """The part of a parameter that a tensor rank holds; `size` divides the cut dimension."""
    cut = cut_dimension(parameter)
    if cut is None:
        return Box((0,) * len(shape), shape)
    width = shape[cut] // size
    return Box(
        tuple(rank * width if d == cut else 0 for d in range(len(shape))),
        tuple(width if d == cut else n for d, n in enumerate(shape)),
    )


def column_blocks(parameter: str, shape: Shape, size: Shape) -> int:
    """Into how many blocks of columns a checkpoint cuts such a box, so that other tensor ranks read contiguously."""
    if cut_dimension(parameter) != 1:
        return 1
    blocks = MAX_TENSOR_PARALLEL
    while blocks > 1 and (shape[1] % blocks or size[1] % (shape[1] // blocks)):
        blocks //= 2
    return max(blocks * size[1] // shape[1], 1)


def stage_bounds(weights: Sequence[int], stages: int) -> list[int]:
    """Cuts of a chain of layers into stages whose heaviest is as light as can be: stages + 1 rising indices.

    `weights` are the layers' parameters. Every stage has at least one layer.
    """
    sums = [0]
    for weight in weights:
        sums.append(sums[-1] + weight)
    layers = len(weights)
    best = [0] + [sums[-1] + 1] * layers
    cuts: list[list[int]] = []
    for stage in range(1, stages + 1):
        lightest, at = [sums[-1] + 1] * (layers + 1), [0] * (layers + 1)
        for last in range(stage, layers + 1):
            for first in range(stage - 1, last):
                heaviest = max(best[first], sums[last] - sums[first])
                if heaviest < lightest[last]:
                    lightest[last], at[last] = heaviest, first
        best = lightest
        cuts.append(at)
    bounds = [layers]
    for at in reversed(cuts):
        bounds.append(at[bounds[-1]])
    return bounds[::-1]


def bucket_elements(parameters: int, data_size: int) -> int:
    """Elements of a gradient bucket: what one reduction over the data-parallel ranks carries.

    A ring over D ranks takes about 2 (D - 1) steps, so a bucket must grow with D to keep the latency of a step (some
    10 us) below a twentieth of its transfer: 5 MB a rank at 25 GB/s. Buckets of one size for every cluster, which
    Baichuan found slow, are too small for a large one. No more than an eighth of the model, so that reductions begin
    while the backward pass still runs; between 1 M elements and DeepSpeed's 500 M.
    """
    return max(min(2_500_000 * data_size, parameters // 8, 500_000_000), 1_000_000)


def order_ranks(places: Sequence[tuple[str, str, int]]) -> list[int]:
    """Which worker becomes rank 0, 1, ...: indices of (node, rack, GPU), by rack, then node, then GPU.

    Neighbours in the order are neighbours in the machine room: tensor ranks share a node, the ring of a data-parallel
    group leaves a rack as seldom as it can, and pipeline stages, which send least, lie farthest apart.
    """
    return sorted(range(len(places)), key=lambda i: (places[i][1], places[i][0], places[i][2]))
