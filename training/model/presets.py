"""Model sizes by name: functions that return a config for a vocabulary, so that a preset can be changed with
`replace`.

Shapes of the large ones are published: LLaMA (Touvron et al., 2023, table 2), Baichuan-7B (its config.json),
Skywork-13B (Wei et al., 2023, table 2). The ladder below them has the widths and depths of GPT-3 (Brown et al., 2020,
table 2.1) with LLaMA's feed-forward of 8/3 widths, a multiple of 256.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from pipelines.errors import ConfigError
from training.model.decoder import ModelConfig


def tiny(vocab_size: int) -> ModelConfig:
    """About 1.6 M parameters at a vocabulary of 8,192: minutes on a laptop, to see the whole trip work."""
    return ModelConfig(vocab_size=vocab_size, d_model=128, layers=4, heads=4, kv_heads=2, d_ff=344)


def mini(vocab_size: int) -> ModelConfig:
    """About 14 M parameters at a vocabulary of 8,192: an hour of a CPU shows a trend."""
    return ModelConfig(vocab_size=vocab_size, d_model=384, layers=6, heads=6, kv_heads=2, d_ff=1024)


def _shape(d_model: int, layers: int, heads: int, d_ff: int, vocab_size: int, *, tied: bool = False) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab_size,
        d_model=d_model,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        d_ff=d_ff,
        tied_embeddings=tied,
    )


PRESETS: dict[str, Callable[[int], ModelConfig]] = {
    "tiny": tiny,
    "mini": mini,
    "125m": partial(_shape, 768, 12, 12, 2048, tied=True),
    "350m": partial(_shape, 1024, 24, 16, 2816, tied=True),
    "760m": partial(_shape, 1536, 24, 16, 4096),
    "1.3b": partial(_shape, 2048, 24, 16, 5632),
    "2.7b": partial(_shape, 2560, 32, 32, 6912),
    "baichuan-7b": partial(_shape, 4096, 32, 32, 11008),  # LLaMA-7B; published with 64,000 tokens
    "13b": partial(_shape, 5120, 40, 40, 13824),  # LLaMA-13B
    "skywork-13b": partial(_shape, 4608, 52, 36, 12288),  # deeper and thinner; published with 65,519 tokens
}


def preset(name: str, vocab_size: int) -> ModelConfig:
    """The preset by name; ConfigError that names what there is."""
    if name not in PRESETS:
        raise ConfigError(f"no model preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name](vocab_size)


def scaled(model: ModelConfig, *, width: float = 1.0, depth: float = 1.0) -> ModelConfig:
    """The same proportions, smaller or larger: heads of the same width, the feed-forward a multiple of 8."""
    heads = max(1, round(model.heads * width))
    kv_heads = max(1, round(model.kv_heads * width))
    while heads % kv_heads:
        kv_heads -= 1
    return replace(
        model,
        heads=heads,
        kv_heads=kv_heads,
        d_model=heads * model.head_width,
        d_ff=max(8, round(model.d_ff * width / 8) * 8) if width != 1 else model.d_ff,
        layers=max(1, round(model.layers * depth)),
    )
