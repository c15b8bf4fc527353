"""The learning rate as a function of the position: no scheduler state to save, none to restore wrongly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from pipelines.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Linear warm-up over the first positions, then a cosine down to `floor_fraction` of the peak."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    peak_rate: float = 3e-3
    warmup_fraction: float = 0.05
    floor_fraction: float = 0.1  # LLaMA, Skywork

    def __post_init__(self) -> None:
        """Fractions lie in [0, 1]."""
        if self.peak_rate <= 0 or not 0 <= self.warmup_fraction < 1 or not 0 <= self.floor_fraction <= 1:
            raise ConfigError(
                f"peak_rate {self.peak_rate}, warmup_fraction {self.warmup_fraction}, floor_fraction "
                f"{self.floor_fraction}: expected a rate above 0 and fractions in [0, 1]"
            )

    def learning_rate(self, position: int, end_position: int) -> float:
        """The rate of the batch that ends at `position` (after its last row)."""
        done = min(position / end_position, 1.0)
        if done < self.warmup_fraction:
            return self.peak_rate * done / self.warmup_fraction
        through = (done - self.warmup_fraction) / (1.0 - self.warmup_fraction)
        cosine = 0.5 * (1.0 + math.cos(math.pi * through))
        return self.peak_rate * (self.floor_fraction + (1.0 - self.floor_fraction) * cosine)
