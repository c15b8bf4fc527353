"""The tokenizer: one SentencePiece BPE, trained in one go, lossless for any text.

Digits are split, unknown characters fall back to bytes, nothing is normalised and no space is added or taken
away, so that decoding gives back the very text. Two things of SentencePiece are mended here: it uses U+2581
for the space and so cannot tell the two apart (ours goes by its bytes), and its model file records details of
the run (the model is known by a hash of its pieces, scores and normaliser instead).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator

import numpy as np
import sentencepiece

from pipelines.errors import ConfigError, InputError, IntegrityError

PAD_ID, UNK_ID, BOS_ID, EOS_ID, FILLER_ID = range(5)
RESERVED = 5  # none of these ids is ever the encoding of a text
_SPACE_MARK = "\u2581"
_NUM_THREADS = 4  # fixed, so that the model never depends on the machine
_PASSAGE = 4000  # characters


def reserved_ids() -> dict[str, int]:
    """The ids that stand for no text, by the names under which manifests hold them."""
    return {"pad_id": PAD_ID, "unk_id": UNK_ID, "bos_id": BOS_ID, "eos_id": EOS_ID, "filler_id": FILLER_ID}


def shard_dtype(vocab_size: int) -> np.dtype:
    """The dtype of token shards: uint16 where every id fits, which is what Megatron-Core reads as well as int32."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<i4")


def train(texts: Iterable[str], vocab_size: int, *, character_coverage: float = 0.9995, reserved: int = 0) -> bytes:
    """The SentencePiece model of `texts`; the same texts in the same order, the same pieces.

    Line ends are learned like letters, so a piece may end a line; runs of spaces are pieces too. `reserved` ids more
    than the five of ours stand for no text, for whoever fine-tunes the model.

    Raises ConfigError where `vocab_size` is below what the characters need or above what the text gives; the
    message names the bound. Raises InputError where there is no text.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_passages(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            split_digits=True,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            max_sentence_length=4 * _PASSAGE + 1,
            num_threads=_NUM_THREADS,
            pad_id=PAD_ID,
            unk_id=UNK_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            pad_piece="<pad>",
            control_symbols=["<filler>", *(f"<reserved_{i}>" for i in range(reserved))],
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _training_error(str(error), vocab_size) from error
    return model.getvalue()


def _passages(texts: Iterable[str]) -> Iterator[str]:
    """Text without NUL or the space mark, nothing so long that the trainer would drop it."""
    for text in texts:
        for plain in re.split(r"[\x00\u2581]+", text):
            for start in range(0, len(plain), _PASSAGE):
                yield plain[start : start + _PASSAGE]


def _training_error(message: str, vocab_size: int) -> Exception:
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return ConfigError(
            f"vocab_size is {vocab_size}; the characters of this corpus need at least {found[1]}",
            mend=f"set vocab_size to {found[1]}, or lower character_coverage (the rest goes by bytes)",
        )
    if found := re.search(r"too high \(\d+\).*<= (\d+)", message):
        return ConfigError(
            f"vocab_size is {vocab_size}; this text gives no more than {found[1]} pieces",
            mend=f"set vocab_size to {found[1]} or less, or give it more text",
        )
    if "sentences_.empty()" in message:
        return InputError("the tokenizer has no text to learn from", mend="look at the corpus: is it empty?")
    return InputError(f"SentencePiece could not train: {message}")


class Tokenizer:
    """A trained model; encodes without reserved ids and decodes to the same text."""

    def __init__(self, model: bytes) -> None:
        """Load the bytes of a `.model` file; IntegrityError where it is not one of ours."""
        self.model = model
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise IntegrityError(f"not a SentencePiece model ({len(model)} bytes): {error}") from error
        found = [self._model.id_to_piece(i) for i in range(min(RESERVED, self._model.vocab_size()))]
        if found[PAD_ID] != "<pad>" or self._model.eos_id() != EOS_ID or found[-1] != "<filler>":
            raise IntegrityError(
                f"the model's first pieces are {found}; expected <pad> <unk> <s> </s> <filler>",
                mend="use a tokenizer made by train_tokenizer",
            )
        self._mark = [self._model.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE_MARK.encode()]

    @property
    def vocab_size(self) -> int:
        """Number of ids, the reserved ones included."""
        return self._model.vocab_size()

    @property
    def dtype(self) -> np.dtype:
        """The shards' dtype for this vocabulary."""
        return shard_dtype(self.vocab_size)

    def encode(self, text: str) -> list[int]:
        """Ids of the text; none below RESERVED."""
        if _SPACE_MARK in text:
            return self._encode_marked(text)
        return self._model.encode(text, out_type=int)  # a list of one would start a thread

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, as if encoded alone."""
        if not texts:
            return []
        encoded = self._model.encode(texts, out_type=int, num_threads=1)
        for i, text in enumerate(texts):
            if _SPACE_MARK in text:
                encoded[i] = self._encode_marked(text)
        return encoded

    def _encode_marked(self, text: str) -> list[int]:
        first, *rest = self._model.encode(text.split(_SPACE_MARK), out_type=int, num_threads=1)
        for piece in rest:
            first += self._mark
            first += piece
        return first

    def decode(self, ids: Iterable[int]) -> str:
        """The text; reserved ids give nothing."""
        return self._model.decode([int(i) for i in ids if i >= RESERVED])

    def pieces(self) -> list[str]:
        """The piece of each id."""
        return [self._model.id_to_piece(i) for i in range(self.vocab_size)]
