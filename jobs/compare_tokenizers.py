"""Compare the tokenizer with others on a sample of the corpus: how long texts become, by language and domain.

Commits an artifact: `report.json` (a row for each tokenizer and group), `report.md` (the table), `report.svg` (tokens a
character). Others are files: SentencePiece `.model`, Hugging Face `tokenizer.json`, tiktoken's ranks.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.runtime.artifacts import make_artifact
from jobs.runtime.config import content_config, setting, stage_id
from jobs.runtime.context import Context
from jobs.runtime.entry import job_main
from jobs.runtime.stage import Parent
from pipelines.datasets import Dataset
from pipelines.datasets.manifest import Manifest
from pipelines.errors import ConfigError, InputError

ENGINE = "process"
VERSION = 1
_COLUMNS = ["id", "text", "language", "source", "domain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of compare_tokenizers."""

    corpus: str = setting("corpus", "dataset to sample", content=False)
    tokenizer: str = setting("tokenizer", "artifact of train_tokenizer", content=False)
    output: str = setting("tokenizer-report", "artifact to write", content=False)
    others: dict[str, str] = setting(factory=dict, doc="names and files of the tokenizers to compare with")  # noqa: RUF009
    patterns: dict[str, str] = setting(  # noqa: RUF009
        factory=dict, doc="for a .tiktoken file by name: its pattern; default cl100k's, `single_digits`: Qwen's"
    )
    sample_bytes: int = setting(8 << 20, "text to compare on, at most")
    domains: int = setting(8, "domains of each language that are shown by themselves, the largest ones")
    seed: int = setting(0, "of the sample")

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def __post_init__(self) -> None:
        """Refuse a sample of nothing, and patterns of no file."""
        if self.sample_bytes < 1 or self.domains < 0:
            raise ConfigError("expected sample_bytes of 1 or more and domains of 0 or more")
        if unknown := set(self.patterns) - set(self.others):
            raise ConfigError(f"patterns name {sorted(unknown)}, which others do not")


def run(config: Config, context: Context) -> list[Manifest]:
    """Sample, encode by each, commit the report."""
    corpus = context.open(config.corpus)
    artifact = context.open(f"artifacts/{config.tokenizer}")
    try:
        hashes = {name: hashlib.sha256(Path(path).read_bytes()).hexdigest() for name, path in config.others.items()}
    except OSError as error:
        raise InputError(f"others: {error}", mend="give files that this machine has") from error
    manifest = make_artifact(
        context,
        config.output,
        "evaluation",
        job="compare_tokenizers",
        stage_id=stage_id("compare_tokenizers", VERSION, config, hashes),
        config=content_config(config),
        parents=[Parent(manifest=corpus.manifest), Parent(manifest=artifact.manifest, role="tokenizer")],
        make=lambda: _make(config, context, corpus, artifact),
    )
    return [manifest]


def _make(
    config: Config, context: Context, corpus: Dataset, artifact: Dataset
) -> tuple[dict[str, bytes], dict[str, Any]]:
    from pipelines.tokens.compare import as_markdown, as_svg, compare
    from pipelines.tokens.tokenizer import Tokenizer
    from pipelines.tokens.vocabularies import CL100K, SINGLE_DIGITS, ComparedTokenizer, read_tokenizer
    from pipelines.tokens.vocabulary import BYTE, read_vocabulary

    model = artifact.read_file("tokenizer.model")
    ours, vocabulary = Tokenizer(model), read_vocabulary(model)
    tokenizers = [
        ComparedTokenizer(
            name=config.tokenizer,
            size=ours.vocab_size,
            encode=lambda texts: ours.encode_batch(list(texts)),
            byte_ids=frozenset((vocabulary.kinds == BYTE).nonzero()[0].tolist()),
        )
    ]
    for name, path in config.others.items():
        pattern = config.patterns.get(name, CL100K)
        pattern = SINGLE_DIGITS if pattern == "single_digits" else pattern
        tokenizers.append(read_tokenizer(name, Path(path), pattern))
    groups = _groups(config, corpus)
    rows = compare(groups, tokenizers)
    for row in rows:
        if row["group"] == "all":
            context.progress.say(
                f"{row['tokenizer']} ({row['vocabulary']:,}): {row['tokens_per_character']} tokens a character, "
                f"{row['bytes_per_token']} bytes a token, {100 * row['byte_share']:.1f}% bytes"
            )
    report = {"groups": {name: len(texts) for name, texts in groups.items()}, "rows": rows}
    files = {
        "report.json": json.dumps(report, ensure_ascii=False, indent=1).encode(),
        "report.md": as_markdown(rows).encode(),
        "report.svg": as_svg(rows).encode(),
    }
    return files, {"rows": [row for row in rows if row["group"] == "all"]}


def _groups(config: Config, corpus: Dataset) -> dict[str, list[str]]:
    """Texts of the sample by `language/domain`; those of small domains under `language/(others)`."""
    from pipelines.tokens.sampling import group_fractions, group_sizes, id_hash

    sizes = group_sizes(corpus.batches(["text", "language", "source"]))
    fractions = group_fractions(sizes, config.sample_bytes)
    taken: list[tuple[str, str, str]] = []
    for batch in corpus.batches(_COLUMNS):
        columns = (batch[name].to_pylist() for name in ("id", "language", "source", "domain"))
        for i, (document, language, source, domain) in enumerate(zip(*columns, strict=True)):
            wanted = fractions.get((language or "", source or ""), 0.0)
            if id_hash(document, config.seed) < wanted * 2.0**64 and (text := batch["text"][i].as_py()):
                taken.append((language or "unknown", domain or "unknown", text))
    heavy: Counter[tuple[str, str]] = Counter()
    for language, domain, text in taken:
        heavy[language, domain] += len(text)
    shown = set()
    for language in {language for language, _, _ in taken}:
        ranked = sorted((key for key in heavy if key[0] == language), key=lambda key: (-heavy[key], key))
        shown |= set(ranked[: config.domains])
    groups: dict[str, list[str]] = {}
    for language, domain, text in sorted(taken):
        name = f"{language}/{domain if (language, domain) in shown else '(others)'}"
        groups.setdefault(name, []).append(text)
    return dict(sorted(groups.items()))


if __name__ == "__main__":
    job_main("compare_tokenizers")
