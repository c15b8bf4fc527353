"""Train the tokenizer on a sample of the corpus and commit it as an artifact.

The sample is drawn by a hash of the document's id, by language and source, with small groups favoured. One
process: the order of the sample and the number of threads are fixed, so the same corpus gives the same
pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

from jobs.runtime.artifacts import make_artifact
from jobs.runtime.config import content_config, setting, stage_id
from jobs.runtime.context import Context
from jobs.runtime.entry import job_main
from jobs.runtime.stage import Parent
from pipelines.datasets.manifest import Manifest, latest_manifest
from pipelines.errors import ConfigError
from pipelines.tokens.lineage import extends

ENGINE = "process"
VERSION = 1
_COLUMNS = ["id", "text", "language", "source"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of train_tokenizer."""

    corpus: str = setting("corpus", "dataset to read", content=False)
    output: str = setting("tokenizer", "artifact to write", content=False)
    vocab_size: int = setting(8192, "ids in all, the reserved ones and 256 bytes included")
    character_coverage: float = setting(0.9995, "share of the characters that get a piece of their own")
    sample_bytes: int = setting(64 << 20, "text to learn from, at most")
    seed: int = setting(0, "of the sample")
    retrain: bool = setting(
        False, "train anew when the corpus has only grown; every token is then encoded anew", content=False
    )

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def __post_init__(self) -> None:
        """Refuse what no corpus could give."""
        if not 0.9 <= self.character_coverage <= 1.0:
            raise ConfigError(f"character_coverage is {self.character_coverage}; expected a fraction in [0.9, 1]")
        if self.sample_bytes < 1:
            raise ConfigError(f"sample_bytes is {self.sample_bytes}; expected 1 or more")


def run(config: Config, context: Context) -> list[Manifest]:
    """Sample, train, commit."""
    from pipelines.tokens.sampling import group_fractions, group_sizes, sample
    from pipelines.tokens.tokenizer import Tokenizer, reserved_ids, train
    from pipelines.tokens.vocabulary import model_hash

    corpus = context.open(config.corpus)
    stage = stage_id("train_tokenizer", VERSION, config)
    if (kept := _kept(config, context, stage, corpus.manifest)) is not None:
        return [kept]

    def make() -> tuple[dict[str, bytes], dict[str, object]]:
        sizes = group_sizes(corpus.batches(["text", "language", "source"]))
        fractions = group_fractions(sizes, config.sample_bytes)
        texts = sample(corpus.batches(_COLUMNS), fractions, config.seed)
        model = train(texts, config.vocab_size, character_coverage=config.character_coverage)
        tokenizer = Tokenizer(model)
        stats: dict[str, object] = {
            "vocab_size": tokenizer.vocab_size,
            "model_hash": model_hash(model),
            **reserved_ids(),
            "sample_documents": len(texts),
            "sample_bytes": sum(len(text.encode()) for text in texts),
            "sample_fractions": {f"{language}/{source}": round(f, 4) for (language, source), f in fractions.items()},
        }
        return {"tokenizer.model": model}, stats

    manifest = make_artifact(
        context,
        config.output,
        "tokenizer",
        job="train_tokenizer",
        stage_id=stage,
        config=content_config(config),
        parents=[Parent(manifest=corpus.manifest)],
        make=make,
    )
    return [manifest]


def _kept(config: Config, context: Context, stage: str, corpus: Manifest) -> Manifest | None:
    """The tokenizer in use, where these settings made it of a version of the corpus that this one extends.

    With it an appended crawl only adds token shards; another tokenizer would encode everything anew.
    """
    latest = latest_manifest(context.store, f"artifacts/{config.output}")
    if config.retrain or latest is None or latest.stage_id != stage:
        return None
    if corpus.sha256 == latest.parents[0]["manifest_sha256"] or not extends(context.store, corpus, latest.parents[0]):
        return None
    context.progress.say(
        f"{latest.name} v{latest.version} is kept: it learned from {corpus.name} v{latest.parents[0]['version']}, "
        f"which v{corpus.version} extends (--set retrain=true trains anew)"
    )
    return latest


if __name__ == "__main__":
    job_main("train_tokenizer")
