# ruff: noqa: E402  (torch may be absent)
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from training.data.rows import SpecialTokens, build_row
from training.evaluate.domain_loss import bytes_of_pieces, encode_document, score_documents, windows
from training.evaluate.generate import generate
from training.model.decoder import Decoder, ModelConfig, initialise

pytestmark = pytest.mark.torch

MODEL = ModelConfig(vocab_size=50, d_model=32, layers=2, heads=4, kv_heads=2, d_ff=48)
BYTES = [1 + i % 4 for i in range(50)]


@pytest.fixture(scope="module")
def model() -> Decoder:
    return initialise(Decoder(MODEL), 5).eval()


def document(seed: int, tokens: int, domain: str, bos: int | None = None):
    ids = np.random.default_rng(seed).integers(5, 50, tokens).tolist()
    return encode_document(ids, BYTES, (domain,), bos_id=bos)


@given(tokens=st.integers(1, 500), context=st.integers(2, 70))
def test_every_token_but_the_first_is_scored_once_with_half_a_context_before_it(tokens, context):
    scored = []
    for number, window in enumerate(windows(tokens, context)):
        assert 0 <= window.start < window.end <= tokens
        assert window.end - window.start <= context
        for t in range(window.first_scored, window.end):
            scored.append(t)
            assert number == 0 or t - window.start >= context // 2
    assert scored == list(range(1, tokens))


def test_a_short_document_has_the_loss_that_its_row_has_in_training(model):
    one = document(1, 20, "zh")
    row = build_row(0, [np.array(one.ids)], SpecialTokens(eos_id=2, pad_id=3, filler_id=4))
    fields = ("ids", "positions", "documents", "labels")
    batch = [torch.from_numpy(getattr(row, f)).long().unsqueeze(0) for f in fields]
    with torch.no_grad():
        expected = float(model(*batch).sum())
    score = score_documents(model, [one], context=64)["zh"]
    assert score.nll == pytest.approx(expected, rel=1e-5)
    assert (score.documents, score.tokens) == (1, 19)
    assert score.text_bytes == sum(one.token_bytes[1:])
    assert score.bits_per_byte == pytest.approx(score.nll / math.log(2) / score.text_bytes)


def test_domains_add_up_and_do_not_depend_on_how_windows_are_batched(model):
    documents = [document(i, 3 + 17 * i, "zh" if i % 2 else "en") for i in range(7)] + [document(9, 1, "en")]
    one = score_documents(model, documents, context=24, rows=1)
    many = score_documents(model, documents, context=24, rows=5)
    for domain in ("", "zh", "en"):
        assert many[domain].nll == pytest.approx(one[domain].nll, rel=1e-5)
        assert many[domain].tokens == one[domain].tokens
    assert one[""].tokens == one["zh"].tokens + one["en"].tokens
    assert one[""].tokens == sum(len(d.ids) - 1 for d in documents)
    assert one["en"].documents == 5


def test_with_bos_the_first_token_is_scored_too(model):
    plain, marked = document(1, 20, "zh"), document(1, 20, "zh", bos=1)
    assert score_documents(model, [marked], context=64)["zh"].tokens == 20
    assert score_documents(model, [marked], context=64)["zh"].text_bytes == sum(plain.token_bytes)


def test_pieces_stand_for_their_bytes():
    assert bytes_of_pieces(["a", "\u2581the", "中文", "<0xE4>", "<pad>"]) == [1, 4, 6, 1, 5]


def test_generation_is_the_same_for_a_seed_and_ends_at_eos(model):
    kind = {"new_tokens": 12, "context": 8, "eos_id": 2}
    one = generate(model, [10, 11], seed=1, **kind)
    assert one == generate(model, [10, 11], seed=1, **kind)
    assert one != generate(model, [10, 11], seed=2, **kind)
    assert len(one) <= 12
    greedy = generate(model, [10, 11], temperature=0, **kind)
    assert generate(model, [10, 11], temperature=0, **{**kind, "eos_id": greedy[0]}) == []
    assert not set(generate(model, [10], seed=3, forbidden=range(25), **kind)) & set(range(25))
