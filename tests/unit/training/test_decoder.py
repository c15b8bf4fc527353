# ruff: noqa: E402  (torch may be absent)
from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pipelines.errors import ConfigError
from training.data.rows import SpecialTokens, build_row, empty_row
from training.model.attention import alibi_slopes, attention_of, document_mask
from training.model.decoder import Decoder, ModelConfig, initialise
from training.model.presets import PRESETS, preset

pytestmark = pytest.mark.torch

CONFIG = ModelConfig(vocab_size=50, d_model=32, layers=2, heads=4, kv_heads=2, d_ff=48)
SPECIAL = SpecialTokens(eos_id=2, pad_id=3, filler_id=4)


def tensors(*rows) -> list[torch.Tensor]:
    arrays = ("ids", "positions", "documents", "labels")
    return [torch.from_numpy(np.stack([getattr(row, name) for row in rows])).long() for name in arrays]


def row(*spans: list[int]):
    return build_row(0, [np.array(span) for span in spans], SPECIAL)


@pytest.fixture(scope="module")
def model() -> Decoder:
    return initialise(Decoder(CONFIG), 5)


def test_two_documents_in_a_row_have_the_losses_that_they_have_alone(model):
    one, two = [10, 11, 12, 13, 2], [20, 21, 22, 23, 24, 25, 2]
    with torch.no_grad():
        alone = [model.token_losses(*tensors(row(document)))[0] for document in (one, two)]
        packed = model.token_losses(*tensors(row(one + two)))[0]
        as_spans = model.token_losses(*tensors(row(one[:3], one[3:] + two)))[0]
    assert torch.allclose(packed, torch.cat(alone), atol=1e-5)
    assert torch.allclose(as_spans[5:], alone[1], atol=1e-5)


def test_a_token_sees_nothing_after_it(model):
    with torch.no_grad():
        short = model.logits(*tensors(row([10, 11, 12, 13]))[:3])
        changed = model.logits(*tensors(row([10, 11, 12, 40]))[:3])
    assert torch.equal(short[:, :3], changed[:, :3])
    assert not torch.equal(short[:, 3], changed[:, 3])


def test_the_mask_is_causal_within_documents():
    mask = document_mask(torch.tensor([[0, 0, 1]]))[0, 0]
    assert mask.tolist() == [[True, False, False], [True, True, False], [False, False, True]]


def test_an_empty_row_has_no_loss_and_a_zero_gradient(model):
    loss = model(*tensors(empty_row(8, SPECIAL))).sum()
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in model.parameters())
    model.zero_grad()


def test_the_loss_of_a_row_is_the_sum_over_its_labels(model):
    batch = tensors(row([10, 11, 12, 2, 13, 14, 15, 16]), row([10, 4, 12, 2, 13, 14], [15, 16]))
    with torch.no_grad():
        losses = model.token_losses(*batch)
        assert torch.equal(losses == 0, batch[3] == -100)
        assert torch.allclose(model(*batch), losses.sum(dim=1))


def test_weights_depend_on_seed_and_name_only():
    deep = initialise(Decoder(replace(CONFIG, layers=3)), 5)
    shallow = dict(initialise(Decoder(CONFIG), 5).named_parameters())
    same = [n for n, p in deep.named_parameters() if n in shallow and "output" not in n and "down" not in n]
    assert all(torch.equal(dict(deep.named_parameters())[n], shallow[n]) for n in same)
    assert len(same) > 10
    other = dict(initialise(Decoder(CONFIG), 6).named_parameters())
    assert not torch.equal(other["embedding.weight"], shallow["embedding.weight"])
    assert not torch.equal(
        shallow["layers.0.attention.query.weight"], shallow["layers.1.attention.query.weight"]
    )


def test_grouped_query_attention_equals_repeated_key_heads():
    wide = replace(CONFIG, kv_heads=4)
    grouped, full = initialise(Decoder(CONFIG), 1), Decoder(wide)
    state = grouped.state_dict()
    for name in list(state):
        if name.endswith(("key.weight", "value.weight")):
            heads = state[name].view(2, 8, 32)
            state[name] = heads.repeat_interleave(2, dim=0).reshape(32, 32)
    full.load_state_dict(state)
    batch = tensors(row([10, 11, 12, 13, 14]))
    assert torch.allclose(grouped(*batch), full(*batch), atol=1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_parameters_that_it_says(name):
    config = preset(name, 8192)
    with torch.device("meta"):
        model = Decoder(config)
    assert sum(p.numel() for p in model.parameters()) == config.parameters


def test_published_sizes_are_met():
    assert preset("baichuan-7b", 32_000).parameters == 6_738_415_616, "LLaMA-7B"
    assert preset("baichuan-7b", 64_000).parameters == pytest.approx(7_000_559_616, rel=1e-3)
    assert preset("13b", 32_000).parameters == pytest.approx(13_015_864_320, rel=1e-3)
    assert preset("skywork-13b", 65_519).parameters == pytest.approx(13.85e9, rel=1e-3)


def test_an_uneven_head_is_refused():
    with pytest.raises(ConfigError, match="even head width"):
        replace(CONFIG, heads=3)
    with pytest.raises(ConfigError, match="no model preset 'huge'"):
        preset("huge", 10)


def test_untied_embeddings_are_two_parameters():
    names = {n for n, _ in Decoder(replace(CONFIG, tied_embeddings=False)).named_parameters()}
    assert {"embedding.weight", "unembedding.weight"} <= names


def losses_and_gradients(positions: str, way: str, device: str = "cpu") -> tuple[torch.Tensor, list[torch.Tensor]]:
    model = initialise(Decoder(replace(CONFIG, positions=positions)), 3).to(device)
    model.attention_way = way
    rng = np.random.default_rng(4)
    rows = [row(*(rng.integers(8, 50, n).tolist() for n in sizes)) for sizes in ((40, 17, 71), (1, 127))]
    losses = model.token_losses(*(tensor.to(device) for tensor in tensors(*rows)))
    losses.sum().backward()
    return losses.detach(), [parameter.grad for parameter in model.parameters()]


def require_equal(one: tuple[torch.Tensor, list[torch.Tensor]], two: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
    assert torch.allclose(one[0], two[0], atol=1e-5)
    for expected, found in zip(one[1], two[1], strict=True):
        assert (expected - found).abs().max() <= 1e-5 * max(1.0, expected.abs().max())


@pytest.mark.parametrize("positions", ["rope", "alibi"])
def test_attention_by_document_has_the_losses_and_gradients_of_the_dense_mask(positions):
    require_equal(losses_and_gradients(positions, "dense"), losses_and_gradients(positions, "documents"))


@pytest.mark.parametrize("positions", ["rope", "alibi"])
def test_flex_attention_has_the_losses_of_the_dense_mask_and_on_a_gpu_its_gradients(positions):
    if torch.cuda.is_available():
        require_equal(*(losses_and_gradients(positions, way, "cuda") for way in ("dense", "flex")))
        return
    model = initialise(Decoder(replace(CONFIG, positions=positions)), 3)  # torch has no gradient of it on a CPU
    batch = tensors(row(list(range(10, 40)), list(range(10, 45))), row([9] * 65))
    found = []
    for way in ("dense", "flex"):
        model.attention_way = way
        with torch.no_grad():
            found.append(model.token_losses(*batch))
    assert torch.allclose(*found, atol=1e-5)


def plain_varlen(q, k, v, starts, ends, most_q, most_k, *, window_size, enable_gqa):
    """What flash attention's kernel for many lengths is asked for, a document at a time."""
    assert window_size == (-1, 0) and starts is ends and ends.dtype == torch.int32
    found = []
    for first, last in itertools.pairwise(ends.tolist()):
        assert 0 < last - first <= most_q == most_k
        parts = [x[first:last].transpose(0, 1).unsqueeze(0) for x in (q, k, v)]
        out = torch.nn.functional.scaled_dot_product_attention(*parts, is_causal=True, enable_gqa=enable_gqa)
        found.append(out.squeeze(0).transpose(0, 1))
    return torch.cat(found)


def test_attention_of_many_lengths_at_once_has_the_losses_and_gradients_of_the_dense_mask(monkeypatch):
    monkeypatch.setattr("training.model.attention._flash_varlen", lambda: plain_varlen)
    require_equal(losses_and_gradients("rope", "dense"), losses_and_gradients("rope", "varlen"))
    with pytest.raises(ConfigError, match="no bias"):
        losses_and_gradients("alibi", "varlen")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="flash attention has no kernel on a CPU")
def test_flash_attentions_own_kernel_agrees_with_the_dense_mask_in_half_precision():
    documents = torch.tensor([[0] * 40 + [1] * 88, [0] * 128], device="cuda")
    q, k, v = (torch.randn(2, heads, 128, 64, device="cuda", dtype=torch.bfloat16) for heads in (4, 2, 2))
    dense, varlen = (attention_of(documents, documents, way=way)(q, k, v) for way in ("dense", "varlen"))
    assert (dense - varlen).abs().max() < 2e-2


def test_alibi_slopes_are_the_published_ones_and_its_bias_is_of_the_distance():
    assert alibi_slopes(8).tolist() == [2.0**-n for n in range(1, 9)]
    assert alibi_slopes(12)[8:].tolist() == pytest.approx([2 ** -(n + 0.5) for n in range(4)])
    model = initialise(Decoder(replace(CONFIG, positions="alibi")), 3)
    with torch.no_grad():
        alone = model.token_losses(*tensors(row([10, 11, 12, 13, 2])))[0]
        behind = model.token_losses(*tensors(row([20, 21, 2], [10, 11, 12, 13, 2])))[0]
    assert torch.allclose(behind[3:], alone, atol=1e-5)


def test_scaled_rotary_positions_are_those_of_a_shorter_row():
    scaled, plain = (initialise(Decoder(replace(CONFIG, rope_scaling=s)), 3) for s in (2.0, 1.0))
    ids, positions, documents, _ = tensors(row(list(range(10, 20))))
    with torch.no_grad():
        stretched = scaled.logits(ids, positions * 2, documents)
        assert torch.allclose(stretched, plain.logits(ids, positions, documents), atol=1e-5)
    with pytest.raises(ConfigError, match="rope_scaling"):
        replace(CONFIG, rope_scaling=0.5)
