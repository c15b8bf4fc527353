"""The pieces of a SentencePiece model file, read and written without the library: what decides the ids.

Of ModelProto: field 1 is a piece (1 text, 2 score as a little-endian float, 3 kind), repeated in the order of the ids;
2 how it was trained, 3 the normaliser, 4 a self test, 5 the denormaliser.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipelines.errors import IntegrityError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_FLOAT = struct.Struct("<f")
_PIECE, _NORMALIZER, _DENORMALIZER = 1, 3, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Pieces by id. A space is written U+2581 in them, as SentencePiece does."""

    pieces: tuple[str, ...]
    scores: np.ndarray  # (n,) float32; a higher one is merged first
    kinds: np.ndarray  # (n,) uint8

    @property
    def normal(self) -> np.ndarray:
        """(k,) int64 ids of the pieces that merging makes."""
        return np.flatnonzero(self.kinds == NORMAL)

    @property
    def has_distinct_scores(self) -> bool:
        """Whether no two pieces that merging makes have one score: only then is the order of merges plain."""
        scores = self.scores[self.normal]
        return len(np.unique(scores)) == len(scores)


def read_vocabulary(model: bytes) -> Vocabulary:
    """The pieces of a `.model` file; IntegrityError where it is not one."""
    pieces, scores, kinds = [], [], []
    for field, body in _fields(model):
        if field == _PIECE:
            text, score, kind = _read_piece(body)
            pieces.append(text)
            scores.append(score)
            kinds.append(kind)
    return Vocabulary(pieces=tuple(pieces), scores=np.array(scores, np.float32), kinds=np.array(kinds, np.uint8))


def _read_piece(body: bytes) -> tuple[str, float, int]:
    size = body[1] if len(body) > 1 else 0
    if size < 0x80 and len(body) == size + 7 and body[0] == 0x0A and body[size + 2] == 0x15:  # as nearly all are
        return body[2 : size + 2].decode("utf-8", "replace"), _FLOAT.unpack_from(body, size + 3)[0], NORMAL
    text, score, kind = b"", 0.0, NORMAL
    at = 0
    while at < len(body):
        tag, at = _varint(body, at)
        if tag == 0x0A:
            size, at = _varint(body, at)
            text, at = body[at : at + size], at + size
        elif tag == 0x15 and at + 4 <= len(body):
            (score,), at = _FLOAT.unpack_from(body, at), at + 4
        elif tag == 0x18:
            kind, at = _varint(body, at)
        else:
            raise IntegrityError(f"not a SentencePiece model: tag {tag} in a piece")
    return text.decode("utf-8", "replace"), score, kind


def with_vocabulary(model: bytes, vocabulary: Vocabulary) -> bytes:
    """The model with these pieces in the place of its own; all else as it was."""
    made = [
        _encode_field(_PIECE, _encode_piece(text, float(score), int(kind)))
        for text, score, kind in zip(vocabulary.pieces, vocabulary.scores, vocabulary.kinds, strict=True)
    ]
    return b"".join(made + [_encode_field(field, body) for field, body in _fields(model) if field != _PIECE])


def model_hash(model: bytes) -> str:
    """sha256 of the model's pieces (with scores and kinds), normaliser, denormaliser: what decides the ids."""
    digest = hashlib.sha256()
    for field, body in _fields(model):
        if field in (_PIECE, _NORMALIZER, _DENORMALIZER):
            digest.update(bytes([field]) + len(body).to_bytes(8, "little") + body)
    return digest.hexdigest()


def _encode_piece(text: str, score: float, kind: int) -> bytes:
    body = text.encode()
    made = b"\x0a" + _encode_varint(len(body)) + body + b"\x15" + struct.pack("<f", score)
    return made if kind == NORMAL else made + b"\x18" + _encode_varint(kind)


def _encode_field(field: int, body: bytes) -> bytes:
    return _encode_varint(field << 3 | 2) + _encode_varint(len(body)) + body


def _encode_varint(value: int) -> bytes:
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _fields(model: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(model):
        tag, at = _varint(model, at)
        if tag & 7 != 2:
            raise IntegrityError(f"not a SentencePiece model: wire type {tag & 7} at byte {at}, expected 2")
        size, at = _varint(model, at)
        if at + size > len(model):
            raise IntegrityError("not a SentencePiece model: cut off within a field")
        yield tag >> 3, model[at : at + size]
        at += size


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(body) and shift < 64:
        value |= (body[at] & 0x7F) << shift
        at += 1
        if body[at - 1] < 0x80:
            return value, at
        shift += 7
    raise IntegrityError("not a SentencePiece model: cut off within a number")
