"""The decoder: LLaMA-shaped, with the document mask built in.

RMSNorm before each block, rotary positions (half-split, as in the published LLaMA weights) or ALiBi, SwiGLU,
grouped-query attention, input and output embedding tied or not. Attention never crosses a document and
positions restart in each: both come with the row. Query, key, value, gate and up are separate parameters,
so that a checkpoint slice names one of them. Weights start from a generator keyed by (seed, parameter
name): equal at any world size and sharding.

Shape legend: B rows, L tokens, N rows x tokens, D d_model, H query heads, G key/value heads, K head width,
V vocabulary.
"""

# ruff: noqa: N803, N806  (tensors carry shape suffixes)
from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from pipelines.errors import ConfigError
from training.data.rows import IGNORED
from training.model.attention import Attend, Way, alibi_slopes, attention_of
from training.model.parallel import TensorGroup, spread, total

INIT_FORMAT = "gristmill.init/1"
LOGIT_TOKENS = 512  # at a time through the vocabulary: 20 percent of a tiny model's step, by the caches


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Sizes of a decoder; stored in every checkpoint, so that weights are read without the job's config."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    vocab_size: int
    d_model: int
    layers: int
    heads: int
    kv_heads: int
    d_ff: int
    positions: Literal["rope", "alibi"] = "rope"
    rope_theta: float = 10_000.0
    rope_scaling: float = 1.0  # positions are divided by it: linear interpolation to longer rows (Chen et al., 2023)
    norm_eps: float = 1e-5
    tied_embeddings: bool = True
    init_std: float = 0.02

    def __post_init__(self) -> None:
        """Head widths must be whole and even."""
        if self.rope_scaling < 1 or self.rope_theta <= 1:
            raise ConfigError(
                f"rope_theta {self.rope_theta}, rope_scaling {self.rope_scaling}; expected more than 1 and at least 1"
            )
        if min(self.vocab_size, self.d_model, self.layers, self.heads, self.kv_heads, self.d_ff) < 1:
            raise ConfigError(f"model sizes must be at least 1: {asdict(self)}")
        if self.d_model % self.heads or (self.d_model // self.heads) % 2 or self.heads % self.kv_heads:
            raise ConfigError(
                f"d_model {self.d_model}, heads {self.heads}, kv_heads {self.kv_heads}: d_model must be a "
                "multiple of heads with an even head width, heads a multiple of kv_heads"
            )

    @property
    def head_width(self) -> int:
        """K."""
        return self.d_model // self.heads

    @property
    def parameters(self) -> int:
        """Parameters, a tied embedding counted once."""
        attention = 2 * self.d_model * self.d_model + 2 * self.d_model * self.kv_heads * self.head_width
        layer = attention + 3 * self.d_model * self.d_ff + 2 * self.d_model
        embeddings = self.vocab_size * self.d_model * (1 if self.tied_embeddings else 2)
        return self.layers * layer + embeddings + self.d_model

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


class Batch(NamedTuple):
    """The rows of a micro-step, each (B, L) int64."""

    ids: Tensor
    positions: Tensor
    documents: Tensor
    labels: Tensor


class Shared(NamedTuple):
    """What all layers of a forward pass share: the rotation (none with ALiBi), and attention over these rows."""

    rotation: tuple[Tensor, Tensor] | None
    attend: Attend


class Decoder(nn.Module):
    """Token ids to the sums of the negative log likelihoods of the labels, by row.

    It is a chain of parts, so that a pipeline can cut it: the embedding, the layers, the final norm, the vocabulary.
    """

    def __init__(self, config: ModelConfig, tensor: TensorGroup | None = None) -> None:
        """Parameters are allocated, not drawn: see `initialise`.  With `tensor` layers have that rank's part."""
        super().__init__()
        self.config, self.tensor = config, tensor
        self.attention_way: Way = "auto"
        self.checkpoint_activations = False
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Layer(config, tensor) for _ in range(config.layers))
        self.final_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        if not config.tied_embeddings:
            self.unembedding = nn.Linear(config.d_model, config.vocab_size, bias=False)

    def forward(self, ids_BL: Tensor, positions_BL: Tensor, documents_BL: Tensor, labels_BL: Tensor) -> Tensor:
        """Sum of the token losses of each row, over the labels that are not IGNORED: (B,) float32."""
        return self.token_losses(ids_BL, positions_BL, documents_BL, labels_BL).sum(dim=1)

    def token_losses(self, ids_BL: Tensor, positions_BL: Tensor, documents_BL: Tensor, labels_BL: Tensor) -> Tensor:
        """Loss of each token, 0 where there is no label: (B, L) float32."""
        return self._losses(self.hidden(ids_BL, positions_BL, documents_BL), labels_BL)

    def logits(self, ids_BL: Tensor, positions_BL: Tensor, documents_BL: Tensor) -> Tensor:
        """(B, L, V) in the parameters' type."""
        return self._unembed(self.hidden(ids_BL, positions_BL, documents_BL))

    def hidden(self, ids_BL: Tensor, positions_BL: Tensor, documents_BL: Tensor) -> Tensor:
        """What the output embedding reads: (B, L, D)."""
        return self.span(ids_BL, 0, len(self.part_names) - 1, Batch(ids_BL, positions_BL, documents_BL, ids_BL))

    @property
    def part_names(self) -> list[str]:
        """The parts of the chain in order, by the module that each is."""
        last = "embedding" if self.config.tied_embeddings else "unembedding"
        return ["embedding", *(f"layers.{i}" for i in range(len(self.layers))), "final_norm", last]

    def compile_layers(self, parts: range) -> None:
        """Compile the layers among these parts of the chain."""
        for i in parts:
            if isinstance(layer := self.get_submodule(self.part_names[i]), Layer):
                layer.compile_inside()

    def span(self, x: Tensor, first: int, last: int, batch: Batch) -> Tensor:
        """The parts [first, last) of the chain: ids (B, L) or (B, L, D) in; (B, L, D), or losses by row (B,), out."""
        layers, parts = range(max(first - 1, 0), min(last - 1, len(self.layers))), len(self.layers) + 3
        if first == 0 < last:
            x = self.embedding(x)
        if layers:
            shared = self._shared(batch, x.dtype)
            for i in layers:
                if self.checkpoint_activations and torch.is_grad_enabled():
                    x = checkpoint(self.layers[i], x, shared, use_reentrant=False)
                else:
                    x = self.layers[i](x, shared)
        if first < parts - 1 <= last:
            x = self.final_norm(x)
        if last == parts:
            return self._losses(x, batch.labels).sum(dim=1)
        return x

    def _shared(self, batch: Batch, dtype: torch.dtype) -> Shared:
        config = self.config
        if config.positions == "alibi":
            slopes = alibi_slopes(config.heads).to(batch.ids.device)
            if self.tensor is not None:
                slopes = slopes.chunk(self.tensor.size)[self.tensor.rank]
            attend = attention_of(batch.documents, batch.positions, slopes_H=slopes, way=self.attention_way)
            return Shared(None, attend)
        attend = attention_of(batch.documents, batch.positions, way=self.attention_way)
        return Shared(rotary_angles(batch.positions, config, dtype), attend)

    def _losses(self, hidden_BLD: Tensor, labels_BL: Tensor) -> Tensor:
        losses = [
            F.cross_entropy(self._unembed(part_ND).float(), part_N, reduction="none", ignore_index=IGNORED)
            for part_ND, part_N in zip(
                hidden_BLD.flatten(0, 1).split(LOGIT_TOKENS), labels_BL.flatten().split(LOGIT_TOKENS), strict=True
            )
        ]
        return torch.cat(losses).view(labels_BL.shape)

    def _unembed(self, hidden: Tensor) -> Tensor:
        weight_VD = self.embedding.weight if self.config.tied_embeddings else self.unembedding.weight
        return F.linear(hidden, weight_VD)


class Layer(nn.Module):
    """Attention and feed-forward, each behind its norm."""

    def __init__(self, config: ModelConfig, tensor: TensorGroup | None = None) -> None:
        """Parameters are allocated, not drawn."""
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.attention = Attention(config, tensor)
        self.feed_forward_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.feed_forward = FeedForward(config, tensor)

    def forward(self, x_BLD: Tensor, shared: Shared) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        mixed_BHLK = shared.attend(*self._before(x_BLD, shared.rotation))
        return self._after(x_BLD, mixed_BHLK)

    def compile_inside(self) -> None:
        """Compile all but attention, whose kernel and mask change with the rows."""
        self._before = torch.compile(self._before)  # type: ignore[method-assign]
        self._after = torch.compile(self._after)  # type: ignore[method-assign]

    def _before(self, x_BLD: Tensor, rotation: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        return self.attention.heads_of(self.attention_norm(x_BLD), rotation)

    def _after(self, x_BLD: Tensor, mixed_BHLK: Tensor) -> Tensor:
        x_BLD = x_BLD + self.attention.joined(mixed_BHLK)
        return x_BLD + self.feed_forward(self.feed_forward_norm(x_BLD))


class Attention(nn.Module):
    """The projections of grouped-query attention, before and after it."""

    def __init__(self, config: ModelConfig, tensor: TensorGroup | None = None) -> None:
        """Parameters are allocated, not drawn."""
        super().__init__()
        self.tensor, size = tensor, 1 if tensor is None else tensor.size
        self.head_width = config.head_width
        self.query = nn.Linear(config.d_model, config.heads // size * config.head_width, bias=False)
        self.key = nn.Linear(config.d_model, config.kv_heads // size * config.head_width, bias=False)
        self.value = nn.Linear(config.d_model, config.kv_heads // size * config.head_width, bias=False)
        self.output = nn.Linear(config.heads // size * config.head_width, config.d_model, bias=False)

    def heads_of(self, x_BLD: Tensor, rotation: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, L, D) -> queries (B, H, L, K), keys and values (B, G, L, K), rotated."""
        x_BLD = spread(x_BLD, self.tensor)
        q_BHLK, k_BGLK, v_BGLK = (
            projection(x_BLD).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        if rotation is not None:
            q_BHLK, k_BGLK = rotate(q_BHLK, rotation), rotate(k_BGLK, rotation)
        return q_BHLK, k_BGLK, v_BGLK

    def joined(self, mixed_BHLK: Tensor) -> Tensor:
        """(B, H, L, K) -> (B, L, D)."""
        return total(self.output(mixed_BHLK.transpose(1, 2).flatten(2)), self.tensor)


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, config: ModelConfig, tensor: TensorGroup | None = None) -> None:
        """Parameters are allocated, not drawn."""
        super().__init__()
        self.tensor, width = tensor, config.d_ff // (1 if tensor is None else tensor.size)
        self.gate = nn.Linear(config.d_model, width, bias=False)
        self.up = nn.Linear(config.d_model, width, bias=False)
        self.down = nn.Linear(width, config.d_model, bias=False)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        x_BLD = spread(x_BLD, self.tensor)
        return total(self.down(F.silu(self.gate(x_BLD)) * self.up(x_BLD)), self.tensor)


def rotary_angles(positions_BL: Tensor, config: ModelConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (B, 1, L, K/2)."""
    width = config.head_width
    exponents = torch.arange(0, width, 2, device=positions_BL.device, dtype=torch.float32) / width
    angles_BLK2 = positions_BL[:, :, None].float() / config.rope_scaling * config.rope_theta**-exponents
    return angles_BLK2.cos().to(dtype).unsqueeze(1), angles_BLK2.sin().to(dtype).unsqueeze(1)


def rotate(x_BHLK: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the pairs (i, i + K/2)."""
    cos, sin = rotation
    left, right = x_BHLK.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


@torch.no_grad()
def initialise(model: Decoder, seed: int) -> Decoder:
    """A whole model with every parameter drawn."""
    for name, parameter in model.named_parameters():
        parameter.copy_(draw(model.config, name, tuple(parameter.shape), seed))
    return model


def draw(config: ModelConfig, name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """The first weights of a parameter, from a generator of its own keyed by (seed, name); norms start at 1.

    Normal with `init_std`; the two projections into the residual stream are divided by sqrt(2 layers), as in GPT-2.
    """
    if name.endswith("norm.weight"):
        return torch.ones(shape)
    std = config.init_std
    if name.endswith(("attention.output.weight", "feed_forward.down.weight")):
        std /= math.sqrt(2 * config.layers)
    return torch.randn(shape, generator=_generator(seed, name)).mul_(std)


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The whole model's parameters in order; nothing is allocated."""
    with torch.device("meta"):
        return {name: tuple(parameter.shape) for name, parameter in Decoder(config).named_parameters()}


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.blake2b(f"{INIT_FORMAT}\0{seed}\0{name}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
