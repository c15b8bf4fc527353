"""Train a scorer on labelled pages and commit it as an artifact, with what it is worth on domains it never saw.

The pages are a file ({"text", "label": "good" or "bad", "language", "domain"} a row, JSON lines, also zstd, or
Parquet), or come from sources: `good` and `bad` each name files and datasets, a dataset with a condition where wished
("documents where quality_bert/quality.bert >= 0.9"). With `distil` the labels are the ends of another scorer's column:
BERT -> fastText. One process and one thread: fastText makes another model each time with more.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.runtime.artifacts import make_artifact
from jobs.runtime.config import content_config, setting, stage_id
from jobs.runtime.context import Context
from jobs.runtime.entry import job_main
from jobs.runtime.stage import Parent
from pipelines.datasets.manifest import Manifest
from pipelines.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pipelines.quality.examples import LabelledPage
    from pipelines.quality.sources import Source

ENGINE = "process"
VERSION = 3
SAMPLE = Path("tests", "sample", "quality.jsonl.zst")
_NOT_RULES = ("most_pages", "group_column", "good", "bad", "distil", "distil_share", "documents")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of train_quality."""

    examples: str = setting(
        str(SAMPLE), "file of labelled pages, relative to here or the repository; none is read where sources are given",
        content=False,
    )  # fmt: skip
    good: list[str] = setting(doc="sources of good pages: files, datasets, 'NAME where COLUMN >= X'", factory=list)  # noqa: RUF009
    bad: list[str] = setting(doc="sources of bad pages", factory=list)  # noqa: RUF009
    distil: str = setting("", "annotations beside `documents`: highest scores are good, lowest bad; empty: none")
    distil_share: float = setting(0.2, "share of the documents that each end takes, up to 0.5")
    documents: str = setting("documents", "dataset that `distil` belongs to")
    most_pages: int = setting(20000, "most pages of a source, chosen by hash of the id")
    group_column: str = setting("domain", "column of a dataset by which it is split")
    output: str = setting("quality_model", "artifact to write", content=False)
    dimensions: int = setting(16, "numbers in a word's vector")
    epochs: int = setting(25, "passes over the pages")
    learning_rate: float = setting(0.5, "of fastText, at the start")
    word_ngrams: int = setting(2, "longest run of words that is a feature")
    buckets: int = setting(65536, "hash buckets of the runs of words")
    min_count: int = setting(2, "a rarer word is not learned")
    test_fraction: float = setting(0.2, "share of the domains that is kept for the test")
    folds: int = setting(4, "folds on which head, calibration and cut are made")
    form: bool = setting(True, "whether word order and form count beside the words")
    target_precision: float = setting(0.9, "precision on the folds that the cut is chosen for")
    near_copies: float = setting(0.8, "estimated similarity from which on a page is a copy; 1: exact copies only")
    seed: int = setting(0, "of the split and of fastText")

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


def run(config: Config, context: Context) -> list[Manifest]:
    """Read, train, commit."""
    from pipelines.quality.train import QualityRules, train

    settings = content_config(config)
    rules = QualityRules(**{name: value for name, value in settings.items() if name not in _NOT_RULES})
    bodies, sources, parents = _inputs(config, context)

    def make() -> tuple[dict[str, bytes], dict[str, object]]:
        files, metrics = train(_pages(config, bodies, sources), rules)
        return files, metrics

    manifest = make_artifact(
        context,
        config.output,
        "quality_model",
        job="train_quality",
        stage_id=stage_id("train_quality", VERSION, settings),
        config=settings,
        parents=parents,
        inputs=[hashlib.sha256(body).hexdigest()[:32] for _, _, body in bodies],
        make=make,
    )
    for line in report(config.output, manifest.stats):
        context.progress.say(line)
    return [manifest]


def report(name: str, stats: dict[str, Any]) -> list[str]:
    """What the model is worth, as lines for a person."""
    lines = [
        f"{name}: precision {stats['precision']}, recall {stats['recall']} at the cut {stats['cut']}"
        f" on {stats['test_pages']} pages of other domains",
        f"  AUC {stats['auc']}, among pages of like length {stats['auc_length_matched']};"
        f" calibration error {stats['calibration']['ece']}",
    ]
    for language, rates in stats["by_language"].items():
        lines.append(
            f"  {language or 'unknown'}: {rates['pages']} pages, AUC {rates['auc']}, precision {rates['precision']},"
            f" recall {rates['recall']}"
        )
    return lines


def _inputs(config: Config, context: Context) -> tuple[list[tuple[str, str, bytes]], list[Source], list[Parent]]:
    """(files as (name, label, bytes), dataset sources, parents)."""
    from pipelines.quality.sources import DatasetSource, distilled, parse_source

    bodies: list[tuple[str, str, bytes]] = []
    sources: list[DatasetSource] = []
    for label, named in (("good", config.good), ("bad", config.bad)):
        for text in named:
            if (path := _find(text)) is not None:
                bodies.append((path.name, label, path.read_bytes()))
            else:
                sources.append(parse_source(text, label, context.open))
    if config.distil:
        sources += distilled(context.open(config.documents), context.open(config.distil), config.distil_share)
    if not bodies and not sources:
        path = _find(config.examples)
        if path is None:
            raise InputError(
                f"no file {config.examples}", mend="give labelled pages with --set examples=FILE.jsonl.zst"
            )
        bodies.append((str(path), "", path.read_bytes()))
    elif not config.distil and not (config.good and config.bad):
        raise ConfigError("sources of one label only", mend="name both: --set 'good=[...]' --set 'bad=[...]'")
    pins = {dataset.name: dataset for source in sources for dataset in source.datasets()}
    return bodies, sources, [Parent(manifest=pins[name].manifest, role="pages") for name in sorted(pins)]


def _pages(config: Config, bodies: list[tuple[str, str, bytes]], sources: list[Source]) -> list[LabelledPage]:
    from pipelines.quality.examples import parse_pages
    from pipelines.quality.sources import read_source

    pages = [page for name, label, body in bodies for page in parse_pages(body, name, label)]
    for source in sources:
        pages += read_source(source, config.most_pages, config.group_column, config.seed)
    return pages


def _find(name: str) -> Path | None:
    places = [Path(name), Path(__file__).resolve().parents[1] / name]
    return next((place for place in places if place.is_file()), None)


if __name__ == "__main__":
    job_main("train_quality")
