"""Score every document with the quality classifier: annotations beside the documents, nothing is removed here.

Ray actors hold the model; a unit is a part of the documents and gives one part of annotations, row by row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs.runtime.config import content_config, setting, stage_id
from jobs.runtime.context import Context
from jobs.runtime.entry import job_main
from jobs.runtime.run import run_stage
from jobs.runtime.stage import Output, Parent, Stage, Unit, UnitResult, part_units
from pipelines.datasets import open_dataset
from pipelines.datasets.books import Equation
from pipelines.datasets.manifest import Manifest
from pipelines.datasets.store import Store

ENGINE = "ray"
VERSION = 1
SCORES = pa.schema(
    [
        pa.field("id", pa.string(), metadata={"doc": "document id, as a check of the alignment"}),
        pa.field("quality.fasttext", pa.float64(), metadata={"doc": "P(good) on 1e-4; null without words"}),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of score_quality."""

    documents: str = setting("documents", "dataset to read", content=False)
    model: str = setting("quality_model", "artifact of train_quality", content=False)
    output: str = setting("quality", "annotations to write", content=False)

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


def run(config: Config, context: Context) -> list[Manifest]:
    """A unit for each part of the documents."""
    documents = context.open(config.documents)
    model = context.open(f"artifacts/{config.model}")
    (file,) = model.parts("file").to_pylist()
    stage = Stage(
        job="score_quality",
        stage_id=stage_id("score_quality", VERSION, config, {"model": file["sha256"]}),
        outputs=(Output(dataset=config.output, kind="annotations", schema=SCORES),),
        worker="jobs.score_quality:open_worker",
        worker_config={"model": model.name, "version": model.manifest.version, "output": config.output},
        equations={"documents": Equation(total="rows", terms=("annotated", "failed"))},
        config=content_config(config),
        artifacts=({"name": model.name, "sha256": file["sha256"]},),
    )
    parents = [Parent(manifest=documents.manifest), Parent(manifest=model.manifest, role="model")]
    return list(run_stage(context, stage, part_units(documents.parts()), parents=parents).values())


def open_worker(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """Load the model once; score a part at a time."""
    from pipelines.datasets.dataset import read_parquet
    from pipelines.quality.score import QualityModel, score_column

    artifact = open_dataset(store, worker_config["model"], worker_config["version"])
    model = QualityModel(artifact.read_file("model.bin"))

    def score(unit: Unit) -> UnitResult:
        documents = read_parquet(store.get(unit.spec["key"]), ["id", "text"])
        scores = score_column(model, documents["text"])
        table = pa.table([documents["id"].combine_chunks(), scores], schema=SCORES)
        result = UnitResult(parts={worker_config["output"]: table})
        ids = [(document or "").encode() for document in documents["id"].to_pylist()]
        result.counters.add("documents.rows", ids)
        result.counters.add("documents.annotated", ids)
        result.stats = {"without_score": scores.null_count}
        return result

    return score


if __name__ == "__main__":
    job_main("score_quality")
