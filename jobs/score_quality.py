"""Score every document with a scorer: annotations beside the documents, nothing is removed here.

A run is one scorer and gives one column `quality.NAME`: of a classifier that train_quality made, of a BERT-class one
(import_classifier), or of several combined (combine_scores). Actors hold the model; a unit is a part of the documents
and gives one part of annotations, row by row. With `sentences`, those below a cut are written as spans, which
filter_documents can cut out of the texts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from jobs.runtime.config import content_config, setting, stage_id
from jobs.runtime.context import Context
from jobs.runtime.entry import job_main
from jobs.runtime.run import run_stage
from jobs.runtime.stage import Output, Parent, Resources, Stage, Unit, UnitResult, hash_unit, part_units
from pipelines.datasets import Dataset, aligned_parts, open_dataset
from pipelines.datasets.books import Equation
from pipelines.datasets.manifest import Manifest, first_sha256
from pipelines.datasets.store import Store
from pipelines.dedup.spans import span_schema
from pipelines.errors import ConfigError, IntegrityError
from pipelines.quality.scorers import check_name, open_scorer, score_column, score_schema, settings_of

if TYPE_CHECKING:
    from jobs.runtime.cost import Plan, Request

ENGINE = "ray"
VERSION = 2
NAME = "fasttext"
SCORES = score_schema(NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of score_quality."""

    documents: str = setting("documents", "dataset to read", content=False)
    model: str = setting("quality_model", "artifact: the scorer", content=False)
    output: str = setting("quality", "annotations to write", content=False)
    name: str = setting(NAME, "of the score: the column is quality.NAME")
    sentences: str = setting("", "annotations of low sentences to write too, for filter_documents' cuts; empty: none")
    sentence_cut: float | None = setting(None, "sentences below it are low; null: the cut that training chose")
    sentence_least: int = setting(30, "shortest sentence that is scored, in bytes of its normal form")
    least_kept_share: float = setting(0.3, "documents that would keep a smaller share of their characters are hollow")
    num_cpus: float = setting(1.0, "CPUs that an actor holds", content=False)
    num_gpus: float = setting(0.0, "GPUs that an actor holds; above 0 a classifier runs on one", content=False)
    batch_tokens: int = setting(16384, "most tokens in a batch of a BERT-class classifier", content=False)

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


def run(config: Config, context: Context) -> list[Manifest]:
    """A unit for each part of the documents."""

    check_name(config.name)
    documents = context.open(config.documents)
    model = context.open(f"artifacts/{config.model}")
    files = {row["input"]: row["sha256"] for row in model.parts("file").to_pylist()}
    told = settings_of(files, model.read_file)
    members = [context.open(name) for name in told.get("members", ())]
    decisive = content_config(config)
    if not config.sentences:
        decisive = {k: v for k, v in decisive.items() if not k.startswith("sentence") and k != "least_kept_share"}
    elif members:
        raise ConfigError("an ensemble has no sentence scores", mend="--set sentences= , or name another model")
    outputs = [Output(dataset=config.output, kind="annotations", schema=score_schema(config.name))]
    if config.sentences:
        outputs.append(Output(dataset=config.sentences, kind="annotations", schema=span_schema(f"low_{config.name}")))
    stage = Stage(
        job="score_quality",
        stage_id=stage_id("score_quality", VERSION, decisive, files),
        outputs=tuple(outputs),
        worker="jobs.score_quality:open_worker",
        worker_config=worker_settings(config, model),
        equations={
            "documents": Equation(total="rows", terms=("annotated", "failed")),
            **({"characters": Equation(total="in", terms=("out", "removed"))} if config.sentences else {}),
        },
        config=decisive,
        artifacts=tuple({"name": model.name, "version": model.manifest.version, "file": name, "sha256": digest}
                        for name, digest in sorted(files.items())),
        resources=Resources(num_cpus=config.num_cpus, num_gpus=config.num_gpus),
    )  # fmt: skip
    parents = [Parent(manifest=documents.manifest), Parent(manifest=model.manifest, role="model")]
    parents += [Parent(manifest=member.manifest, role="scores") for member in members]
    units = _joined(documents, members) if members else part_units(documents.parts())
    return list(run_stage(context, stage, units, parents=parents).values())


def plan(config: Config, context: Context, request: Request) -> Plan:
    """What scoring these documents will cost, told from a sample of their parts."""
    from jobs.score_plan import plan_scoring

    documents, model = context.open(config.documents), context.open(f"artifacts/{config.model}")
    return plan_scoring(documents, worker_settings(config, model), request)


def worker_settings(config: Config, model: Dataset) -> dict[str, Any]:
    """What a worker is told."""
    return {
        "model": model.name, "version": model.manifest.version, "output": config.output, "name": config.name,
        "sentences": config.sentences, "sentence_cut": config.sentence_cut, "sentence_least": config.sentence_least,
        "least_kept_share": config.least_kept_share, "on_gpu": config.num_gpus > 0, "batch_tokens": config.batch_tokens,
    }  # fmt: skip


def _joined(documents: Dataset, members: list[Dataset]) -> list[Unit]:
    """A unit a part, with the parts of the members' scores."""
    keys = {row["key"]: [] for row in documents.parts().to_pylist()}
    sums = {key: [] for key in keys}
    for member in members:
        for mine, theirs in aligned_parts(documents, member):
            keys[mine["key"]].append(theirs["key"])
            sums[mine["key"]].append(first_sha256(theirs))
    return [
        Unit(
            id=hash_unit(first_sha256(row), row["unit"], sums[row["key"]]),
            input=row["input"],
            size_bytes=row["bytes"],
            spec={"key": row["key"], "scores": keys[row["key"]]},
        )
        for row in documents.parts().drop_columns(["counters"]).to_pylist()
    ]


def open_worker(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """Load the model once; score a part at a time."""
    from pipelines.datasets.dataset import read_parquet

    artifact = open_dataset(store, worker_config["model"], worker_config["version"])
    names = artifact.parts("file")["input"].to_pylist()
    told = settings_of(names, artifact.read_file)
    schema = score_schema(worker_config["name"])
    combined = _combiner(told, store) if told["kind"] == "ensemble" else None
    scorer = None if combined else open_scorer(names, artifact.read_file, _forward(told, worker_config))

    def score(unit: Unit) -> UnitResult:
        documents = read_parquet(store.get(unit.spec["key"]), ["id"] if combined else ["id", "text"])
        scores = combined(unit, documents["id"]) if combined else scorer.scores(documents["text"])
        table = pa.table([documents["id"].combine_chunks(), scores], schema=schema)
        result = UnitResult(parts={worker_config["output"]: table})
        ids = [(document or "").encode() for document in documents["id"].to_pylist()]
        result.counters.add("documents.rows", ids)
        result.counters.add("documents.annotated", ids)
        result.stats = {"without_score": scores.null_count} | _histogram(scores)
        if worker_config["sentences"]:
            _add_sentences(result, documents, scorer, worker_config)
        return result

    return score


def _histogram(scores: pa.Array) -> dict[str, int]:
    """Documents by tenth of the score, for the manifest: `by_score.0.3` holds scores from 0.3 to below 0.4."""
    import numpy as np

    found = np.asarray(scores.drop_null())
    tenths = np.clip((found * 10 + 1e-9).astype(np.int64), 0, 9)
    return {f"by_score.0.{tenth}": int(n) for tenth, n in enumerate(np.bincount(tenths, minlength=10)) if n}


def _forward(told: dict[str, Any], worker_config: dict[str, Any]) -> Callable[..., Any] | None:
    if told["kind"] != "hf_classifier":
        return None
    from functools import partial

    from training.model.classifier import open_network

    return partial(open_network, on_gpu=worker_config["on_gpu"], batch_tokens=worker_config["batch_tokens"])


def _combiner(told: dict[str, Any], store: Store) -> Callable[[Unit, pa.ChunkedArray], pa.Array]:
    from pipelines.datasets.dataset import read_parquet
    from pipelines.quality.ensemble import combine

    def combined(unit: Unit, ids: pa.ChunkedArray) -> pa.Array:
        columns = []
        for key in unit.spec["scores"]:
            part = read_parquet(store.get(key))
            if part["id"].to_pylist() != ids.to_pylist():
                raise IntegrityError(f"{key}: other documents than the part it belongs to", key=key)
            columns.append(part[score_column(part.column_names)].combine_chunks())
        return combine(columns, told["edges"], told["how"])

    return combined


def _add_sentences(result: UnitResult, documents: pa.Table, scorer: Any, worker_config: dict[str, Any]) -> None:
    """The spans of low sentences, with their books."""
    import pyarrow.compute as pc

    from pipelines.dedup.spans import annotate_spans
    from pipelines.quality.sentences import low_sentences

    cut = worker_config["sentence_cut"]
    cut = scorer.cut if cut is None else cut
    if cut is None:
        raise ConfigError("the model has no cut of its own", mend="--set sentence_cut=0.3")
    spans, told = low_sentences(documents["text"], scorer, cut, worker_config["sentence_least"])
    characters = pc.fill_null(pc.utf8_length(documents["text"]), 0).to_pylist()
    family = f"low_{worker_config['name']}"
    table = annotate_spans(family, documents["id"], characters, spans, worker_config["least_kept_share"])
    result.parts[worker_config["sentences"]] = table
    removed = pc.sum(table[f"{family}.removed"]).as_py() or 0
    result.counters.add_count("characters.in", sum(characters))
    result.counters.add_count("characters.out", sum(characters) - removed)
    if removed:
        result.counters.add_count("characters.removed.low_sentence", removed)
    result.stats |= told


if __name__ == "__main__":
    job_main("score_quality")
