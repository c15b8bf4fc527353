"""Model sizes by name: functions that return a config for a vocabulary, so that a preset can be changed with
`replace`.

Shapes of the larger ones are published: LLaMA (Touvron et al., 2023, table 2), Skywork-13B (Wei et al.,
2023, table 2).
"""

from __future__ import annotations

from collections.abc import Callable

from pipelines.errors import ConfigError
from training.model.decoder import ModelConfig


def tiny(vocab_size: int) -> ModelConfig:
    """About 1.6 M parameters at a vocabulary of 8,192: minutes on a laptop, to see the whole trip work."""
    return ModelConfig(vocab_size=vocab_size, d_model=128, layers=4, heads=4, kv_heads=2, d_ff=344)


def small(vocab_size: int) -> ModelConfig:
    """GPT-2 small's width and depth, LLaMA-shaped: about 130 M with 64,000 tokens."""
    return ModelConfig(vocab_size=vocab_size, d_model=768, layers=12, heads=12, kv_heads=12, d_ff=2048)


def billion(vocab_size: int) -> ModelConfig:
    """About 1.2 B parameters with 64,000 tokens; for ablations of data."""
    return ModelConfig(
        vocab_size=vocab_size, d_model=2048, layers=22, heads=32, kv_heads=8, d_ff=5632, tied_embeddings=False
    )


def llama_7b(vocab_size: int) -> ModelConfig:
    """LLaMA-7B; with 64,000 tokens, Baichuan-7B."""
    return ModelConfig(
        vocab_size=vocab_size,
        d_model=4096,
        layers=32,
        heads=32,
        kv_heads=32,
        d_ff=11008,
        tied_embeddings=False,
    )


def skywork_13b(vocab_size: int) -> ModelConfig:
    """Skywork-13B: deeper and thinner than LLaMA-13B."""
    return ModelConfig(
        vocab_size=vocab_size,
        d_model=4608,
        layers=52,
        heads=36,
        kv_heads=36,
        d_ff=12288,
        tied_embeddings=False,
    )


PRESETS: dict[str, Callable[[int], ModelConfig]] = {
    "tiny": tiny,
    "small": small,
    "billion": billion,
    "llama_7b": llama_7b,
    "skywork_13b": skywork_13b,
}


def preset(name: str, vocab_size: int) -> ModelConfig:
    """The preset by name; ConfigError that names what there is."""
    if name not in PRESETS:
        raise ConfigError(f"no model preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name](vocab_size)
