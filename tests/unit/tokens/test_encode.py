import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from pipelines.tokens.encode import EncodeRules, encode_documents
from pipelines.tokens.tokenizer import BOS_ID, EOS_ID, Tokenizer, train


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(train(["ab ab abc abd bcd ef gh " * 5, "中文字中文 字"] * 20, 275))


TEXTS = st.lists(st.one_of(st.none(), st.sampled_from(["", "</s>", "ab abc", "中文", "xyz\n\nab"])), max_size=8)


@settings(deadline=None)
@given(texts=TEXTS, bos=st.booleans(), bound=st.integers(0, 4))
def test_eos_ends_each_document_and_stands_nowhere_else(tokenizer, texts, bos, bound):
    encoded = encode_documents(tokenizer, pa.array(texts, pa.string()), EncodeRules(bos=bos, max_document_tokens=bound))
    ends = np.flatnonzero(encoded.tokens == EOS_ID)
    assert (ends + 1).tolist() == np.cumsum(encoded.lengths).tolist()
    assert (encoded.tokens == BOS_ID).sum() == bos * len(encoded.lengths)
    assert encoded.rows.tolist() == [i for i, text in enumerate(texts) if text]


@settings(deadline=None)
@given(texts=TEXTS, bound=st.integers(0, 4))
def test_tokens_in_are_tokens_out_and_cut(tokenizer, texts, bound):
    encoded = encode_documents(tokenizer, pa.array(texts, pa.string()), EncodeRules(max_document_tokens=bound))
    taken = sum(len(tokenizer.encode(text)) for text in texts if text)
    assert taken == (encoded.lengths - 1).sum() + encoded.tokens_cut.sum()
    if bound:
        assert (encoded.lengths <= bound + 1).all()


@settings(deadline=None)
@given(texts=TEXTS, cut=st.integers(0, 8))
def test_a_batch_may_be_cut_anywhere(tokenizer, texts, cut):
    column = pa.array(texts, pa.string())
    whole = encode_documents(tokenizer, column, EncodeRules())
    parts = [encode_documents(tokenizer, piece, EncodeRules()) for piece in (column[:cut], column[cut:])]
    assert np.concatenate([part.tokens for part in parts]).tolist() == whole.tokens.tolist()
    assert np.concatenate([part.lengths for part in parts]).tolist() == whole.lengths.tolist()


def test_an_uncut_document_decodes_to_its_text(tokenizer):
    encoded = encode_documents(tokenizer, pa.array(["ab 中文\n"]), EncodeRules(bos=True))
    assert encoded.tokens.dtype == np.dtype("<u2")
    assert tokenizer.decode(encoded.tokens) == "ab 中文\n"


def test_a_negative_bound_is_refused():
    with pytest.raises(ConfigError):
        EncodeRules(max_document_tokens=-1)
