"""Documents to tokens: an Arrow column in, one flat array and lengths out, no Python object a document.

EOS ends each document and never stands inside one; the training rows find document borders by it. The books
are by token: what the tokenizer gave (in) is what is written (out) plus what was cut from over-long
documents.

The ids are SentencePiece's own. The kernel of `bpe` gives the same ones many times faster; texts of the risk classes
(NUL, the space mark U+2581, segments too long to be told from an attack) go to SentencePiece itself, and so does every
text where the vocabulary is not one that the kernel serves. `check_sample` compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import ConfigError, IntegrityError
from pipelines.tokens.export import HuggingFaceEncoder
from pipelines.tokens.merges import tables_of
from pipelines.tokens.tokenizer import BOS_ID, EOS_ID, RESERVED, Tokenizer

_SLICE_BYTES = 8 << 20  # of text encoded at once


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
    by_reference: int = 0  # documents that SentencePiece itself encoded


class Encoder:
    """A tokenizer for whole columns."""

    def __init__(self, tokenizer: Tokenizer, *, engine: str = "fast", exported: bytes = b"") -> None:
        """`engine`: `fast`, or `reference` for SentencePiece; with `exported`, a tokenizer.json, Hugging Face's.

        A vocabulary that the kernel does not serve is encoded by the reference; `reason` then says why.
        """
        self._encode_batch = HuggingFaceEncoder(exported).encode_batch if exported else tokenizer.encode_batch
        self.tokenizer, self.dtype = tokenizer, tokenizer.dtype
        self.reason, self._tables = "asked for", None
        if engine == "fast":
            try:
                self._tables = tables_of(tokenizer.model)
                self.reason = ""
            except IntegrityError as error:
                self.reason = str(error)
        self._known = np.zeros((0, 3), np.int64)
        self._scratch = np.zeros((2, 0), np.int64)

    def encode(self, texts: pa.Array | pa.ChunkedArray, rules: EncodeRules) -> Encoded:
        """Encode a column of texts; null and empty ones (a takedown's tombstones too) are left out.

        Raises IntegrityError for a text that is not UTF-8.
        """
        column = texts if isinstance(texts, pa.ChunkedArray) else pa.chunked_array([texts], texts.type)
        pieces = list(_slices(column))
        made = [self._encode_slice(piece, rules) for piece in pieces]
        firsts = np.cumsum([0, *map(len, pieces)])
        none = np.zeros(0, np.int64)
        return Encoded(
            tokens=np.concatenate([one.tokens for one in made]) if made else np.zeros(0, self.dtype),
            lengths=np.concatenate([none, *(one.lengths for one in made)]),
            rows=np.concatenate([none, *(one.rows + first for one, first in zip(made, firsts, strict=False))]),
            tokens_cut=np.concatenate([none, *(one.tokens_cut for one in made)]),
            by_reference=sum(one.by_reference for one in made),
        )

    def _encode_slice(self, texts: pa.Array, rules: EncodeRules) -> Encoded:
        sizes = pc.fill_null(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        rows = np.flatnonzero(sizes)
        if self._tables is None:
            ids = self._encode_batch([text for text in texts.to_pylist() if text])
            runs = [_framed(run, rules.bos, self.dtype) for run in ids]
            tokens, lengths = _joined(runs, self.dtype), np.array([len(run) for run in runs], np.int64)
            by_reference = len(runs)
        else:
            tokens, lengths, by_reference = self._encode_fast(texts, rows, rules.bos)
        tokens, lengths, cut = _cut(tokens, lengths, rules)
        return Encoded(tokens=tokens, lengths=lengths, rows=rows, tokens_cut=cut, by_reference=by_reference)

    def _encode_fast(self, texts: pa.Array, rows: np.ndarray, bos: bool) -> tuple[np.ndarray, np.ndarray, int]:
        from pipelines.tokens.bpe import KNOWN_SLOTS, NOT_UTF8, encode_column

        tables = self._tables
        assert tables is not None
        texts = pc.fill_null(texts, "").cast(pa.large_string())
        _, ends, body = texts.buffers()
        offsets = np.frombuffer(ends, np.int64)[texts.offset : texts.offset + len(texts) + 1]
        size = int(offsets[-1] - offsets[0])
        if not size:
            return np.zeros(0, self.dtype), np.zeros(0, np.int64), 0
        longest = int(np.diff(offsets).max())
        if self._scratch.shape[1] < longest + 1:
            self._scratch = np.zeros((2, longest + 1), np.int64)
        if not len(self._known):
            self._known = np.zeros((KNOWN_SLOTS, 3), np.int64)
        out = np.empty(size + 2 * len(texts), self.dtype)
        found, risks = np.empty(len(texts), np.int64), np.empty(len(texts), np.int64)
        written = encode_column(
            np.frombuffer(body, np.uint8), offsets,
            tables.symbols, tables.by_order, tables.pairs, tables.adjacent, tables.ascii_pairs,
            tables.byte_ids, tables.lone, tables.vocab_size,
            self._known, self._scratch[0], self._scratch[1], out, found, risks, BOS_ID if bos else -1, EOS_ID,
        )  # fmt: skip
        lengths = np.diff(found, prepend=0)[rows]
        risky = np.flatnonzero(risks[rows])
        if not len(risky):
            return out[:written].copy(), lengths, 0
        if (bad := np.flatnonzero(risks & NOT_UTF8)).size:
            raise IntegrityError(f"the text of row {bad[0]} is not UTF-8", mend="write the dataset's part anew")
        return self._by_reference(texts, rows, risky, out[:written], lengths, bos)

    def _by_reference(
        self, texts: pa.Array, rows: np.ndarray, risky: np.ndarray, tokens: np.ndarray, lengths: np.ndarray, bos: bool
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """The same with the reference's ids for the risky ones of the placed documents."""
        ends, at, runs = np.cumsum(lengths), 0, []
        for i in risky.tolist():
            runs.append(tokens[at : ends[i] - lengths[i]])
            runs.append(_framed(self.tokenizer.encode(texts[int(rows[i])].as_py()), bos, self.dtype))
            at, lengths[i] = ends[i], len(runs[-1])
        return _joined([*runs, tokens[at:]], self.dtype), lengths, len(risky)


def check_sample(
    encoder: Encoder, texts: pa.Array | pa.ChunkedArray, ids: pa.Array, encoded: Encoded, picked: np.ndarray
) -> int:
    """Compare the `picked` ones of the placed documents with SentencePiece; how many were compared.

    Raises IntegrityError, with the first document, where any id differs or the ids do not give back the text.
    """
    ends = np.cumsum(encoded.lengths)
    differ = []
    for i in picked.tolist():
        row, text = int(encoded.rows[i]), texts[int(encoded.rows[i])].as_py()
        found = encoded.tokens[ends[i] - encoded.lengths[i] : ends[i]]
        found = found[found >= RESERVED]
        wanted = np.array(encoder.tokenizer.encode(text), np.int64)
        if len(found) + encoded.tokens_cut[i] != len(wanted) or (found != wanted[: len(found)]).any():
            differ.append(row)
        elif encoder.tokenizer.decode(wanted) != text:
            raise IntegrityError(
                f"{ids[row].as_py()}: the tokens do not give back the text", mend="please report the document"
            )
    if differ:
        raise IntegrityError(
            f"{len(differ)} of {len(picked)} compared documents have other ids than SentencePiece gives; "
            f"the first is {ids[differ[0]].as_py()}",
            mend="--set encoder=reference encodes by SentencePiece alone; please report the document",
        )
    return len(picked)


def _slices(column: pa.ChunkedArray) -> Iterator[pa.Array]:
    """Pieces of about _SLICE_BYTES, by rows of even share."""
    for chunk in column.chunks:
        step = max(1, len(chunk) * _SLICE_BYTES // max(1, chunk.nbytes))
        for at in range(0, len(chunk), step):
            yield chunk[at : at + step]


def _framed(ids: Sequence[int], bos: bool, dtype: np.dtype) -> np.ndarray:
    run = np.empty(len(ids) + 1 + bos, dtype)
    run[bos:-1] = ids
    if (run[bos:-1] < RESERVED).any():
        raise IntegrityError("the tokenizer gave a reserved id for text", mend="train it with train_tokenizer")
    run[0] = BOS_ID if bos else run[0]
    run[-1] = EOS_ID
    return run


def _joined(runs: list[np.ndarray], dtype: np.dtype) -> np.ndarray:
    return np.concatenate(runs) if runs else np.zeros(0, dtype)


def _cut(tokens: np.ndarray, lengths: np.ndarray, rules: EncodeRules) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens and lengths without what is over the bound, and how much each lost; EOS stays."""
    bound = rules.max_document_tokens
    cut = np.maximum(lengths - 1 - rules.bos - bound, 0) if bound else np.zeros(len(lengths), np.int64)
    if not cut.any():
        return tokens, lengths, cut
    kept = np.ones(len(tokens), bool)
    ends = np.cumsum(lengths)
    for i in np.flatnonzero(cut).tolist():
        kept[ends[i] - 1 - cut[i] : ends[i] - 1] = False
    return tokens[kept], lengths - cut, cut
