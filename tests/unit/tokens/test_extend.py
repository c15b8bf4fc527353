import itertools

import pytest

from pipelines.errors import ConfigError
from pipelines.tokens.encode import Encoder
from pipelines.tokens.extend import distinct_scores, extend_vocabulary
from pipelines.tokens.tokenizer import Tokenizer, train
from pipelines.tokens.vocabulary import read_vocabulary, with_vocabulary
from tests.unit.tokens.test_tokenizer import corpus


@pytest.fixture(scope="module")
def base():
    return train([text for text in corpus() if text.isascii()], 700)


@pytest.fixture(scope="module")
def learned():
    return train(corpus(), 1200)


def test_an_extended_vocabulary_keeps_every_id_and_merges_in_one_order(base, learned):
    old = read_vocabulary(base)
    made = extend_vocabulary(old, read_vocabulary(learned), 1100)
    assert made.pieces[:700] == old.pieces and len(made.pieces) == 1100 == len(set(made.pieces))
    assert made.has_distinct_scores
    tokenizer = Tokenizer(with_vocabulary(learned, made))
    assert Encoder(tokenizer).reason == ""
    for text in corpus(3)[:40]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
        if text.isascii():
            assert len(tokenizer.encode(text)) <= 1.2 * len(Tokenizer(base).encode(text))


def test_tied_scores_become_distinct_without_another_order(base):
    vocabulary = read_vocabulary(base)
    vocabulary.scores[600:650] = 0.0
    made = distinct_scores(vocabulary)
    assert not vocabulary.has_distinct_scores and made.has_distinct_scores
    normal = made.normal
    for before, after in itertools.pairwise(normal):
        if vocabulary.scores[before] >= vocabulary.scores[after]:
            assert made.scores[before] > made.scores[after]
        else:
            assert made.scores[before] < made.scores[after]


def test_no_room_or_too_little_text_is_told(base, learned):
    old, new = read_vocabulary(base), read_vocabulary(learned)
    for size in (600, 5000):
        with pytest.raises(ConfigError, match="between 700 and"):
            extend_vocabulary(old, new, size)
