import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ConfigError, InputError, IntegrityError
from pipelines.tokens.tokenizer import EOS_ID, RESERVED, Tokenizer, shard_dtype, train

HAN = [chr(code) for code in range(0x4E00, 0x4F00)]


def corpus(seed=0):
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randrange(2, 8))) for _ in range(300)]
    texts = []
    for i in range(400):
        texts.append(" ".join(rng.choices(words, k=30)) + f"\n\tdef f{i}():\n        return {i}\n")
        texts.append("".join(rng.choices(HAN, k=60)) + "。\n" + "".join(rng.choices(HAN, k=40)))
    return texts


@pytest.fixture(scope="module")
def model():
    return train(corpus(), 1200)


@pytest.fixture(scope="module")
def tokenizer(model):
    return Tokenizer(model)


TEXT = st.one_of(
    st.text(max_size=60),
    st.text(alphabet=st.sampled_from("ab 12\u2581\n\r\t\x00<>/s中一丁é😀"), max_size=40),
    st.sampled_from(["</s>", "<s>", "<unk>", "<pad>", "<filler>", "<0x0A>", "\u2581", "  ", " \u2581 ", "\ufffd"]),
)


@settings(deadline=None, max_examples=300)
@given(text=TEXT)
def test_decoding_gives_back_the_very_text(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(deadline=None, max_examples=300)
@given(text=TEXT)
def test_no_text_is_encoded_with_a_reserved_id(tokenizer, text):
    assert all(RESERVED <= token < tokenizer.vocab_size for token in tokenizer.encode(text))


@settings(deadline=None)
@given(texts=st.lists(TEXT, max_size=6), cut=st.integers(0, 6))
def test_a_batch_may_be_cut_anywhere(tokenizer, texts, cut):
    alone = [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch(texts[:cut]) + tokenizer.encode_batch(texts[cut:]) == alone


def test_every_digit_is_a_token(tokenizer):
    pieces = tokenizer.pieces()
    assert not [piece for piece in pieces[RESERVED + 256 :] if re.search(r"\d.|.\d", piece)]


def test_what_a_model_never_saw_goes_by_its_bytes(tokenizer):
    assert len(tokenizer.encode("𠮷")) == 4


def test_reserved_ids_are_nothing_when_decoded(tokenizer):
    assert tokenizer.decode([0, 2, *tokenizer.encode("ab cd"), EOS_ID, 4]) == "ab cd"


def test_too_small_a_vocabulary_names_the_smallest_size():
    with pytest.raises(ConfigError, match=r"need at least (\d+)") as caught:
        train(corpus(), 300)
    least = int(re.search(r"at least (\d+)", str(caught.value))[1])
    assert Tokenizer(train(corpus(), least)).vocab_size == least
    with pytest.raises(ConfigError):
        train(corpus(), least - 1)


def test_too_large_a_vocabulary_names_the_largest_size():
    with pytest.raises(ConfigError, match="no more than"):
        train(["abc abc abd"], 5000)


def test_no_text_is_an_input_error():
    with pytest.raises(InputError):
        train(["", "\n"], 1000)


def test_something_else_than_our_model_is_refused():
    with pytest.raises(IntegrityError):
        Tokenizer(b"nonsense")


def test_shards_have_two_bytes_a_token_where_every_id_fits(tokenizer):
    assert tokenizer.dtype == "<u2"
    assert [shard_dtype(size) for size in (65_500, 65_536, 65_537)] == ["<u2", "<u2", "<i4"]
