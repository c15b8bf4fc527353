"""The learning rate as a function of the position: no scheduler state to save, none to restore wrongly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from pipelines.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Linear warm-up over the first positions, then by `kind` from the peak to `floor_fraction` of it.

    `cosine` falls all the way (LLaMA, Skywork's first stage); `constant` stays (its second stage); `wsd` stays and
    falls linearly over the last `decay_fraction` (warm-up, stable, decay: MiniCPM, Hu et al. 2024). Fractions are of
    the positions from `from_position` on, where a continued run warms up again.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    peak_rate: float = 3e-3
    warmup_fraction: float = 0.05
    floor_fraction: float = 0.1  # LLaMA, Skywork
    kind: Literal["cosine", "constant", "wsd"] = "cosine"
    decay_fraction: float = 0.1
    from_position: int = 0

    def __post_init__(self) -> None:
        """Fractions lie in [0, 1]."""
        if self.peak_rate <= 0 or not 0 <= self.warmup_fraction < 1 or not 0 <= self.floor_fraction <= 1:
            raise ConfigError(
                f"peak_rate {self.peak_rate}, warmup_fraction {self.warmup_fraction}, floor_fraction "
                f"{self.floor_fraction}: expected a rate above 0 and fractions in [0, 1]"
            )
        room = 1 - self.warmup_fraction if self.kind == "wsd" else 1
        if not 0 < self.decay_fraction <= room or self.from_position < 0:
            raise ConfigError(
                f"decay_fraction {self.decay_fraction}, from_position {self.from_position}: expected a fraction above "
                f"0 that leaves room for the warm-up of {self.warmup_fraction}, and a position"
            )

    def learning_rate(self, position: int, end_position: int) -> float:
        """The rate of the batch that ends at `position` (after its last row)."""
        length = max(end_position - self.from_position, 1)
        done = min(max(position - self.from_position, 0) / length, 1.0)
        if done < self.warmup_fraction:
            return self.peak_rate * done / self.warmup_fraction
        return self.peak_rate * (self.floor_fraction + (1.0 - self.floor_fraction) * self._height(done))

    def _height(self, done: float) -> float:
        """From 1 at the peak to 0 at the floor."""
        if self.kind == "constant":
            return 1.0
        if self.kind == "wsd":
            return min(1.0, (1.0 - done) / self.decay_fraction)
        through = (done - self.warmup_fraction) / (1.0 - self.warmup_fraction)
        return 0.5 * (1.0 + math.cos(math.pi * through))
