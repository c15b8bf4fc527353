"""Train the tokenizer on a sample of the corpus and commit it as an artifact.

The sample is drawn by a hash of the document's id, by language and source: in stated shares, else with small groups
favoured. One process: the order of the sample and the number of threads are fixed, so the same corpus gives the same
pieces. Before the commit it is proven on texts of the sample that they come back from their tokens, that the fast
encoder gives SentencePiece's ids, and that the exported `tokenizer.json` does; a file that does not is left out, and
the manifest says on how many texts it differed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.runtime.artifacts import make_artifact
from jobs.runtime.config import content_config, setting, stage_id
from jobs.runtime.context import Context
from jobs.runtime.entry import job_main
from jobs.runtime.stage import Parent
from pipelines.datasets import Dataset
from pipelines.datasets.manifest import Manifest, latest_manifest
from pipelines.errors import ConfigError, IntegrityError
from pipelines.tokens.lineage import extends

ENGINE = "process"
VERSION = 2
_COLUMNS = ["id", "text", "language", "source"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of train_tokenizer."""

    corpus: str = setting("corpus", "dataset to read", content=False)
    output: str = setting("tokenizer", "artifact to write", content=False)
    vocab_size: int = setting(65_536, "ids in all, the reserved ones and 256 bytes included")
    reserved: int = setting(0, "ids more that stand for no text, for later use")
    character_coverage: float = setting(0.9995, "share of the characters that get a piece of their own")
    sample_bytes: int = setting(64 << 20, "text to learn from, at most")
    shares: dict[str, float] = setting(  # noqa: RUF009
        doc="weights of languages (zh) or their sources (zh/crawl) in the sample; empty: by size, small ones favoured",
        factory=dict,
    )
    most_repeats: float = setting(8.0, "how often a document is read where its share asks for more than there is")
    traditional: float = setting(0.0, "share of the Chinese documents that are read in traditional characters as well")
    extend: str = setting("", "a SentencePiece .model file whose vocabulary is extended; empty: train in one go")
    seed: int = setting(0, "of the sample")
    retrain: bool = setting(
        False, "train anew when the corpus has only grown; every token is then encoded anew", content=False
    )

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def __post_init__(self) -> None:
        """Refuse what no corpus could give."""
        if not 0.98 <= self.character_coverage <= 1.0:
            raise ConfigError(f"character_coverage is {self.character_coverage}; expected a fraction in [0.98, 1]")
        if self.sample_bytes < 1:
            raise ConfigError(f"sample_bytes is {self.sample_bytes}; expected 1 or more")
        if self.reserved < 0 or self.most_repeats < 1 or not 0 <= self.traditional <= 1:
            raise ConfigError("expected reserved >= 0, most_repeats >= 1, traditional in [0, 1]")
        if any(share <= 0 for share in self.shares.values()):
            raise ConfigError(f"shares are {self.shares}; expected weights above 0")


def run(config: Config, context: Context) -> list[Manifest]:
    """Sample, train, prove, commit."""
    corpus = context.open(config.corpus)
    base = _read_base(config.extend)
    stage = stage_id("train_tokenizer", VERSION, config, {"extend": hashlib.sha256(base).hexdigest()} if base else {})
    if (kept := _kept(config, context, stage, corpus.manifest)) is not None:
        return [kept]
    manifest = make_artifact(
        context,
        config.output,
        "tokenizer",
        job="train_tokenizer",
        stage_id=stage,
        config=content_config(config),
        parents=[Parent(manifest=corpus.manifest)],
        make=lambda: _make(config, context, corpus, base),
    )
    if base:
        context.progress.say(_told(manifest.stats["extended"]))
    return [manifest]


def _read_base(path: str) -> bytes:
    if not path:
        return b""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"extend is {path}: {error.strerror}", mend="give a SentencePiece .model file") from error


def _make(config: Config, context: Context, corpus: Dataset, base: bytes) -> tuple[dict[str, bytes], dict[str, Any]]:
    from pipelines.tokens.export import hugging_face_json
    from pipelines.tokens.proof import proof_texts, prove
    from pipelines.tokens.sampling import (
        group_fractions,
        group_sizes,
        learning_texts,
        sample,
        stated_fractions,
    )
    from pipelines.tokens.tokenizer import Tokenizer, reserved_ids, train
    from pipelines.tokens.vocabulary import model_hash, read_vocabulary

    sizes = group_sizes(corpus.batches(["text", "language", "source"]))
    if config.shares:
        fractions = stated_fractions(sizes, config.shares, config.sample_bytes, config.most_repeats)
    else:
        fractions = group_fractions(sizes, config.sample_bytes)
    documents = sample(corpus.batches(_COLUMNS), fractions, config.seed)
    model = train(
        learning_texts(documents, config.traditional),
        config.vocab_size,
        character_coverage=config.character_coverage,
        reserved=config.reserved,
    )
    shown = proof_texts([document.text for document in documents])
    stats: dict[str, Any] = {}
    if base:
        model, stats["extended"] = _extended(base, model, config.vocab_size, shown)

    vocabulary = read_vocabulary(model)
    if not vocabulary.has_distinct_scores:
        raise IntegrityError("the trained pieces have equal scores", mend="please report it with the corpus")
    tokenizer, exported = Tokenizer(model), hugging_face_json(vocabulary)
    proof = prove(tokenizer, shown, exported)
    files = {"tokenizer.model": model}
    if proof["hugging_face_differs"]:
        context.progress.say(
            f"no tokenizer.json: {proof['hugging_face_differs']} of {proof['texts']} texts differ by it"
        )
    else:
        files["tokenizer.json"] = exported
    stats |= {
        "vocab_size": tokenizer.vocab_size,
        "model_hash": model_hash(model),
        **reserved_ids(),
        "reserved": config.reserved,
        "proof": proof,
        "sample_documents": len(documents),
        "sample_bytes": sum(len(document.text.encode()) * document.times for document in documents),
        "sample_fractions": {f"{language}/{source}": round(f, 4) for (language, source), f in fractions.items()},
    }
    return files, stats


def _extended(base: bytes, learned: bytes, vocab_size: int, texts: list[str]) -> tuple[bytes, dict[str, Any]]:
    """The extended model, and what it costs beside the base and beside training in one go."""
    import sentencepiece

    from pipelines.tokens.extend import extend_vocabulary
    from pipelines.tokens.tokenizer import Tokenizer
    from pipelines.tokens.vocabulary import read_vocabulary, with_vocabulary

    old, new = read_vocabulary(base), read_vocabulary(learned)
    made = extend_vocabulary(old, new, vocab_size)
    model = with_vocabulary(learned, made)
    before = sentencepiece.SentencePieceProcessor(model_proto=base)
    characters = max(1, sum(map(len, texts)))

    def rate(encoded: list[list[int]]) -> float:
        return round(sum(map(len, encoded)) / characters, 4)

    return model, {
        "pieces_kept": len(old.normal),
        "pieces_new": len(made.normal) - len(old.normal),
        "ids_kept": made.pieces[: len(old.pieces)] == old.pieces,
        "ties_in_base": len(old.normal) - len({float(score) for score in old.scores[old.normal]}),
        "tokens_per_character_base": rate(before.encode(texts, out_type=int, num_threads=1)),
        "tokens_per_character": rate(Tokenizer(model).encode_batch(texts)),
        "tokens_per_character_in_one_go": rate(Tokenizer(learned).encode_batch(texts)),
    }


def _told(made: dict[str, Any]) -> str:
    """What extending cost, for a person."""
    return (
        f"extended by {made['pieces_new']} pieces to {made['pieces_kept']} ({made['ties_in_base']} had tied scores): "
        f"{made['tokens_per_character']} tokens a character, {made['tokens_per_character_base']} before, "
        f"{made['tokens_per_character_in_one_go']} when trained in one go"
    )


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
