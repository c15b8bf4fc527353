import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ConfigError, IntegrityError
from pipelines.tokens.encode import Encoder, EncodeRules, check_sample
from pipelines.tokens.tokenizer import BOS_ID, EOS_ID, Tokenizer, train
from pipelines.tokens.vocabulary import read_vocabulary, with_vocabulary
from tests.unit.tokens.test_tokenizer import corpus as vocabulary_texts


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(train(["ab ab abc abd bcd ef gh " * 5, "中文字中文 字"] * 20, 275))


@pytest.fixture(scope="module", params=["fast", "reference"])
def encoder(request, tokenizer):
    return Encoder(tokenizer, engine=request.param)


TEXTS = st.lists(st.one_of(st.none(), st.sampled_from(["", "</s>", "ab abc", "中文", "xyz\n\nab"])), max_size=8)


@settings(deadline=None)
@given(texts=TEXTS, bos=st.booleans(), bound=st.integers(0, 4))
def test_eos_ends_each_document_and_stands_nowhere_else(encoder, texts, bos, bound):
    encoded = encoder.encode(pa.array(texts, pa.string()), EncodeRules(bos=bos, max_document_tokens=bound))
    ends = np.flatnonzero(encoded.tokens == EOS_ID)
    assert (ends + 1).tolist() == np.cumsum(encoded.lengths).tolist()
    assert (encoded.tokens == BOS_ID).sum() == bos * len(encoded.lengths)
    assert encoded.rows.tolist() == [i for i, text in enumerate(texts) if text]


@settings(deadline=None)
@given(texts=TEXTS, bound=st.integers(0, 4))
def test_tokens_in_are_tokens_out_and_cut(tokenizer, encoder, texts, bound):
    encoded = encoder.encode(pa.array(texts, pa.string()), EncodeRules(max_document_tokens=bound))
    taken = sum(len(tokenizer.encode(text)) for text in texts if text)
    assert taken == (encoded.lengths - 1).sum() + encoded.tokens_cut.sum()
    if bound:
        assert (encoded.lengths <= bound + 1).all()


@settings(deadline=None)
@given(texts=TEXTS, cut=st.integers(0, 8))
def test_a_batch_may_be_cut_anywhere(encoder, texts, cut):
    column = pa.array(texts, pa.string())
    whole = encoder.encode(column, EncodeRules())
    parts = [encoder.encode(piece, EncodeRules()) for piece in (column[:cut], column[cut:])]
    assert np.concatenate([part.tokens for part in parts]).tolist() == whole.tokens.tolist()
    assert np.concatenate([part.lengths for part in parts]).tolist() == whole.lengths.tolist()


def test_an_uncut_document_decodes_to_its_text(tokenizer, encoder):
    encoded = encoder.encode(pa.array(["ab 中文\n"]), EncodeRules(bos=True))
    assert encoded.tokens.dtype == np.dtype("<u2")
    assert tokenizer.decode(encoded.tokens) == "ab 中文\n"


def test_a_negative_bound_is_refused():
    with pytest.raises(ConfigError):
        EncodeRules(max_document_tokens=-1)


HOSTILE = [
    "a" * 5000,
    " " * 3000 + "x",
    "=" * 700 + "-" * 700,
    "中" * 4000,
    "ab" * 3000,
    "ab abc " * 2000 + "\u2581 ab\u2581\u2581",
    "<s></s><unk><pad><filler><0x41><0x0A>\u2581<s>",
    "ab\x00cd\x00\x00 ab",
    "e\u0301\u0301\u0301" * 50 + "\u200d\ufeff\ufffd\ufe0f",
    "\U0010ffff\U00010000\ud7ff\ue000é𠮷😀",
    "\u0085\u2028\u2029\x0b\x0c\r\n\r\n\t\t",
]


def ids_of(encoded):
    starts = np.cumsum(encoded.lengths) - encoded.lengths
    return [encoded.tokens[at : at + n - 1].tolist() for at, n in zip(starts, encoded.lengths, strict=True)]


@pytest.fixture(scope="module")
def fuller():
    """A vocabulary with long pieces, runs of spaces and pieces across scripts' borders."""
    return Tokenizer(train(vocabulary_texts(), 1200, character_coverage=0.999))


@settings(deadline=None, max_examples=300)
@given(texts=st.lists(st.one_of(st.text(max_size=40), st.sampled_from(HOSTILE)), min_size=1, max_size=6))
def test_any_text_has_the_ids_that_sentencepiece_gives(fuller, texts):
    encoded = Encoder(fuller).encode(pa.array(texts), EncodeRules())
    assert ids_of(encoded) == [fuller.encode(text) for text in texts if text]


@settings(deadline=None, max_examples=200)
@given(rng=st.randoms(use_true_random=False), kind=st.booleans())
def test_texts_of_pieces_and_their_letters_have_the_ids_of_sentencepiece(fuller, rng, kind):
    pieces = [piece.replace("\u2581", " ") for piece in fuller.pieces()[261:] if len(piece) > 1 or kind]
    texts = ["".join(rng.choices(pieces, k=rng.randrange(1, 60))) for _ in range(20)]
    assert ids_of(Encoder(fuller).encode(pa.array(texts), EncodeRules())) == [fuller.encode(text) for text in texts]


def test_what_was_met_before_changes_nothing(fuller):
    encoder, texts = Encoder(fuller), pa.array(vocabulary_texts()[:50])
    first, again = encoder.encode(texts, EncodeRules()), encoder.encode(texts, EncodeRules())
    assert first.tokens.tolist() == again.tokens.tolist()
    assert len(set(ids_of(first)[0])) > 20


def test_a_megabyte_in_one_line_takes_no_longer_than_it_must(fuller):
    for text in ("a" * 1_000_000, "ab" * 500_000, "abcdefgh" * 125_000):
        encoded = Encoder(fuller).encode(pa.array([text]), EncodeRules())
        assert ids_of(encoded) == [fuller.encode(text)] and encoded.by_reference == (len(encoded.tokens) > 0)


def test_a_line_of_a_megabyte_of_prose_has_the_ids_of_sentencepiece(fuller):
    line = " ".join(text.replace("\n", " ") for text in vocabulary_texts())
    line = (line + "</s><0x0A>\U0001f600") * (1_000_000 // len(line) + 1)
    encoded = Encoder(fuller).encode(pa.array([line]), EncodeRules())
    assert len(line) >= 1_000_000 and ids_of(encoded) == [fuller.encode(line)] and encoded.by_reference == 0


def test_the_risk_classes_go_to_the_reference(fuller):
    texts = pa.array(["ab", None, "ab\x00cd", "a\u2581b", "", "<s>", "cd"])
    encoded = Encoder(fuller).encode(texts, EncodeRules())
    assert encoded.by_reference == 2 and encoded.rows.tolist() == [0, 2, 3, 5, 6]
    assert ids_of(encoded) == [fuller.encode(texts[row].as_py()) for row in encoded.rows.tolist()]


def test_bytes_that_are_no_text_are_refused(fuller):
    for body in (b"\xff", b"ab\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80", b"\xe4\xb8", b"a\x80"):
        column = pa.Array.from_buffers(
            pa.string(), 1, [None, pa.py_buffer(np.array([0, len(body)], np.int32)), pa.py_buffer(body)]
        )
        with pytest.raises(IntegrityError, match="UTF-8"):
            Encoder(fuller).encode(column, EncodeRules())


def test_equal_scores_are_left_to_the_reference(fuller):
    vocabulary = read_vocabulary(fuller.model)
    vocabulary.scores[-1] = vocabulary.scores[-2]
    tied = Encoder(Tokenizer(with_vocabulary(fuller.model, vocabulary)))
    assert "equal scores" in tied.reason
    assert tied.encode(pa.array(["ab abc"]), EncodeRules()).by_reference == 1


def test_a_sliced_column_is_encoded_as_it_reads(fuller):
    texts = pa.array(["xx", "ab cd", None, "", "ef ab", "yy"])
    for column in (texts[1:5], pa.chunked_array([texts[1:3], texts[3:5]]), texts[1:5].cast(pa.large_string())):
        encoded = Encoder(fuller).encode(column, EncodeRules())
        assert encoded.rows.tolist() == [0, 3] and ids_of(encoded) == [fuller.encode("ab cd"), fuller.encode("ef ab")]


def test_a_token_that_differs_from_the_reference_stops_the_check(fuller):
    encoder, texts, ids = Encoder(fuller), pa.array(["ab cd", "ef gh ab"]), pa.array(["one", "two"])
    for rules in (EncodeRules(), EncodeRules(bos=True, max_document_tokens=1)):
        encoded = encoder.encode(texts, rules)
        assert check_sample(encoder, texts, ids, encoded, np.arange(2)) == 2
        encoded.tokens[-2] += 1
        with pytest.raises(IntegrityError, match="two"):
            check_sample(encoder, texts, ids, encoded, np.arange(2))
