# ruff: noqa: E402  (torch may be absent)
from __future__ import annotations

import json
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

import training.model.llama as llama
from pipelines.errors import ConfigError, InputError
from training.model.decoder import Decoder, ModelConfig, initialise
from training.model.llama import load_llama, read_llama, write_llama

pytestmark = pytest.mark.torch
CONFIG = ModelConfig(vocab_size=70, d_model=32, layers=3, heads=4, kv_heads=2, d_ff=48, tied_embeddings=False)
IDS = {"bos_id": 1, "eos_id": 2, "pad_id": 0}


def export(folder, config=CONFIG, **more):
    model = initialise(Decoder(config), 3)
    parameters = dict(model.named_parameters())
    write_llama(folder, config, list(parameters), lambda n: parameters[n].data, **{"ids": IDS, "longest": 64, **more})
    return model


@pytest.mark.parametrize("change", [{}, {"tied_embeddings": True}, {"rope_theta": 5e5, "rope_scaling": 4.0}])
def test_there_and_back_is_the_same_model_to_the_bit(tmp_path, change, monkeypatch):
    monkeypatch.setattr(llama, "FILE_BYTES", 20_000)
    config = replace(CONFIG, **change)
    model = export(tmp_path / "hf", config, dtype="float32")
    assert len(list((tmp_path / "hf").glob("model-*-of-*.safetensors"))) > 2
    again = load_llama(Decoder(config), tmp_path / "hf")
    for (name, one), two in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two), name
    assert read_llama(tmp_path / "hf")[0] == config


@pytest.mark.parametrize("change", [{}, {"tied_embeddings": True, "kv_heads": 4}, {"rope_scaling": 2.0}])
def test_transformers_reads_the_folder_and_has_the_same_logits(tmp_path, change):
    transformers = pytest.importorskip("transformers")
    config = replace(CONFIG, **change)
    model = export(tmp_path / "hf", config, dtype="float32").eval()
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        ours = model.logits(ids, torch.arange(40)[None], torch.zeros_like(ids))
        assert torch.allclose(ours, theirs(ids).logits, atol=2e-5)
    theirs.save_pretrained(tmp_path / "back")
    back = load_llama(Decoder(config), tmp_path / "back")
    with torch.no_grad():
        assert torch.equal(back.logits(ids, torch.arange(40)[None], torch.zeros_like(ids)), ours)


def test_what_a_llama_is_not_is_refused_with_the_reason(tmp_path):
    with pytest.raises(ConfigError, match="alibi positions is no Llama"):
        export(tmp_path / "a", replace(CONFIG, positions="alibi"))
    export(tmp_path / "b")
    with pytest.raises(InputError, match="is not empty"):
        export(tmp_path / "b")
    with pytest.raises(InputError, match="layers 3 there, 2 here"):
        load_llama(Decoder(replace(CONFIG, layers=2)), tmp_path / "b")
    config = tmp_path / "b" / "config.json"
    body = json.loads(config.read_text())
    for change, said in (({"model_type": "qwen2"}, "no Llama"), ({"rope_scaling": {"rope_type": "yarn"}}, "yarn")):
        config.write_text(json.dumps({**body, **change}))
        with pytest.raises(InputError, match=said):
            read_llama(tmp_path / "b")
    config.write_text(json.dumps({**body, "num_hidden_layers": 4}))
    with pytest.raises(InputError, match="lacks"):
        load_llama(Decoder(replace(CONFIG, layers=4)), tmp_path / "b")
