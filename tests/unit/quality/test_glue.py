import itertools
import random

import numpy as np
import pyarrow as pa
import pytest

from pipelines.errors import IntegrityError
from pipelines.quality.glue import STEP, Glue, count_glue
from pipelines.quality.order import BIGRAMS, UNIGRAMS, OrderModel
from pipelines.quality.reading import FACTS, read_texts
from pipelines.quality.vocabulary import LineModel, fnv
from pipelines.quality.words import words


def invented(rng):
    return "".join(rng.choices("bcdfgklmnprstvz", k=6))


def prose(rng, count=30):
    """Sentences of one form about something that no other text is about."""
    return " ".join(f"The {invented(rng)} of the {invented(rng)} was in a {invented(rng)}." for _ in range(count))


def pages(seed=0):
    rng = random.Random(seed)
    return [(f"site{i}.example", words(prose(rng))) for i in range(8)]


def read(glue, texts):
    """Facts of texts by an order model that has nothing but these words."""
    one, two = np.zeros(1 << UNIGRAMS, np.uint8), np.zeros(1 << BIGRAMS, np.uint8)
    order = OrderModel(unigrams=one, followers=one, bigrams=two, total=1.0, glue=glue)
    return read_texts(pa.array(texts, pa.large_string()), LineModel.empty(), order)[1]


def test_the_words_that_hold_sentences_together_are_found_and_what_follows_what():
    glue = count_glue(pages())
    number = {h: at for at, h in enumerate(glue.hashes.tolist())}
    the, of, was, full_stop = (number[fnv(word.encode())] for word in ("the", "of", "was", "."))
    assert max(the, of, was, full_stop) < 7  # before every word that one site alone has
    assert glue.gains[of, the] > STEP and glue.gains[full_stop, the] > STEP
    assert glue.gains[the, of] < -STEP and glue.gains[was, of] < -STEP


def test_a_text_on_a_new_subject_has_no_odd_pair_until_words_are_lost():
    glue, rng = count_glue(pages()), random.Random(9)
    text = prose(rng)
    lost = " ".join(word for word in text.split(" ") if rng.random() > 0.4)
    whole, thinned = read(glue, [text, lost])
    pairs, gain, odd = (FACTS.index(name) for name in ("glue_pairs", "glue_gain", "glue_odd"))
    assert whole[odd] == 0 and whole[gain] > whole[pairs]
    assert thinned[odd] > 0.2 * thinned[pairs] > 0


def test_the_compiled_pass_counts_as_the_table_says():
    glue, rng = count_glue(pages()), random.Random(3)
    number = {h: at for at, h in enumerate(glue.hashes.tolist())}
    some = ["the", "of", "was", "in", "a", ".", "x", "é", "的", "了", "Lost"]
    made = [" ".join(rng.choices(some, k=60)) for _ in range(20)] + ["", "the"]
    for text, facts in zip(made, read(glue, made), strict=True):
        at = [number.get(fnv(word.encode())) for word in words(text).split()]
        gains = [int(glue.gains[a, b]) for a, b in itertools.pairwise(at) if a is not None and b is not None]
        found = {name: facts[FACTS.index(name)] for name in ("glue_pairs", "glue_gain", "glue_odd")}
        assert found == {"glue_pairs": len(gains), "glue_gain": sum(gains) / STEP,
                         "glue_odd": sum(gain < -STEP for gain in gains)}  # fmt: skip


def test_the_order_of_pages_does_not_matter_and_bytes_are_read_back():
    given = pages()
    glue = count_glue(given)
    assert count_glue(given[::-1]).to_bytes() == glue.to_bytes()
    again = Glue.from_bytes(glue.to_bytes())
    assert np.array_equal(again.gains, glue.gains) and np.array_equal(again.slots, glue.slots)
    for body in (b"", glue.to_bytes()[:-1], glue.to_bytes() + b"x", b"\xff\xff\xff\xff"):
        with pytest.raises(IntegrityError):
            Glue.from_bytes(body)


def test_numbers_are_no_glue_and_no_pages_give_an_empty_table():
    assert not {fnv(b"2024"), fnv(b"a1")} & set(count_glue([("a", "2024 a1 the 2024 a1")]).hashes.tolist())
    assert len(count_glue([]).hashes) == 0 and read(count_glue([]), ["the of"])[0, FACTS.index("glue_pairs")] == 0
