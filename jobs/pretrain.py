"""Train a model on token shards: Ray Train drives DeepSpeed workers through the run's plan.

The plan (which dataset version, which mixture, which rows at which step) is written to the run's chain
once; the same command goes on from the newest checkpoint, with any number of workers, and a finished run is
left alone. Where the tokens or the recipe have changed, a new run is started beside the old one (NAME-2,
...), or refused with `on_change: refuse`.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

import pipelines.errors
from jobs.pretrain_begin import choose_run, parent_of, plan_of
from jobs.pretrain_worker import read_note, train_worker
from jobs.runtime.config import setting
from jobs.runtime.context import Context
from jobs.runtime.cost import Plan, Request
from jobs.runtime.entry import job_main
from pipelines.datasets.manifest import Manifest
from pipelines.errors import ConfigError, ConflictError, GristmillError, InputError, SetupError

ENGINE = "ray"
# Ray Train's own: a loaded machine needs its time to start workers; a dead one should be noticed soon.
RAY_TRAIN_SETTINGS = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "120",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
}


# Settings that the workers' loop has under the same names: training.loop.LoopSettings.
_OF_THE_LOOP = (
    "zero_stage",
    "micro_batch_rows",
    "tensor_parallel",
    "pipeline_stages",
    "offload",
    "checkpoint_activations",
    "compile_model",
    "checkpoint_every_steps",
    "local_every_steps",
    "local_folder",
    "keep_last",
    "milestone_every_steps",
    "milestone_every_tokens",
    "tensorboard",
    "peak_tflops",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of pretrain."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012
    run: str = setting("tiny", "name of the run under runs/", content=False)
    tokens: str = setting("tokens", "dataset of token shards", content=False)
    on_change: Literal["new_run", "refuse"] = setting(
        "new_run", "what to do where tokens or settings differ from the run's plan", content=False
    )
    planned: bool = setting(
        False, "train the plan that the run has, amended or branched, whatever plan the settings mean", content=False
    )
    model: str = setting("tiny", "preset: tiny, mini, 125m, 350m, 760m, 1.3b, 2.7b, baichuan-7b, 13b, skywork-13b")
    init: str = setting("", "first weights: a Llama folder, or RUN@STEP; empty: drawn by the seed; decides the model")
    sequence_length: int = setting(256, "tokens a row")
    rows_per_batch: int = setting(8, "rows a step, over all workers")
    steps: int = setting(180, "steps of the run (those of `after` not counted)")
    train_tokens: float | None = setting(None, "tokens of the run, in the place of steps")
    scale_tokens: float = setting(1.0, "factor on the length of the run: a recipe's trial run")
    scale_width: float = setting(1.0, "factor on the model's heads and feed-forward width")
    scale_depth: float = setting(1.0, "factor on the model's layers")
    after: str = setting("", "go on from a checkpoint of another run, as its branch: RUN (when finished) or RUN@STEP")
    also: tuple[str, ...] = setting((), "further datasets of token shards whose cells may have weights")
    weights: dict[str, float] = setting(  # noqa: RUF009
        doc="weight of each cell, or of all that match a pattern such as en.web.*; empty: by tokens", factory=dict
    )
    ramp_from: dict[str, float] = setting(doc="weights that the run begins with, see ramp_fraction", factory=dict)  # noqa: RUF009
    ramp_fraction: float = setting(0.0, "share of the run in which the mixture moves to `weights`")
    max_laps: int | None = setting(None, "most times that a cell may be read; null: any number")
    seed: int = setting(1, "of the order and of the first weights")
    peak_rate: float = setting(3e-3, "highest learning rate")
    warmup_fraction: float = setting(0.05, "share of the run in which the rate rises")
    floor_fraction: float = setting(0.1, "last learning rate over the highest")
    schedule: Literal["cosine", "constant", "wsd"] = setting("cosine", "how the rate goes on after the warm-up")
    decay_fraction: float = setting(0.1, "share of the run in which wsd falls")
    weight_decay: float = setting(0.1, "AdamW, on matrices only")
    gradient_clip: float = setting(1.0, "largest norm of the gradient")
    precision: Literal["fp32", "bf16"] = setting("fp32", "of weights and activations; masters are fp32")
    num_workers: int = setting(2, "Ray Train workers, one process and one GPU each where there are any", content=False)
    use_gpu: bool = setting(False, "give each worker a GPU and use NCCL", content=False)
    gpu_kind: str = setting("a800-80g", "what a plan goes by where use_gpu: h100-80g, ...", content=False)
    zero_stage: Literal[0, 1, 2, 3] = setting(1, "DeepSpeed ZeRO", content=False)
    micro_batch_rows: int = setting(4, "rows that go through the model at once on a worker", content=False)
    tensor_parallel: int = setting(1, "GPUs that share each layer's matrices", content=False)
    pipeline_stages: int = setting(1, "groups of GPUs that share the layers; with ZeRO-1", content=False)
    offload: Literal["none", "optimizer", "all"] = setting(
        "none", "keep masters and moments, or weights too, in host memory", content=False
    )
    checkpoint_activations: bool = setting(False, "compute layers anew in the backward pass", content=False)
    compile_model: bool = setting(False, "compile the model with torch", content=False)
    checkpoint_every_steps: int = setting(50, "steps between checkpoints", content=False)
    local_every_steps: int = setting(0, "steps between checkpoints in local_folder; 0: none there", content=False)
    local_folder: str = setting("", "a folder on every node's own disk for the near checkpoints", content=False)
    keep_last: int = setting(0, "checkpoints to keep beside the milestones; 0: all", content=False)
    milestone_every_steps: int = setting(0, "steps between checkpoints that are always kept; 0: none", content=False)
    milestone_every_tokens: int = setting(0, "the same by trained tokens; 0: none", content=False)
    tensorboard: str = setting("", "folder or s3:// address for TensorBoard's event files; empty: none", content=False)
    peak_tflops: float | None = setting(None, "of one GPU, dense, for utilisation; null: by its name", content=False)
    max_failures: int = setting(3, "worker groups that may be lost and replaced", content=False)
    collective_timeout_s: float = setting(300.0, "seconds after which a silent worker counts as lost", content=False)

    def __post_init__(self) -> None:
        """Refuse what no run could be."""
        for name in ("sequence_length", "rows_per_batch", "steps", "num_workers", "checkpoint_every_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 1")
        for name in ("train_tokens", "scale_tokens", "scale_width", "scale_depth"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ConfigError(f"{name} is {value}; expected more than 0")
        if not 0 <= self.ramp_fraction <= 1 or (self.ramp_from and not self.ramp_fraction):
            raise ConfigError(
                f"ramp_fraction is {self.ramp_fraction}; expected a share of the run, above 0 where ramp_from is given"
            )
        if self.ramp_fraction and not (self.weights and (self.ramp_from or self.after)):
            raise ConfigError("a ramp moves from ramp_from (or the shares of `after`) to weights: give both")
        if self.after and self.init:
            raise ConfigError(f"after={self.after} and init={self.init} both say what the run begins with: give one")
        if not self.run or not self.run.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise ConfigError(f"run is {self.run!r}; expected letters, digits, '-', '_' and '.'")

    @property
    def all_steps(self) -> int:
        """Steps that are asked for, after scaling; at least 1."""
        if self.train_tokens is not None:
            return max(1, math.ceil(self.train_tokens * self.scale_tokens / self.sequence_length / self.rows_per_batch))
        return max(1, math.ceil(self.steps * self.scale_tokens))

    @property
    def ramp_steps(self) -> int:
        """Steps of the ramp."""
        return round(self.ramp_fraction * self.all_steps)

    def scaled(self, model: Any) -> Any:
        """The model with the factors on width and depth."""
        from training.model.presets import scaled

        return scaled(model, width=self.scale_width, depth=self.scale_depth)


def run(config: Config, context: Context) -> list[Manifest]:
    """Write the plan of a new run, or go on with the one that is there; a run is no dataset, so no manifests."""
    from training.data.batches import BatchPlan
    from training.run_log import RunLog, begin_branch

    settings = _loop_settings(config)
    if config.planned:
        name = config.run
        log = RunLog(context.store, name)
        if log.state.plan is None:
            raise InputError(f"run {name!r} has no plan in {context.root}", mend="leave out planned, or mend the name")
        plan, recipe = log.state.first_plan, log.state.first_recipe
    else:
        plan, recipe = plan_of(config, context)
        name = choose_run(config, context, plan, recipe)
        log = RunLog(context.store, name)
    if log.state.finished is not None:
        done = log.state.finished
        context.progress.say(f"run {name} is finished at step {done['step']} (loss {done['loss']:.4f}): nothing to do")
        return []
    if config.after and log.state.plan is None and not config.planned:
        parent, checkpoint, note = parent_of(config, context)
        log = begin_branch(parent, name, plan, recipe, checkpoint, note)
    log.write_plan(plan, recipe)
    steps = BatchPlan(log.state.plan).steps
    if log.state.checkpoint is not None:
        at = log.state.checkpoint
        context.progress.say(
            f"run {name} goes on from step {at['step']} of {steps} (attempt {log.state.attempt + 1})"
        )
    else:
        context.progress.say(f"run {name}: {steps} steps on {config.num_workers} workers")
    with _progress(context, name, steps):
        failure = _fit(config, context, name, settings)
    _finish(context, name, failure)
    return []


def _loop_settings(config: Config) -> dict[str, Any]:
    """What every worker's loop is given; ConfigError here, not there, where it refuses them."""
    from training.loop import LoopSettings

    settings = {name: getattr(config, name) for name in _OF_THE_LOOP}
    LoopSettings(**settings)
    return settings


def _fit(config: Config, context: Context, name: str, settings: dict[str, Any]) -> BaseException | None:
    """Ray Train over the worker function; the error that ended it, if any."""
    for key, value in RAY_TRAIN_SETTINGS.items():
        os.environ.setdefault(key, value)
    ray = context.ray()
    resources = {"CPU": 1.0, **({"GPU": 1.0} if config.use_gpu else {})}
    there = ray.cluster_resources()
    if short := [kind for kind, each in resources.items() if there.get(kind, 0) < each * config.num_workers]:
        raise ConfigError(
            f"num_workers is {config.num_workers}; the Ray cluster has {there.get(short[0], 0):g} {short[0]}",
            mend="fewer workers (num_workers), or a larger cluster",
        )
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        raise SetupError(f"ray.train cannot be imported ({error})", mend="pip install 'gristmill[train]'") from error

    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "root": context.root,
            "run": name,
            "job": context.run_id,
            "collective_timeout_s": config.collective_timeout_s,
            "report_every_steps": max(config.all_steps // 20, 1),
            "settings": settings,
        },
        torch_config=TorchConfig(
            backend="nccl" if config.use_gpu else "gloo", timeout_s=int(config.collective_timeout_s)
        ),
        scaling_config=ScalingConfig(
            num_workers=config.num_workers, use_gpu=config.use_gpu, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=f"{name}-{context.run_id}",
            storage_path=str(context.run_dir / "train"),  # Ray's own notes; checkpoints go to our store
            failure_config=FailureConfig(max_failures=config.max_failures),
        ),
    )
    return _outside_the_main_thread(trainer.fit)


def _outside_the_main_thread(work: Callable[[], object]) -> BaseException | None:
    """Run it and return its error, if any; Ctrl-C stays ours.

    In the main thread Ray Train puts its own handler for SIGINT in place of Python's and leaves it there: a run that
    was interrupted would exit 0, and so would every job after it.
    """
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  (Ray's types differ by version; the chain says what is true)
            errors.append(error)

    thread = threading.Thread(target=guarded, name="ray-train", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.5)
    return errors[0] if errors else None


def _finish(context: Context, name: str, failure: BaseException | None) -> None:
    """Say how the run stands by its chain, or raise what stopped it."""
    from training.run_log import RunLog

    state = RunLog(context.store, name).state
    if state.finished is not None:
        done = state.finished
        context.progress.say(
            f"run {name}: step {done['step']}, {done['trained_tokens']} tokens trained, loss {done['loss']:.4f}, "
            f"rows {done['digest']}"
        )
        return
    if (note := read_note(context.store, name, context.run_id)) is not None:
        kind = getattr(pipelines.errors, note["error"], GristmillError)
        raise kind(note["message"], key=note["key"], mend=note["mend"])
    if state.attempt and state.attempt_by.get("job") != context.run_id:
        raise ConflictError(
            f"run {name!r}: attempt {state.attempt} of another job ({state.attempt_by}) has taken the run over",
            mend="let it train; nothing was lost",
        )
    if failure is None:
        context.progress.say(f"run {name} was stopped on request; the same command goes on")
        return
    raise GristmillError(
        f"run {name!r} did not finish: {str(failure)[-800:]}",
        mend="the same command goes on from the newest checkpoint",
    ) from failure


@contextmanager
def _progress(context: Context, name: str, steps: int) -> Iterator[None]:
    """Count steps as the run shows them; a lost worker may set it back, the bar waits."""
    from training.metrics import read_live

    ended = threading.Event()
    nothing = pa.table({})

    with context.progress.stage(f"pretrain {name}", steps) as tick:

        def watch() -> None:
            shown = 0
            while not ended.wait(2.0):
                live = read_live(context.store, name) or {"step": 0}
                for _ in range(max(live["step"] - shown, 0)):
                    tick(nothing)
                shown = max(shown, live["step"])
            for _ in range(steps - shown):
                tick(nothing)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join(10)


def plan(config: Config, context: Context, request: Request) -> Plan:
    """Layouts, time, money and mixture; SetupError where there is no torch, whose model classes are asked."""
    try:
        import torch  # noqa: F401

        from jobs.pretrain_plan import plan_pretraining
    except ImportError as error:
        raise SetupError(
            f"planning a training needs torch ({error})", mend="make setup, or pip install 'gristmill[train]'"
        ) from error

    return plan_pretraining(config, context, request)


if __name__ == "__main__":
    job_main("pretrain")
