import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import IntegrityError
from pipelines.tokens.export import differing, hugging_face_json
from pipelines.tokens.proof import proof_texts, prove
from pipelines.tokens.tokenizer import Tokenizer, train
from pipelines.tokens.vocabulary import read_vocabulary
from tests.unit.tokens.test_encode import HOSTILE
from tests.unit.tokens.test_tokenizer import TEXT, corpus


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(train(corpus(), 1200, reserved=3))


@pytest.fixture(scope="module")
def exported(tokenizer):
    return hugging_face_json(read_vocabulary(tokenizer.model))


@settings(deadline=None, max_examples=200)
@given(texts=st.lists(TEXT, max_size=5))
def test_the_exported_file_gives_the_same_ids(tokenizer, exported, texts):
    assert differing(tokenizer, exported, texts) == []


def test_hostile_and_plain_texts_too(tokenizer, exported):
    assert differing(tokenizer, exported, [*HOSTILE, *corpus(4)]) == []


def test_the_exported_file_decodes_to_the_text(tokenizer, exported):
    from tokenizers import Tokenizer as Loaded

    loaded = Loaded.from_str(exported.decode())
    for text in ("  ab\n\tcd \u2581x", "一丁七 é😀", "\n\n"):
        assert loaded.decode(tokenizer.encode(text)) == text


def test_reserved_ids_are_special_in_it(exported):
    body = json.loads(exported)
    assert [token["content"] for token in body["added_tokens"]][-4:] == [
        "<filler>", "<reserved_0>", "<reserved_1>", "<reserved_2>",
    ]  # fmt: skip


def test_a_file_with_another_order_of_merges_differs(tokenizer, exported):
    body = json.loads(exported)
    body["model"]["merges"].reverse()
    assert len(differing(tokenizer, json.dumps(body).encode(), corpus(4))) > 50


def test_the_proof_holds_of_what_was_trained_and_counts_what_differs(tokenizer, exported):
    texts = proof_texts(corpus(5))
    proof = prove(tokenizer, texts, exported)
    assert proof["encoder"] == "fast" and proof["hugging_face_differs"] == 0 and proof["texts"] == len(texts) > 100
    body = json.loads(exported)
    body["model"]["merges"].reverse()
    assert prove(tokenizer, texts, json.dumps(body).encode())["hugging_face_differs"] > 50


def test_the_proof_fails_where_a_text_does_not_come_back(tokenizer, exported, monkeypatch):
    monkeypatch.setattr(Tokenizer, "decode", lambda self, ids: "other")
    with pytest.raises(IntegrityError, match="given back"):
        prove(tokenizer, ["ab"], exported)
