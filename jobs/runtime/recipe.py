"""Recipes: YAML lists of jobs with settings, run in order, each handed the exact versions its parents committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from jobs.runtime.catalog import check_job, load_job
from jobs.runtime.config import parse_config
from jobs.runtime.context import Context
from pipelines.datasets.manifest import Manifest
from pipelines.errors import ConfigError

FOLDER = Path(__file__).parents[1] / "recipes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One job of a recipe."""

    job: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a step gave, for the summary."""

    job: str
    seconds: float
    manifests: list[Manifest]
    finished: bool


def read_recipe(name: str) -> list[Step]:
    """Steps of `jobs/recipes/NAME.yaml`, or of a YAML file by path."""
    import yaml

    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.yaml")))
        raise ConfigError(f"no recipe {name!r}", mend=f"recipes: {known}; or give the path of a YAML file")
    value = yaml.safe_load(path.read_text("utf-8"))
    if not isinstance(value, dict) or not isinstance(value.get("jobs"), list):
        raise ConfigError(f"{path}: a recipe is a mapping with a list `jobs`")
    steps = []
    for item in value["jobs"]:
        if isinstance(item, str):
            steps.append(Step(job=item))
        elif isinstance(item, dict) and len(item) == 1:
            job, settings = next(iter(item.items()))
            steps.append(Step(job=job, settings=dict(settings or {})))
        else:
            raise ConfigError(f"{path}: {item!r} is neither a job nor `job: settings`")
    for step in steps:
        check_job(step.job)
    return steps


def select_steps(steps: Sequence[Step], *, first: str | None, last: str | None, only: str | None) -> list[Step]:
    """The steps from `first` to `last` inclusive, or the one named `only`."""
    names = [s.job for s in steps]
    for name in (first, last, only):
        if name is not None and name not in names:
            raise ConfigError(f"the recipe has no job {name!r}", mend=f"its jobs: {', '.join(names)}")
    if only is not None:
        return [s for s in steps if s.job == only]
    start = names.index(first) if first else 0
    end = names.index(last) + 1 if last else len(names)
    if start >= end:
        raise ConfigError(f"{first} comes after {last} in this recipe")
    return list(steps[start:end])


def config_of(step: Step, overrides: Mapping[str, Any]) -> Any:
    """The job's config: the recipe's settings, then those of the command line.

    A mapping such as the weights of a mixture is one setting: the command line's takes the place of the recipe's.
    """
    kind = load_job(step.job).Config
    whole = {name for name, hint in get_type_hints(kind).items() if get_origin(hint) is dict}
    settings = {name: value for name, value in step.settings.items() if name not in whole or name not in overrides}
    sources = [("recipe", settings), ("command line", overrides)]
    return parse_config(kind, [source for source in sources if source[1]])[0]


def run_steps(
    context: Context,
    steps: Sequence[Step],
    overrides: Mapping[str, Mapping[str, Any]],
    *,
    engine: str | None = None,
    report: Callable[[Step], None] = lambda _step: None,
) -> list[Outcome]:
    """Run in order; what a step commits is pinned for the steps after it.

    All settings are read before the first job begins: a fault in those of the last must not cost the others' hours.
    """
    configs = [config_of(step, overrides.get(step.job, {})) for step in steps]
    context.prepare()
    outcomes = []
    for step, config in zip(steps, configs, strict=True):
        module = load_job(step.job)
        wanted = engine or module.ENGINE
        if wanted not in ("process", context.engine_open):
            context.close_engines()  # two engines at once do not fit a small machine
        context.engine = wanted
        report(step)
        begun = time.monotonic()
        before = len(context.committed)
        manifests = module.run(config, context)
        for manifest in manifests:
            context.pin(manifest.name, manifest.version)
        seconds = time.monotonic() - begun
        finished = len(context.committed) == before
        outcomes.append(Outcome(job=step.job, seconds=seconds, manifests=list(manifests), finished=finished))
    return outcomes
