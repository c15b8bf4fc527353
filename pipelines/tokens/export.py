"""The vocabulary as Hugging Face's `tokenizer.json`, with the same ids.

Pieces are written with the space itself in the place of U+2581, and nothing is normalised, so that a U+2581 of the text
stays one. Each way in which two pieces make a third is a merge; those of the piece with the higher score come first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from pipelines.tokens.merges import SPACE_MARK
from pipelines.tokens.tokenizer import UNK_ID, Tokenizer
from pipelines.tokens.vocabulary import CONTROL, UNKNOWN, Vocabulary


def hugging_face_json(vocabulary: Vocabulary) -> bytes:
    """The file's bytes."""
    pieces = [piece.replace(SPACE_MARK, " ") for piece in vocabulary.pieces]
    normal = vocabulary.normal
    known = {pieces[i] for i in normal}
    merges = []
    for i in normal[np.argsort(-vocabulary.scores[normal], kind="stable")]:
        piece = pieces[i]
        splits = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
        merges += [list(split) for split in splits if split[0] in known and split[1] in known]
    special = np.flatnonzero((vocabulary.kinds == CONTROL) | (vocabulary.kinds == UNKNOWN)).tolist()
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    body = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": pieces[i], **flags} for i in special],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": pieces[UNK_ID],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece: i for i, piece in enumerate(pieces)},
            "merges": merges,
        },
    }
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


class HuggingFaceEncoder:
    """A `tokenizer.json` as the job's encoder: ids of texts, special tokens taken as plain text."""

    def __init__(self, body: bytes) -> None:
        """Load the file's bytes."""
        from tokenizers import Tokenizer as Loaded

        self._loaded = Loaded.from_str(body.decode())
        self._loaded.encode_special_tokens = True

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        return [found.ids for found in self._loaded.encode_batch_fast(list(texts), add_special_tokens=False)]


def differing(tokenizer: Tokenizer, body: bytes, texts: Sequence[str]) -> list[int]:
    """Numbers of the texts whose ids by the file are not those of the tokenizer."""
    found = HuggingFaceEncoder(body).encode_batch(texts)
    wanted = tokenizer.encode_batch(list(texts))
    return [i for i, (ours, theirs) in enumerate(zip(wanted, found, strict=True)) if ours != theirs]
