"""What is known to go wrong, refused before it does: with the reason and the mend.

Model and layout are arithmetic (`require_fit`, which the engine asks too); facts of the machines are gathered by the
caller (`Machines`), so that everything here can be tested without any.
"""

from __future__ import annotations

from pipelines.errors import ConfigError
from training.layout import EngineConfig, data_size
from training.model.decoder import ModelConfig


def require_fit(model: ModelConfig, layout: EngineConfig, world_size: int) -> None:
    """ConfigError where the model cannot be laid out so on so many ranks."""
    data_size(world_size, layout)
    size = layout.tensor_parallel
    uneven = {
        name: count
        for name, count in (("heads", model.heads), ("kv_heads", model.kv_heads), ("d_ff", model.d_ff))
        if count % size
    }
    if uneven:
        raise ConfigError(
            f"tensor_parallel {size} does not divide the model's {', '.join(f'{k} {v}' for k, v in uneven.items())}",
            mend="a tensor_parallel that divides them",
        )
    if layout.pipeline_stages > model.layers:
        raise ConfigError(
            f"pipeline_stages {layout.pipeline_stages} for {model.layers} layers: a stage would have none",
            mend=f"at most {model.layers} stages",
        )
