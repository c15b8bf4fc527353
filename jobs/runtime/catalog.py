"""The jobs by name: one module each, imported only when asked for."""

from __future__ import annotations

import difflib
import importlib
from types import ModuleType

from pipelines.errors import ConfigError

JOBS = (
    "extract_crawl",
    "dedup_documents",
    "dedup_lines",
    "dedup_substrings",
    "decontaminate_documents",
    "train_quality",
    "import_classifier",
    "combine_scores",
    "score_quality",
    "filter_documents",
    "train_tokenizer",
    "compare_tokenizers",
    "tokenize_documents",
    "pretrain",
    "evaluate_model",
)


def check_job(name: str) -> str:
    """The name; ConfigError that names the nearest job."""
    if name not in JOBS:
        near = difflib.get_close_matches(name, JOBS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"no job {name!r}{hint}", mend=f"jobs: {', '.join(JOBS)}")
    return name


def load_job(name: str) -> ModuleType:
    """Module with `ENGINE`, `Config` and `run(config, context)`."""
    return importlib.import_module(f"jobs.{check_job(name)}")
