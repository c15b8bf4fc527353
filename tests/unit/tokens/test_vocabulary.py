import numpy as np
import pytest

from pipelines.errors import IntegrityError
from pipelines.tokens.tokenizer import Tokenizer, train
from pipelines.tokens.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, model_hash, read_vocabulary, with_vocabulary
from tests.unit.tokens.test_tokenizer import corpus


@pytest.fixture(scope="module")
def model():
    return train(corpus(), 1200)


def test_the_same_texts_give_the_same_model(model):
    again = train(corpus(), 1200)
    assert model_hash(again) == model_hash(model)
    assert model_hash(train(corpus(1), 1200)) != model_hash(model)


def test_the_hash_leaves_out_how_the_model_was_trained(model):
    trainer_spec = bytes([2 << 3 | 2, 3]) + b"abc"
    assert model_hash(model + trainer_spec) == model_hash(model)
    with pytest.raises(IntegrityError):
        model_hash(b"\x0d123")


def test_the_pieces_are_those_that_sentencepiece_reads(model):
    found, tokenizer = read_vocabulary(model), Tokenizer(model)
    assert list(found.pieces) == tokenizer.pieces()
    kinds = [UNKNOWN if i == 1 else CONTROL if i < 5 else BYTE if i < 261 else NORMAL for i in range(1200)]
    assert found.kinds.tolist() == kinds and found.has_distinct_scores


def test_writing_the_pieces_back_changes_nothing(model):
    assert model_hash(with_vocabulary(model, read_vocabulary(model))) == model_hash(model)


def test_equal_scores_are_seen(model):
    found = read_vocabulary(model)
    found.scores[-1] = found.scores[-2]
    assert not found.has_distinct_scores
    assert not read_vocabulary(with_vocabulary(model, found)).has_distinct_scores
    assert np.isfinite(found.scores).all()


def test_a_file_that_is_cut_off_is_refused(model):
    with pytest.raises(IntegrityError):
        read_vocabulary(model[:-3])
