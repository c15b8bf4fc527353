"""The training plan: what a run's chain stores so that the order is a function of (plan, position).

Segments are explicit: each names its datasets by manifest sha256, its integer shares, its sequence length
and batch, and the cursor of every cell, so a reader recomputes them and refuses a mismatch instead of
drifting. Weights become shares once, when the plan is written. A plan is plain JSON; its sha256 is of the
canonical text.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from pydantic import TypeAdapter, ValidationError

from pipelines.errors import ConfigError, IntegrityError
from training.data.mixture import integer_shares

PLAN_FORMAT = "gristmill.plan/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetPin:
    """One exact version of a token dataset."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    name: str
    version: int
    manifest_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPlan:
    """A cell in a segment.  `name` is its identity in the order, `cell` the label in dataset `dataset`.

    `share` of 65,536 rows; `lap`, `used` the cursor at the segment's start; `lap_cap` the most laps
    allowed, None: any number.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    name: str
    cell: str
    dataset: int
    share: int
    stretch_tokens: int
    lap: int = 0
    used: int = 0
    lap_cap: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """From `from_position` on: rows of `sequence_length` tokens, `rows_per_batch` rows a step."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    from_position: int
    sequence_length: int
    rows_per_batch: int
    datasets: tuple[DatasetPin, ...]
    cells: tuple[CellPlan, ...]

    def __post_init__(self) -> None:
        """Refuse what no reader could follow."""
        names = [cell.name for cell in self.cells]
        if self.from_position < 0 or self.sequence_length < 2 or self.rows_per_batch < 1:
            raise ConfigError(
                f"segment from {self.from_position}: sequence_length {self.sequence_length}, rows_per_batch "
                f"{self.rows_per_batch}; expected a position of at least 0, 2 tokens and 1 row"
            )
        if not names or len(set(names)) != len(names):
            raise ConfigError(
                f"segment from {self.from_position}: cells are {names}; expected at least one, no name twice"
            )
        for cell in self.cells:
            if not 0 <= cell.dataset < len(self.datasets):
                raise ConfigError(f"cell {cell.name!r}: dataset {cell.dataset} of {len(self.datasets)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All segments up to `end_position`; `skips` are ranges [start, end) consumed but not trained."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    seed: int
    end_position: int
    segments: tuple[Segment, ...]
    skips: tuple[tuple[int, int], ...] = ()
    format: str = PLAN_FORMAT

    def __post_init__(self) -> None:
        """Segments in order from 0, skips sorted, disjoint and inside."""
        if self.format != PLAN_FORMAT:
            raise ConfigError(f"plan format {self.format!r}; this version reads {PLAN_FORMAT!r}")
        starts = [segment.from_position for segment in self.segments]
        if not starts or starts[0] != 0 or sorted(set(starts)) != starts or self.end_position <= starts[-1]:
            raise ConfigError(
                f"segments start at {starts} and end at {self.end_position}; expected 0 first, then rising"
            )
        ends = [0, *(bound for skip in self.skips for bound in skip)]
        if any(a > b for a, b in itertools.pairwise(ends)) or any(a == b for a, b in self.skips):
            raise ConfigError(
                f"skips are {self.skips}; expected sorted, disjoint, non-empty ranges of positions"
            )

    def segment_end(self, number: int) -> int:
        """The position after the segment's last."""
        later = self.segments[number + 1 :]
        return later[0].from_position if later else self.end_position

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return json.loads(json.dumps(asdict(self)))

    @property
    def sha256(self) -> str:
        """Of the canonical JSON text."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def read_plan(body: Mapping[str, Any], *, sha256: str | None = None) -> Plan:
    """A plan from its JSON; checked against `sha256` where one is known."""
    try:
        plan = TypeAdapter(Plan).validate_python(dict(body))
    except ValidationError as error:
        raise IntegrityError(f"the stored training plan does not parse: {error}") from error
    if sha256 is not None and plan.sha256 != sha256:
        raise IntegrityError(f"the training plan has sha256 {plan.sha256}, expected {sha256}")
    return plan


def single_segment_plan(
    *,
    seed: int,
    dataset: DatasetPin,
    weights: Mapping[str, float],
    sequence_length: int,
    rows_per_batch: int,
    steps: int,
    skips: Sequence[tuple[int, int]] = (),
    lap_cap: int | None = None,
) -> Plan:
    """The plan of a run that does not change on its way: every cell from its first lap, stretches of one row.

    Cells are numbered in the order of their names, so the plan does not depend on how `weights` was built.
    """
    if steps < 1:
        raise ConfigError(f"steps is {steps}; expected at least 1")
    names = sorted(weights)
    shares = integer_shares([weights[name] for name in names])
    segment = Segment(
        from_position=0,
        sequence_length=sequence_length,
        rows_per_batch=rows_per_batch,
        datasets=(dataset,),
        cells=tuple(
            CellPlan(
                name=name, cell=name, dataset=0, share=share, stretch_tokens=sequence_length, lap_cap=lap_cap
            )
            for name, share in zip(names, shares, strict=True)
        ),
    )
    end = steps * rows_per_batch
    for start, stop in sorted(skips):
        if start < end:
            end += stop - start
    inside = tuple(skip for skip in sorted(skips) if skip[0] < end)
    return Plan(seed=seed, end_position=end, segments=(segment,), skips=inside)
