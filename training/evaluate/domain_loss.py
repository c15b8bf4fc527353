"""Loss and bits per byte of held-out documents, by domain; every document whole, none truncated.

A document longer than the context is read in sliding windows: each token is scored exactly once, with at
least half a context before it (but for those of the first window). Bits per byte compare models with
different tokenizers; the bytes are those of the scored tokens. The first token of a document has no context
and no label in training either: it is not scored, unless documents begin with BOS.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from pipelines.errors import InputError
from training.data.rows import IGNORED
from training.model.decoder import Decoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Tokens [start, end) of a document as input; those from `first_scored` on count."""

    start: int
    end: int
    first_scored: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Sums over documents; `loss` is nats a token."""

    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0
    nll: float = 0.0

    def __add__(self, other: Score) -> Score:
        """Sums add."""
        return Score(
            documents=self.documents + other.documents,
            tokens=self.tokens + other.tokens,
            text_bytes=self.text_bytes + other.text_bytes,
            nll=self.nll + other.nll,
        )

    @property
    def loss(self) -> float:
        """Nats a token; NaN without tokens."""
        return self.nll / self.tokens if self.tokens else math.nan

    @property
    def bits_per_byte(self) -> float:
        """Bits a byte of text; NaN without bytes."""
        return self.nll / math.log(2) / self.text_bytes if self.text_bytes else math.nan

    def to_json(self) -> dict[str, float | int | None]:
        """Numbers rounded to four digits; null where there are none."""
        ratios = {"loss": self.loss, "bits_per_byte": self.bits_per_byte}
        rounded = {name: None if math.isnan(value) else round(value, 4) for name, value in ratios.items()}
        return {"documents": self.documents, "tokens": self.tokens, "bytes": self.text_bytes, **rounded}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedDocument:
    """A document's token ids with the bytes that each stands for, and the domains it counts in."""

    ids: Sequence[int]
    token_bytes: Sequence[int]
    domains: tuple[str, ...]


def windows(tokens: int, context: int) -> Iterator[Window]:
    """Windows of at most `context` tokens that score each of tokens 1..n-1 exactly once."""
    if context < 2:
        raise InputError(f"a context of {context} tokens scores nothing; expected at least 2")
    end = min(tokens, context)
    yield Window(start=0, end=end, first_scored=1)
    while end < tokens:
        start = end - context // 2
        scored, end = end, min(tokens, start + context)
        yield Window(start=start, end=end, first_scored=scored)


def score_documents(
    model: Decoder, documents: Iterable[EncodedDocument], *, context: int, rows: int = 8
) -> dict[str, Score]:
    """Sums by domain, and over all documents under ""; `rows` windows go through the model at a time."""
    totals: dict[str, Score] = {}
    waiting: list[tuple[EncodedDocument, Window]] = []

    def count(document: EncodedDocument, score: Score) -> None:
        for domain in ("", *document.domains):
            totals[domain] = totals.get(domain, Score()) + score

    def drain() -> None:
        for (document, window), nll in zip(waiting, _window_losses(model, waiting), strict=True):
            scored = window.end - window.first_scored
            size = sum(document.token_bytes[window.first_scored : window.end])
            count(document, Score(tokens=scored, text_bytes=size, nll=nll))
        waiting.clear()

    for document in documents:
        count(document, Score(documents=1))
        for window in windows(len(document.ids), context):
            if window.end > window.first_scored:
                waiting.append((document, window))
            if len(waiting) == rows:
                drain()
    drain()
    return totals


def _window_losses(model: Decoder, batch: list[tuple[EncodedDocument, Window]]) -> list[float]:
    """Sum of the losses of the scored tokens of each window."""
    if not batch:
        return []
    length = max(window.end - window.start for _, window in batch)
    ids = np.zeros((len(batch), length), dtype=np.int64)
    labels = np.full((len(batch), length), IGNORED, dtype=np.int64)
    for i, (document, window) in enumerate(batch):
        ids[i, : window.end - window.start] = document.ids[window.start : window.end]
        # The label of token t - 1 is token t; what comes after the window is padding, which no token sees.
        first, last = window.first_scored - window.start, window.end - window.start
        labels[i, first - 1 : last - 1] = document.ids[window.first_scored : window.end]
    positions = torch.arange(length).expand(len(batch), length)
    documents = torch.zeros((len(batch), length), dtype=torch.long)
    with torch.no_grad():
        losses = model.token_losses(torch.from_numpy(ids), positions, documents, torch.from_numpy(labels))
    return losses.double().sum(dim=1).tolist()


def encode_document(
    ids: Sequence[int], piece_bytes: Sequence[int], domains: tuple[str, ...], *, bos_id: int | None
) -> EncodedDocument:
    """A document for scoring; `piece_bytes[id]` is how many bytes of text a token stands for."""
    document = EncodedDocument(ids=list(ids), token_bytes=[piece_bytes[i] for i in ids], domains=domains)
    if bos_id is None:
        return document
    return replace(document, ids=[bos_id, *document.ids], token_bytes=[0, *document.token_bytes])


def bytes_of_pieces(pieces: Sequence[str]) -> list[int]:
    """UTF-8 bytes of text behind each SentencePiece piece: a byte piece is one, the space mark stands for a space."""
    sizes = []
    for piece in pieces:
        is_byte = len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
        sizes.append(1 if is_byte else len(piece.replace("\u2581", " ").encode()))
    return sizes
