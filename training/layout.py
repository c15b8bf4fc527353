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
from typing import ClassVar, Literal

from pipelines.errors import ConfigError

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
        """Refuse what cannot be trained whatever the model and the machines."""
        if self.micro_batch_rows < 1 or self.gradient_clip <= 0:
            raise ConfigError(
                f"micro_batch_rows is {self.micro_batch_rows}, gradient_clip {self.gradient_clip}; expected "
                "at least 1 row and a clip above 0"
            )
        if min(self.tensor_parallel, self.pipeline_stages) < 1:
            raise ConfigError(f"tensor_parallel {self.tensor_parallel}, pipeline_stages {self.pipeline_stages}: not 1")
        for wrong, reason, mend in self._refusals():
            if wrong:
                raise ConfigError(reason, mend=mend)

    def _refusals(self) -> list[tuple[bool, str, str]]:
        stage = self.zero_stage
        return [
            (
                self.precision == "bf16" and stage == 0,
                "bf16 needs zero_stage 1, 2 or 3: stage 0 keeps no fp32 master weights, and small updates are lost",
                "zero_stage=1",
            ),
            (
                self.pipeline_stages > 1 and stage != 1,
                f"pipeline stages with zero_stage {stage}: with 2 and 3 gradients would be partitioned anew at every "
                "micro-step of the pipeline (DeepSpeed refuses it), and 0 has no gradient norm over stages",
                "zero_stage=1, or pipeline_stages=1",
            ),
            (
                self.tensor_parallel > 1 and stage == 0,
                "tensor parallelism with zero_stage 0 has no gradient norm over the tensor ranks",
                "zero_stage=1",
            ),
            (
                self.offload != "none" and stage == 0,
                "offload with zero_stage 0: there are no masters to keep in host memory",
                "zero_stage 1, 2 or 3",
            ),
            (
                self.offload == "all" and stage != 3,
                f"offload of weights with zero_stage {stage}: only stage 3 fetches weights layer by layer",
                "zero_stage=3, or offload=optimizer",
            ),
            (
                self.offload != "none" and self.pipeline_stages > 1,
                "offload with pipeline stages: DeepSpeed's pipeline reduces gradients outside the offload's buffers",
                "offload=none, or pipeline_stages=1 with zero_stage=3",
            ),
            (
                self.compile_model and stage == 3,
                "compile_model with zero_stage 3: weights are gathered in hooks, which break every compiled graph",
                "zero_stage 1 or 2, or compile_model=false",
            ),
        ]


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
    return max(min(2_500_000 * data_size, parameters // 16 * 2, 500_000_000), 1_000_000)


def data_size(world_size: int, config: EngineConfig) -> int:
    """Ranks that read different rows; ConfigError where the ranks are no product of the layout."""
    copies = config.tensor_parallel * config.pipeline_stages
    if world_size % copies:
        raise ConfigError(
            f"{world_size} ranks cannot be divided by tensor_parallel {config.tensor_parallel} x pipeline_stages "
            f"{config.pipeline_stages} = {copies}",
            mend=f"{world_size // copies * copies or copies} ranks, or another layout",
        )
    return world_size // copies


def order_ranks(places: Sequence[tuple[str, str, int]]) -> list[int]:
    """Which worker becomes rank 0, 1, ...: indices of (node, rack, GPU), by rack, then node, then GPU.

    Neighbours in the order are neighbours in the machine room: tensor ranks share a node, the ring of a data-parallel
    group leaves a rack as seldom as it can, and pipeline stages, which send least, lie farthest apart.
    """
    return sorted(range(len(places)), key=lambda i: (places[i][1], places[i][0], places[i][2]))
