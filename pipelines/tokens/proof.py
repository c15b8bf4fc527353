"""What is proven of a tokenizer before it is committed, on texts of the corpus."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.errors import IntegrityError
from pipelines.tokens.encode import Encoder, EncodeRules
from pipelines.tokens.export import differing
from pipelines.tokens.tokenizer import EOS_ID, Tokenizer

PROOF_BYTES = 4 << 20


def proof_texts(texts: Sequence[str]) -> list[str]:
    """The first distinct texts, of PROOF_BYTES in all; the sample stands in the order of hashes."""
    distinct = list(dict.fromkeys(text for text in texts if text))
    sizes = accumulate(len(text.encode()) for text in distinct)
    return [text for text, size in zip(distinct, sizes, strict=True) if size <= PROOF_BYTES] or distinct[:1]


def prove(tokenizer: Tokenizer, texts: Sequence[str], hugging_face: bytes) -> dict[str, Any]:
    """Facts for the manifest; IntegrityError where a text does not come back, or the encoder is not SentencePiece's.

    An exported file whose ids differ is a fact (`hugging_face_differs`), for the caller to leave it out.
    """
    wanted = tokenizer.encode_batch(list(texts))
    for text, ids in zip(texts, wanted, strict=True):
        if tokenizer.decode(ids) != text:
            raise IntegrityError(f"a text is not given back by its tokens: {text[:80]!r}")
    encoder = Encoder(tokenizer)
    encoded = encoder.encode(pa.array(texts, pa.large_string()), EncodeRules())
    flat = np.concatenate([np.append(ids, EOS_ID) for ids in wanted]) if wanted else np.zeros(0)
    if not np.array_equal(flat, encoded.tokens):
        raise IntegrityError("the fast encoder differs from SentencePiece", mend="please report it with the corpus")
    characters, tokens = sum(map(len, texts)), sum(map(len, wanted))
    return {
        "texts": len(texts),
        "characters": characters,
        "tokens_per_character": round(tokens / max(1, characters), 4),
        "encoder": "reference" if encoder.reason else "fast",
        "encoder_reason": encoder.reason,
        "hugging_face_differs": len(differing(tokenizer, hugging_face, texts)),
    }
