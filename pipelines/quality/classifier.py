"""A BERT-class scorer: tokens of its own tokenizer in batches of like length, through a network that is handed in.

What runs the network is not known here. The batches of a part depend on its texts alone, so the same part gives the
same numbers on the same kind of machine; between CPU and GPU a score may differ by a step of the grid.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from pipelines.errors import ConfigError, IntegrityError
from pipelines.quality.scorers import FORMAT

MAX_TOKENS = 512
_CHARACTERS_A_TOKEN = 12  # what is read of a text, at most, for each token that the network takes


class Network(Protocol):
    """(batch, tokens) ids and mask, int64 -> (batch, labels) float32 logits; `batch_tokens` bounds a batch."""

    batch_tokens: int

    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Which number of the logits is the score.

    With `low` and `high` a regression: its one output, from low = 0 to high = 1. Else the probability of `label`, by
    softmax, or of the only output by its sigmoid.
    """

    label: int = 0
    low: float | None = None
    high: float | None = None

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """(n, labels) -> (n,) in [0, 1]."""
        wide = logits.astype(np.float64)
        if self.low is not None and self.high is not None:
            return np.clip((wide[:, 0] - self.low) / (self.high - self.low), 0.0, 1.0)
        if wide.shape[1] == 1:
            return 1.0 / (1.0 + np.exp(-np.clip(wide[:, 0], -60, 60)))
        shifted = np.exp(wide - wide.max(axis=1, keepdims=True))
        return shifted[:, self.label] / shifted.sum(axis=1)


def length_batches(lengths: np.ndarray, most_tokens: int) -> Iterator[np.ndarray]:
    """Places in batches of like length: count x longest is at most `most_tokens`, or a batch is one text."""
    order = np.argsort(-lengths, kind="stable")
    at = 0
    while at < len(order):
        count = max(1, most_tokens // max(1, int(lengths[order[at]])))
        yield order[at : at + count]
        at += count


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierScorer:
    """A loaded classifier."""

    network: Network
    tokenizer: Any
    judgement: Judgement
    max_tokens: int
    pad: int
    cut: float | None = None

    def scores(self, texts: pa.Array | pa.ChunkedArray) -> pa.DoubleArray:
        """(n,) -> (n,) on 1e-4; null for null and for text of white space."""
        bound = self.max_tokens * _CHARACTERS_A_TOKEN
        given = [(text or "")[:bound] for text in texts.to_pylist()]
        known = np.array([bool(text.strip()) for text in given], bool)
        made = np.zeros(len(given))
        where = np.flatnonzero(known)
        encoded = self.tokenizer.encode_batch_fast([given[at] for at in where.tolist()])
        ids = [e.ids for e in encoded]
        for batch in length_batches(np.array([len(i) for i in ids], np.int64), self.network.batch_tokens):
            longest = max(len(ids[at]) for at in batch)
            block = np.full((len(batch), longest), self.pad, np.int64)
            mask = np.zeros((len(batch), longest), np.int64)
            for row, at in enumerate(batch.tolist()):
                block[row, : len(ids[at])] = ids[at]
                mask[row, : len(ids[at])] = 1
            made[where[batch]] = self.judgement.scores(self.network(block, mask))
        return pa.array(np.round(made, 4), mask=~known)


def open_classifier(
    told: dict[str, Any], read: Callable[[str], bytes], forward: Callable[[dict[str, Any], bytes], Network]
) -> ClassifierScorer:
    """The scorer of an artifact: quality.json (`told`), config.json, tokenizer.json, model.safetensors."""
    from tokenizers import Tokenizer

    config = json.loads(read("config.json"))
    tokenizer = Tokenizer.from_str(read("tokenizer.json").decode("utf-8"))
    max_tokens = int(told["max_tokens"])
    tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    return ClassifierScorer(
        network=forward(config, read("model.safetensors")),
        tokenizer=tokenizer,
        judgement=Judgement(label=told["label"], low=told.get("low"), high=told.get("high")),
        max_tokens=max_tokens,
        pad=int(config.get("pad_token_id") or 0),
    )


def classifier_settings(
    config: dict[str, Any], *, label: str, low: float | None, high: float | None, max_tokens: int
) -> dict[str, Any]:
    """The quality.json of an imported classifier; `label` is a name of id2label or a number, "" the last one."""
    names = {int(k): str(v) for k, v in (config.get("id2label") or {}).items()}
    count = int(config.get("num_labels") or len(names) or 2)
    if (low is None) != (high is None) or (low is not None and high is not None and high <= low):
        raise ConfigError(f"low is {low} and high is {high}", mend="give both, low below high: 0 and 5")
    if low is not None and count != 1:
        raise ConfigError(f"a range for a model of {count} labels", mend="a range is for regressions, of one output")
    numbers = {name: number for number, name in names.items()} | {str(n): n for n in range(count)}
    if label and label not in numbers:
        raise ConfigError(f"the model has no label {label!r}", mend=f"its labels: {', '.join(sorted(numbers))}")
    offset = 2 if str(config.get("model_type", "")).endswith(("roberta", "camembert")) else 0
    room = int(config.get("max_position_embeddings", MAX_TOKENS)) - offset
    if room < 1 or max_tokens < 1:
        raise IntegrityError(f"the model has room for {room} tokens")
    return {
        "format": FORMAT,
        "kind": "hf_classifier",
        "label": numbers[label] if label else count - 1,
        "low": low,
        "high": high,
        "max_tokens": min(max_tokens, room),
        "labels": names,
    }
