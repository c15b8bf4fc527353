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
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from pipelines.errors import ConfigError
from training.data.rows import IGNORED
from training.model.attention import Attend, Way, attention_of

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


class Decoder(nn.Module):
    """Token ids to the sums of the negative log likelihoods of the labels, by row."""

    def __init__(self, config: ModelConfig) -> None:
        """Parameters are allocated, not drawn: see `initialise`."""
        super().__init__()
        self.config = config
        self.attention_way: Way = "auto"
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.final_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        if not config.tied_embeddings:
            self.unembedding = nn.Linear(config.d_model, config.vocab_size, bias=False)

    def forward(self, ids_BL: Tensor, positions_BL: Tensor, documents_BL: Tensor, labels_BL: Tensor) -> Tensor:
        """Sum of the token losses of each row, over the labels that are not IGNORED: (B,) float32."""
        return self.token_losses(ids_BL, positions_BL, documents_BL, labels_BL).sum(dim=1)

    def token_losses(self, ids_BL: Tensor, positions_BL: Tensor, documents_BL: Tensor, labels_BL: Tensor) -> Tensor:
        """Loss of each token, 0 where there is no label: (B, L) float32."""
        hidden_ND = self.hidden(ids_BL, positions_BL, documents_BL).flatten(0, 1)
        losses = [
            F.cross_entropy(self._unembed(part_ND).float(), part_N, reduction="none", ignore_index=IGNORED)
            for part_ND, part_N in zip(
                hidden_ND.split(LOGIT_TOKENS), labels_BL.flatten().split(LOGIT_TOKENS), strict=True
            )
        ]
        return torch.cat(losses).view(labels_BL.shape)

    def logits(self, ids_BL: Tensor, positions_BL: Tensor, documents_BL: Tensor) -> Tensor:
        """(B, L, V) in the parameters' type."""
        return self._unembed(self.hidden(ids_BL, positions_BL, documents_BL))

    def hidden(self, ids_BL: Tensor, positions_BL: Tensor, documents_BL: Tensor) -> Tensor:
        """What the output embedding reads: (B, L, D)."""
        config = self.config
        has_alibi = config.positions == "alibi"
        attend = attention_of(
            documents_BL, positions_BL, alibi_heads=config.heads if has_alibi else 0, way=self.attention_way
        )
        x_BLD = self.embedding(ids_BL)
        rotation = None if has_alibi else rotary_angles(positions_BL, config, x_BLD.dtype)
        for layer in self.layers:
            x_BLD = layer(x_BLD, rotation, attend)
        return self.final_norm(x_BLD)

    def _unembed(self, hidden: Tensor) -> Tensor:
        weight_VD = self.embedding.weight if self.config.tied_embeddings else self.unembedding.weight
        return F.linear(hidden, weight_VD)


class Layer(nn.Module):
    """Attention and feed-forward, each behind its norm."""

    def __init__(self, config: ModelConfig) -> None:
        """Parameters are allocated, not drawn."""
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(self, x_BLD: Tensor, rotation: tuple[Tensor, Tensor] | None, attend: Attend) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        x_BLD = x_BLD + self.attention(self.attention_norm(x_BLD), rotation, attend)
        return x_BLD + self.feed_forward(self.feed_forward_norm(x_BLD))


class Attention(nn.Module):
    """Grouped-query attention, inside a document."""

    def __init__(self, config: ModelConfig) -> None:
        """Parameters are allocated, not drawn."""
        super().__init__()
        self.heads, self.kv_heads, self.head_width = config.heads, config.kv_heads, config.head_width
        self.query = nn.Linear(config.d_model, config.heads * config.head_width, bias=False)
        self.key = nn.Linear(config.d_model, config.kv_heads * config.head_width, bias=False)
        self.value = nn.Linear(config.d_model, config.kv_heads * config.head_width, bias=False)
        self.output = nn.Linear(config.heads * config.head_width, config.d_model, bias=False)

    def forward(self, x_BLD: Tensor, rotation: tuple[Tensor, Tensor] | None, attend: Attend) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        rows, length, _ = x_BLD.shape
        q_BHLK = self.query(x_BLD).view(rows, length, self.heads, self.head_width).transpose(1, 2)
        k_BGLK = self.key(x_BLD).view(rows, length, self.kv_heads, self.head_width).transpose(1, 2)
        v_BGLK = self.value(x_BLD).view(rows, length, self.kv_heads, self.head_width).transpose(1, 2)
        if rotation is not None:
            q_BHLK, k_BGLK = rotate(q_BHLK, rotation), rotate(k_BGLK, rotation)
        mixed_BHLK = attend(q_BHLK, k_BGLK, v_BGLK)
        return self.output(mixed_BHLK.transpose(1, 2).reshape(rows, length, -1))


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, config: ModelConfig) -> None:
        """Parameters are allocated, not drawn."""
        super().__init__()
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.up = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        return self.down(F.silu(self.gate(x_BLD)) * self.up(x_BLD))


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
    """Draw every parameter from its own generator, keyed by (seed, name); norms start at 1.

    Normal with `init_std`; the two projections into the residual stream are divided by sqrt(2 layers), as in
    GPT-2.
    """
    config = model.config
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            parameter.fill_(1.0)
            continue
        std = config.init_std
        if name.endswith(("attention.output.weight", "feed_forward.down.weight")):
            std /= math.sqrt(2 * config.layers)
        parameter.copy_(torch.randn(parameter.shape, generator=_generator(seed, name)) * std)
    return model


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.blake2b(f"{INIT_FORMAT}\0{seed}\0{name}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
