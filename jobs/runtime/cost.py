"""What a job will cost, told from a sample of its input before anything dear starts.

A job module may have `plan(config, context, request) -> Plan`: its cost model.  A model measures the job's own code on
pieces of the input chosen by hash, and scales by something that is known of the whole without reading it.
"""

from __future__ import annotations

import glob
import hashlib
import math
import os
import resource
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from jobs.runtime.catalog import JOBS, load_job
from jobs.runtime.context import Context
from pipelines.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of a cost model.  `fraction` of the input is sampled, but never less than the model's least."""

    fraction: float = 0.01
    cores: int = 1
    gpus: int | None = None
    gpu: str | None = None
    gpus_per_node: int = 8
    gpu_dollars: float | None = None  # an hour


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A predicted number; `error` is half of its 95% interval as a share of it, None where it is not known."""

    value: float
    unit: str
    error: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The cost of a job: figures by name, in the order in which they are shown; tables of rows with equal keys."""

    job: str
    sample: dict[str, Any]
    figures: dict[str, Figure]
    notes: list[str] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def plan_job(name: str, config: Any, context: Context, request: Request) -> Plan:
    """The job's plan; ConfigError where it has no cost model."""
    module = load_job(name)
    if not hasattr(module, "plan"):
        known = ", ".join(job for job in JOBS if hasattr(load_job(job), "plan"))
        raise ConfigError(f"{name} has no cost model yet", mend=f"jobs with one: {known}")
    if not 0 < request.fraction <= 1:
        raise ConfigError(f"a sample of {request.fraction:g} of the input", mend="give a fraction above 0, at most 1")
    return module.plan(config, context, request)


def by_hash(items: Iterable[T], name: Callable[[T], str]) -> list[T]:
    """The items in an order that depends on their names alone; its first ones are a fair sample."""
    return sorted(items, key=lambda item: hashlib.sha256(name(item).encode("utf-8", "surrogateescape")).digest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Sum of a cost over sum of a size, with its standard error by the groups that it was measured in."""

    value: float
    error: float  # relative, 95%

    @staticmethod
    def of(costs: Sequence[float], sizes: Sequence[float]) -> Ratio:
        """The ratio estimator of survey sampling (Cochran 1977, 6.4)."""
        total = sum(sizes)
        if not total or not sum(costs):
            return Ratio(value=0.0, error=0.0)
        ratio, n = sum(costs) / total, len(costs)
        if n < 2:
            return Ratio(value=ratio, error=1.0)
        spread = sum((c - ratio * s) ** 2 for c, s in zip(costs, sizes, strict=True)) * n / (n - 1)
        return Ratio(value=ratio, error=1.96 * math.sqrt(spread) / sum(costs))


def cpu_seconds() -> float:
    """User and system time of this process, its ended children, and those that live."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = sum(r.ru_utime + r.ru_stime for r in map(resource.getrusage, whose))
    return used + sum(map(_seconds_of, living_children()))


def living_children() -> list[int]:
    """Process ids, empty where the system does not tell."""
    found: list[int] = []
    for children in glob.glob(f"/proc/{os.getpid()}/task/*/children"):  # noqa: PTH207
        try:
            found += [int(pid) for pid in Path(children).read_text().split()]
        except OSError:  # a thread that has ended since
            continue
    return found


def peak_memory_mb(pid: int | str = "self") -> float:
    """The largest resident memory that a process had; 0.0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000 if pid == "self" else 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM")), 0.0)


def _seconds_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(n) for n in fields[11:15]) / os.sysconf("SC_CLK_TCK")
