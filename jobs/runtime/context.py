"""What a job is given: store, engine, pins, progress, clock. A job never reads the environment and never prints."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from jobs.runtime.progress import Progress
from pipelines.datasets import Dataset, open_dataset
from pipelines.datasets.manifest import Manifest
from pipelines.datasets.store import Store, check_create_only
from pipelines.errors import ConfigError

if TYPE_CHECKING:
    from jobs.runtime.execute import Task

LIBRARIES = (
    "pyarrow",
    "numpy",
    "pyspark",
    "ray",
    "torch",
    "deepspeed",
    "trafilatura",
    "sentencepiece",
    "fasttext-community",
)


@dataclass(kw_only=True)
class Context:
    """Handed to `run(config, context)`. `pins`: dataset name -> version, as earlier jobs committed them."""

    store: Store
    engine: str = "process"
    pins: dict[str, int] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    writer: str = field(default_factory=lambda: uuid.uuid4().hex)
    spark_master: str | None = None
    ray_address: str | None = None
    parallelism: int | None = None
    flush_seconds: float = 10.0
    flush_units: int = 1000
    single_writer: bool = False
    committed: list[Manifest] = field(default_factory=list)
    _probed: bool = False

    @property
    def root(self) -> str:
        """Where the datasets lie."""
        return self.store.location

    def open(self, name: str) -> Dataset:
        """The version that the recipe pinned, or the latest."""
        return open_dataset(self.store, name, self.pins.get(name))

    def pin(self, name: str, version: int) -> None:
        """Later jobs of this recipe read exactly this version."""
        self.pins[name] = version

    def now(self) -> str:
        """UTC, ISO 8601, for what is recorded and never hashed."""
        return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def prepare(self) -> None:
        """Prove once that this store can carry commits."""
        if not self._probed and not self.single_writer:
            check_create_only(self.store)
        self._probed = True

    @cached_property
    def cores(self) -> int:
        """Processes to use on this machine."""
        return self.parallelism or len(os.sched_getaffinity(0))

    @cached_property
    def run_dir(self) -> Path:
        """Scratch folder of this process; short, because sockets lie in it."""
        return Path(tempfile.mkdtemp(prefix="gm-"))

    def producer(self) -> dict[str, Any]:
        """Code and library versions: recorded, not hashed."""
        return {
            "code": _version("gristmill") or "unknown",
            "libraries": {n: v for n in LIBRARIES if (v := _version(n))},
        }

    def map(self, task: Task, units: pa.Table, *, engine: str | None = None) -> Iterator[pa.Table]:
        """Run a wave of units on the engine; yields done rows when they are durable."""
        chosen = engine or self.engine
        if chosen == "process":
            from jobs.runtime.in_process import map_units
        elif chosen == "spark":
            from jobs.runtime.spark_map import map_units
        elif chosen == "ray":
            from jobs.runtime.ray_map import map_units
        else:
            raise ConfigError(f"no engine {chosen!r}", mend="process, spark or ray")
        return map_units(self, task, units)

    @cached_property
    def _spark(self) -> Any:
        from jobs.runtime.spark_session import open_spark

        return open_spark(f"gristmill-{self.run_id}", master=self.spark_master, run_dir=self.run_dir)

    def spark(self) -> Any:
        """The Spark session, opened at first use."""
        return self._spark

    @cached_property
    def _ray(self) -> Any:
        from jobs.runtime.ray_session import open_ray

        return open_ray(address=self.ray_address, run_dir=self.run_dir, num_cpus=self.parallelism)

    def ray(self) -> Any:
        """The connected ray module, opened at first use."""
        return self._ray

    @property
    def engine_open(self) -> str | None:
        """The engine that is running now."""
        return next((name for name in ("spark", "ray") if f"_{name}" in self.__dict__), None)

    def close_engines(self) -> None:
        """Stop what this context started; called between jobs of different engines, so that only one is in memory."""
        if "_spark" in self.__dict__:
            from jobs.runtime.spark_session import close_spark

            close_spark(self.__dict__.pop("_spark"))
        if "_ray" in self.__dict__:
            from jobs.runtime.ray_session import close_ray

            del self.__dict__["_ray"]
            close_ray()

    def close(self) -> None:
        """Stop the engines and remove the scratch folder."""
        self.close_engines()
        if "run_dir" in self.__dict__:
            shutil.rmtree(self.run_dir, ignore_errors=True)


@cache
def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
