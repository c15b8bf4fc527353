"""Evaluate a run's newest checkpoint on held-out documents: loss and bits per byte by language and source,
samples.

One process reads the checkpoint's weights (no DeepSpeed, no Ray) and scores every held-out document whole,
in sliding windows. What it finds is the artifact `evaluation`, named by the checkpoint that it judges.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.pretrain_begin import newest_run
from jobs.runtime.artifacts import make_artifact
from jobs.runtime.config import content_config, setting, stage_id
from jobs.runtime.context import Context
from jobs.runtime.entry import job_main
from jobs.runtime.stage import Parent
from pipelines.datasets import Dataset, open_dataset
from pipelines.datasets.manifest import Manifest
from pipelines.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pipelines.tokens.tokenizer import Tokenizer
    from training.evaluate.domain_loss import EncodedDocument
    from training.model.decoder import Decoder

ENGINE = "process"
VERSION = 1
FORMAT = "gristmill.evaluation/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of evaluate_model."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012
    run: str = setting("tiny", "run to evaluate; of NAME, NAME-2, ... the newest one on these tokens", content=False)
    heldout: str = setting("heldout", "documents that no training saw", content=False)
    tokens: str = setting("tokens", "token shards of the run", content=False)
    output: str = setting("evaluation", "artifact to write", content=False)
    document_fraction: float = setting(
        1.0, "share of the held-out documents that is scored, by hash of id, above 0 to 1"
    )
    samples: int = setting(4, "texts to generate, from the beginnings of held-out documents")
    prompt_tokens: int = setting(12, "tokens of the document that a sample goes on from")
    new_tokens: int = setting(48, "tokens to generate a sample, at most")
    temperature: float = setting(0.8, "of the samples; 0 takes the likeliest token")
    seed: int = setting(1, "of the samples")
    threads: int = setting(1, "of torch; one gives the same digits on any machine of a kind", content=False)
    rows: int = setting(8, "windows that go through the model at once", content=False)

    def __post_init__(self) -> None:
        """Refuse a share outside its bounds."""
        if not 0 < self.document_fraction <= 1 or self.temperature < 0 or self.prompt_tokens < 1:
            raise ConfigError(
                f"document_fraction {self.document_fraction}, temperature {self.temperature}, prompt_tokens "
                f"{self.prompt_tokens}; expected a fraction in (0, 1], no negative temperature, a token of prompt"
            )


def run(config: Config, context: Context) -> list[Manifest]:
    """Find the checkpoint, score, commit."""
    from training.run_log import RunLog

    heldout, tokens = context.open(config.heldout), context.open(config.tokens)
    name = newest_run(context.store, config.run, tokens.manifest.sha256)
    state = RunLog(context.store, name or config.run).state
    if name is None or state.checkpoint is None:
        raise InputError(
            f"run {config.run!r} has no checkpoint in {context.root}", mend="train it first: `gristmill run pretrain`"
        )
    checkpoint_sha256 = state.checkpoint["sha256"]
    manifest = make_artifact(
        context,
        config.output,
        "evaluation",
        job="evaluate_model",
        stage_id=stage_id("evaluate_model", VERSION, config),
        config=content_config(config),
        parents=[Parent(manifest=heldout.manifest), Parent(manifest=tokens.manifest, role="tokens")],
        inputs=[checkpoint_sha256[:32]],
        make=lambda: _evaluate(config, context, heldout, name, state),
    )
    stats = manifest.stats
    context.progress.say(
        f"run {stats['run']['name']}, step {stats['run']['step']}: loss {stats['all']['loss']}, "
        f"{stats['all']['bits_per_byte']} bits a byte on {stats['all']['documents']} held-out documents"
    )
    return [manifest]


def _evaluate(
    config: Config, context: Context, heldout: Dataset, name: str, state: Any
) -> tuple[dict[str, bytes], dict[str, Any]]:
    import torch

    from pipelines.tokens.tokenizer import Tokenizer
    from training.checkpoint.reader import CheckpointReader
    from training.checkpoint.saved import load_decoder
    from training.evaluate.domain_loss import score_documents

    torch.set_num_threads(config.threads)
    reader = CheckpointReader(context.store, state.checkpoint["key"], state.checkpoint["sha256"])
    model = load_decoder(reader)
    pin = state.plan.segments[-1].datasets[0]
    shards = open_dataset(context.store, pin.name, pin.version).manifest.stats
    made_by = shards["tokenizer"]
    artifact = open_dataset(context.store, made_by["name"], made_by["version"])
    tokenizer = Tokenizer(artifact.read_file("tokenizer.model"))
    length = state.plan.segments[-1].sequence_length
    bos_id = made_by["bos_id"] if shards.get("bos") else None
    openings: dict[str, list[EncodedDocument]] = {}
    documents = _keep_openings(_documents(config, heldout, tokenizer, bos_id), openings, config.samples)
    scores = score_documents(model, documents, context=length, rows=config.rows)
    if not scores:
        raise InputError(f"{heldout.name} v{heldout.manifest.version} has no documents", mend="a larger crawl")
    result: dict[str, Any] = {
        "format": FORMAT,
        "run": _run_facts(context, name, state),
        "context_tokens": length,
        "all": scores[""].to_json(),
        "domains": [
            {"name": domain.replace("=", " "), **scores[domain].to_json()}
            for domain in sorted(scores)
            if domain and scores[domain].tokens
        ],
        "samples": _samples(config, model, tokenizer, openings, length, made_by),
    }
    result["sample"] = next((sample["prompt"] + sample["text"] for sample in result["samples"]), None)
    # A checkpoint's key names its attempt, which differs from run to run: it stands in the manifest alone.
    equal = {**result, "run": {key: value for key, value in result["run"].items() if key != "checkpoint"}}
    return {"evaluation.json": (json.dumps(equal, ensure_ascii=False, indent=1) + "\n").encode()}, result


def _documents(config: Config, heldout: Dataset, tokenizer: Tokenizer, bos_id: int | None) -> Iterator[EncodedDocument]:
    """Held-out documents with text, encoded, in the dataset's order."""
    from pipelines.tokens.sampling import id_hash
    from training.evaluate.domain_loss import bytes_of_pieces, encode_document

    sizes = bytes_of_pieces(tokenizer.pieces())
    for batch in heldout.batches(["id", "text", "language", "source"]):
        chosen = [
            row
            for row in batch.to_pylist()
            if row["text"] and id_hash(row["id"], config.seed) < config.document_fraction * 2**64
        ]
        for row, ids in zip(chosen, tokenizer.encode_batch([row["text"] for row in chosen]), strict=True):
            domains = (f"language={row['language'] or 'unknown'}", f"source={row['source'] or 'unknown'}")
            yield encode_document(ids, sizes, domains, bos_id=bos_id)


def _keep_openings(
    documents: Iterator[EncodedDocument], openings: dict[str, list[EncodedDocument]], most: int
) -> Iterator[EncodedDocument]:
    """Pass documents on; the first of each language stay in `openings`, for the samples."""
    for document in documents:
        kept = openings.setdefault(document.domains[0], [])
        if len(kept) < most:
            kept.append(document)
        yield document


def _run_facts(context: Context, name: str, state: Any) -> dict[str, Any]:
    """Which run at which step, and how its loss went."""
    from training.metrics import read_metrics

    at = state.checkpoint
    seen = [line for line in read_metrics(context.store, name) if line["step"] <= at["step"]]
    losses = {"first_loss": round(seen[0]["loss"], 4), "last_loss": round(seen[-1]["loss"], 4)} if seen else {}
    facts = {"name": name, "step": at["step"], "steps": at["step"], "tokens": at["trained_tokens"]}
    return {**facts, "checkpoint": at["key"], "rows_digest": at["digest"], **losses}


def _samples(
    config: Config,
    model: Decoder,
    tokenizer: Tokenizer,
    openings: dict[str, list[EncodedDocument]],
    length: int,
    made_by: dict[str, Any],
) -> list[dict[str, str]]:
    """Texts that go on from the beginnings of documents, languages in turn."""
    from training.evaluate.generate import generate

    turns = [d for i in range(config.samples) for group in openings.values() for d in group[i : i + 1]]
    forbidden = [made_by[name] for name in ("pad_id", "bos_id", "filler_id")]
    samples = []
    for i, document in enumerate(turns[: config.samples]):
        prompt = list(document.ids[: config.prompt_tokens])
        ids = generate(
            model,
            prompt,
            new_tokens=config.new_tokens,
            context=length,
            eos_id=made_by["eos_id"],
            forbidden=forbidden,
            temperature=config.temperature,
            seed=config.seed + i,
        )
        language = document.domains[0].removeprefix("language=")
        samples.append({"language": language, "prompt": tokenizer.decode(prompt), "text": tokenizer.decode(ids)})
    return samples


if __name__ == "__main__":
    job_main("evaluate_model")
