"""Train the quality classifier on labelled pages and commit it as an artifact, with its precision and recall.

The pages are a file of JSON lines, zstd-compressed or plain: {"text", "label": "good" or "bad", "language",
"domain"}. One process and one thread: fastText makes another model each time with more.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.runtime.artifacts import make_artifact
from jobs.runtime.config import content_config, setting, stage_id
from jobs.runtime.context import Context
from jobs.runtime.entry import job_main
from pipelines.datasets.manifest import Manifest
from pipelines.errors import InputError

if TYPE_CHECKING:
    from pipelines.quality.train import LabelledPage

ENGINE = "process"
VERSION = 1
SAMPLE = Path("tests", "sample", "quality.jsonl.zst")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of train_quality."""

    examples: str = setting(str(SAMPLE), "file of labelled pages; relative to here or the repository", content=False)
    output: str = setting("quality_model", "artifact to write", content=False)
    dimensions: int = setting(16, "numbers in a word's vector")
    epochs: int = setting(25, "passes over the pages")
    learning_rate: float = setting(0.5, "of fastText, at the start")
    word_ngrams: int = setting(2, "longest run of words that is a feature")
    buckets: int = setting(65536, "hash buckets of the runs of words")
    min_count: int = setting(2, "a rarer word is not learned")
    test_fraction: float = setting(0.2, "share of the domains that is kept for the test")
    seed: int = setting(0, "of the split and of fastText")

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


def run(config: Config, context: Context) -> list[Manifest]:
    """Read, train, commit."""
    from pipelines.quality.train import QualityRules, train

    body = _read(config.examples)
    settings = content_config(config)

    def make() -> tuple[dict[str, bytes], dict[str, object]]:
        model, metrics = train(parse_pages(body, config.examples), QualityRules(**settings))
        return {"model.bin": model}, metrics

    manifest = make_artifact(
        context,
        config.output,
        "quality_model",
        job="train_quality",
        stage_id=stage_id("train_quality", VERSION, config),
        config=settings,
        inputs=[hashlib.sha256(body).hexdigest()[:32]],
        make=make,
    )
    stats = manifest.stats
    context.progress.say(
        f"{config.output}: precision {stats['precision']}, recall {stats['recall']} "
        f"on {stats['test_pages']} pages of other domains"
    )
    return [manifest]


def parse_pages(body: bytes, name: str) -> list[LabelledPage]:
    """Labelled pages of a file; InputError that names the line which is not one."""
    from pipelines.quality.train import LabelledPage

    pages = []
    for number, line in enumerate(io.BytesIO(body), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            pages.append(LabelledPage(**{key: str(row[key]) for key in ("text", "label", "language", "domain")}))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{name}, line {number}: no labelled page: {error!r}",
                mend='each line is {"text": ..., "label": "good" or "bad", "language": ..., "domain": ...}',
            ) from None
    return pages


def _read(name: str) -> bytes:
    import zstandard

    places = [Path(name), Path(__file__).resolve().parents[1] / name]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise InputError(f"no file {name}", mend="give labelled pages with --set examples=FILE.jsonl.zst")
    body = path.read_bytes()
    if path.suffix != ".zst":
        return body
    try:
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body)).read()
    except zstandard.ZstdError as error:
        raise InputError(f"{path} is no zstd file: {error}") from error


if __name__ == "__main__":
    job_main("train_quality")
