"""What the ranks of a test do: module-level, so that a forked process finds it by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from pipelines.datasets.store import Store, open_store
from pipelines.errors import ConflictError
from tests.unit.training.token_shards import documents_of, write_tokens
from training.data.plan import DatasetPin, single_segment_plan
from training.layout import EngineConfig
from training.loop import LoopSettings, recipe_of, train
from training.model.decoder import ModelConfig
from training.run_log import Attempt, RunLog, request_stop
from training.schedule import Schedule

MODEL = ModelConfig(vocab_size=61, d_model=24, layers=2, heads=2, kv_heads=1, d_ff=40)
ENGINE = EngineConfig(micro_batch_rows=2)
SETTINGS = LoopSettings(
    zero_stage=1, micro_batch_rows=2, checkpoint_every_steps=5, probe_rows=3, background_saves=False
)
STEPS = 14


def prepare(
    root: str, *, run: str = "tiny", steps: int = STEPS, precision: str = "fp32", model: ModelConfig = MODEL
) -> Store:
    """A store with token shards and a run whose plan is written."""
    store = open_store(root)
    cells = {
        "en.web": [documents_of(1, documents=60, vocab_size=61), documents_of(2, documents=7, vocab_size=61)],
        "zh.web": [documents_of(3, documents=40, vocab_size=61)],
    }
    manifest = write_tokens(store, cells, vocab_size=61)
    plan = single_segment_plan(
        seed=5,
        dataset=DatasetPin(name=manifest.name, version=manifest.version, manifest_sha256=manifest.sha256),
        weights={"en.web": 0.6, "zh.web": 0.4},
        sequence_length=24,
        rows_per_batch=7,
        steps=steps,
        skips=[(9, 12), (40, 50)],
    )
    recipe = recipe_of(model, Schedule(), replace(ENGINE, precision=precision), seed=5)
    RunLog(store, run).write_plan(plan, recipe)
    return store


class DeathError(Exception):
    """Stands for a process that dies."""


def train_run(
    root: str, run: str, settings: LoopSettings, crash_at: int | None = None, stop_at: int | None = None
) -> dict[str, Any]:
    """Train on this rank; what it saw.  `crash_at`: die right after that step; `stop_at`: ask to stop.

    A local folder `.../node-` is one of its own for every rank.
    """
    if settings.local_folder.endswith("node-"):
        settings = replace(settings, local_folder=f"{settings.local_folder}{torch.distributed.get_rank()}")
    seen: list[dict[str, Any]] = []

    def on_step(metrics: dict[str, Any]) -> None:
        seen.append(metrics)
        if metrics["step"] == crash_at:
            raise DeathError
        if metrics["step"] == stop_at:
            request_stop(open_store(root), run)

    try:
        end = train(open_store(root), run, settings, on_step=on_step)
    except DeathError:
        return {"steps": seen, "digest": None}
    return {"steps": seen, "digest": f"{end.progress.digest:016x}", "finished": end.finished}


def train_beside_a_newer_attempt(root: str, run: str, settings: LoopSettings, at: int) -> str:
    """Train; after step `at` somebody else opens an attempt.  The error that this rank leaves with."""

    def on_step(metrics: dict[str, Any]) -> None:
        if metrics["step"] == at and torch.distributed.get_rank() == 0:
            Attempt(RunLog(open_store(root), run), {"host": "elsewhere"})

    try:
        train(open_store(root), run, settings, on_step=on_step)
    except ConflictError as error:
        return f"exit {error.exit_code}: {error}"
    return "went on"


def train_runs(jobs: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Several runs one after the other in one process group."""
    return [train_run(*job) for job in jobs]
