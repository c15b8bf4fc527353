"""Documents to tokens: an Arrow batch in, one flat array and lengths out.

EOS ends each document and never stands inside one; the training rows find document borders by it. The books
are by token: what the tokenizer gave (in) is what is written (out) plus what was cut from over-long
documents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.errors import ConfigError, IntegrityError
from pipelines.tokens.tokenizer import BOS_ID, EOS_ID, RESERVED, Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeRules:
    """How a document becomes a run of tokens."""

    bos: bool = False  # Megatron's own preprocessing writes EOS alone
    max_document_tokens: int = 0  # of text, BOS and EOS not counted; 0: no bound

    def __post_init__(self) -> None:
        """Refuse a negative bound."""
        if self.max_document_tokens < 0:
            raise ConfigError(f"max_document_tokens is {self.max_document_tokens}; expected 0 (no bound) or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Tokens of the documents of a batch that have any text, in the batch's order."""

    tokens: np.ndarray  # flat, in the tokenizer's dtype
    lengths: np.ndarray  # (placed,) int64, BOS and EOS included
    rows: np.ndarray  # (placed,) int64 rows of the batch; the others are empty
    tokens_cut: np.ndarray  # (placed,) int64


def encode_documents(tokenizer: Tokenizer, texts: pa.Array | pa.ChunkedArray, rules: EncodeRules) -> Encoded:
    """Encode a column of texts; null and empty ones (a takedown's tombstones too) are left out."""
    dtype, bound = tokenizer.dtype, rules.max_document_tokens
    values = texts.to_pylist()
    rows = [row for row, text in enumerate(values) if text]
    runs, cut = [], []
    for ids in tokenizer.encode_batch([values[row] for row in rows]):
        kept = ids[:bound] if bound else ids
        cut.append(len(ids) - len(kept))
        run = np.empty(len(kept) + 1 + rules.bos, dtype)
        run[rules.bos : -1] = kept
        if rules.bos:
            run[0] = BOS_ID
        run[-1] = EOS_ID
        runs.append(run)
        if (run[rules.bos : -1] < RESERVED).any():
            raise IntegrityError("the tokenizer gave a reserved id for text", mend="train it with train_tokenizer")
    return Encoded(
        tokens=np.concatenate(runs) if runs else np.zeros(0, dtype),
        lengths=np.array([len(run) for run in runs], np.int64),
        rows=np.array(rows, np.int64),
        tokens_cut=np.array(cut, np.int64),
    )
