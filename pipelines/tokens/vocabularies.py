"""Tokenizers of any make as one thing: texts in, ids out. Read from their own files, nothing is fetched.

SentencePiece `.model`, Hugging Face `tokenizer.json`, and tiktoken's rank files (base64 of a token, its rank), which
need the pattern that their maker splits texts by: it is not in the file.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import InputError

Encode = Callable[[Sequence[str]], list[list[int]]]
# tiktoken's cl100k_base; with single digits it is that of Qwen.
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SINGLE_DIGITS = CL100K.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedTokenizer:
    """A tokenizer to compare."""

    name: str
    size: int
    encode: Encode
    byte_ids: frozenset[int]  # tokens that are single bytes beyond ASCII, or byte fallbacks


def read_tokenizer(name: str, path: Path, pattern: str = CL100K) -> ComparedTokenizer:
    """A tokenizer from its file; InputError where it cannot be read. `pattern` is for tiktoken's files only."""
    try:
        body = path.read_bytes()
    except OSError as error:
        raise InputError(f"tokenizer {name}: {path}: {error.strerror}") from error
    try:
        if path.suffix == ".json":
            return _hugging_face(name, body)
        if path.suffix == ".tiktoken":
            return _tiktoken(name, body, pattern)
        return _sentencepiece(name, body)
    except InputError:
        raise
    except Exception as error:  # each library has its own for a file that is not its own
        raise InputError(
            f"tokenizer {name}: {path} cannot be read: {error}",
            mend="give a SentencePiece .model, a tokenizer.json, or a .tiktoken file; a pointer file is not one",
        ) from error


def _sentencepiece(name: str, body: bytes) -> ComparedTokenizer:
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_proto=body)
    return ComparedTokenizer(
        name=name,
        size=model.vocab_size(),
        encode=lambda texts: model.encode(list(texts), out_type=int, num_threads=1),
        byte_ids=frozenset(i for i in range(model.vocab_size()) if model.is_byte(i)),
    )


def _hugging_face(name: str, body: bytes) -> ComparedTokenizer:
    from tokenizers import Tokenizer

    return _loaded(name, Tokenizer.from_str(body.decode()))


def _loaded(name: str, model: Any) -> ComparedTokenizer:
    model.encode_special_tokens = True
    letters = _byte_letters()
    beyond = {letters[byte] for byte in range(128, 256)}
    byte_ids = {i for piece, i in model.get_vocab().items() if piece in beyond or _is_fallback(piece)}
    return ComparedTokenizer(
        name=name,
        size=model.get_vocab_size(),
        encode=lambda texts: [e.ids for e in model.encode_batch_fast(list(texts), add_special_tokens=False)],
        byte_ids=frozenset(byte_ids),
    )


def _is_fallback(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def _tiktoken(name: str, body: bytes, pattern: str) -> ComparedTokenizer:
    """By the library that is here for other files: a rank says when two tokens merge, as a list of merges does."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in body.splitlines() if line)}
    if not ranks:
        raise InputError(f"tokenizer {name}: the file is empty")
    letters = _byte_letters()
    written = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            parts = _parts(ranks, token, rank)
            if len(parts) == 2:
                merges.append((written[parts[0]], written[parts[1]]))
    model = Tokenizer(models.BPE({written[token]: rank for token, rank in ranks.items()}, merges))
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    model.decoder = decoders.ByteLevel()
    return _loaded(name, model)


def _parts(ranks: dict[bytes, int], token: bytes, below: int) -> list[bytes]:
    """What the token is made of just before its own merge."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        found = [(ranks.get(parts[i] + parts[i + 1], below), i) for i in range(len(parts) - 1)]
        rank, at = min(found)
        if rank >= below:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _byte_letters() -> list[str]:
    """The letter that byte-level vocabularies write for each byte (GPT-2's table)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [letters[byte] for byte in range(256)]
