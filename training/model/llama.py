"""A decoder as a folder of Hugging Face's LlamaForCausalLM, and back: config.json and safetensors.

The parameters are the same numbers under other names (both turn the pairs (i, i + K/2) of a head), so nothing is
computed but a change of type. One parameter is in memory at a time beside the file that is being written.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.errors import ConfigError, InputError
from training.model.decoder import Decoder, ModelConfig, parameter_shapes

FILE_BYTES = 2 << 30
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_LAYER = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.query.weight": "self_attn.q_proj.weight",
    "attention.key.weight": "self_attn.k_proj.weight",
    "attention.value.weight": "self_attn.v_proj.weight",
    "attention.output.weight": "self_attn.o_proj.weight",
    "feed_forward_norm.weight": "post_attention_layernorm.weight",
    "feed_forward.gate.weight": "mlp.gate_proj.weight",
    "feed_forward.up.weight": "mlp.up_proj.weight",
    "feed_forward.down.weight": "mlp.down_proj.weight",
}
_WHOLE = {
    "embedding.weight": "model.embed_tokens.weight",
    "final_norm.weight": "model.norm.weight",
    "unembedding.weight": "lm_head.weight",
}


def llama_name(name: str) -> str:
    """Their name of one of our parameters."""
    if found := re.fullmatch(r"layers\.(\d+)\.(.+)", name):
        return f"model.layers.{found[1]}.{_LAYER[found[2]]}"
    return _WHOLE[name]


def llama_config(config: ModelConfig, *, dtype: str, ids: dict[str, int], longest: int) -> dict[str, Any]:
    """config.json; ConfigError for what a Llama cannot express. `ids`: bos_id, eos_id, pad_id."""
    if config.positions != "rope":
        raise ConfigError(
            f"a model with {config.positions} positions is no Llama: LlamaForCausalLM has rotary positions only",
            mend="train with positions=rope, or read the checkpoint with training.checkpoint.saved.load_decoder",
        )
    made: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": longest,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "tie_word_embeddings": config.tied_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
        "initializer_range": config.init_std,
        "torch_dtype": dtype,
        "bos_token_id": ids.get("bos_id"),
        "eos_token_id": ids.get("eos_id"),
        "pad_token_id": ids.get("pad_id"),
    }
    if config.rope_scaling != 1:
        made["rope_scaling"] = {"rope_type": "linear", "factor": config.rope_scaling}
    return made


def decoder_config(body: dict[str, Any]) -> ModelConfig:
    """Our sizes of their config.json; InputError for another architecture or what ours has not."""
    theta, scaling = body.get("rope_theta", 10_000.0), body.get("rope_scaling") or {}
    rope = body.get("rope_parameters")  # transformers 5 puts both here
    if rope:
        theta, scaling = rope.get("rope_theta", theta), rope
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    odd = [name for name in ("attention_bias", "mlp_bias") if body.get(name)]
    if body.get("model_type") != "llama" or body.get("hidden_act", "silu") != "silu" or odd:
        raise InputError(f"no Llama without biases: model_type {body.get('model_type')!r}, {odd}")
    if kind not in ("default", "linear"):
        raise InputError(f"rope_scaling {kind!r} is not known here", mend="a model with plain or linear scaling")
    width = body.get("head_dim") or body["hidden_size"] // body["num_attention_heads"]
    if width * body["num_attention_heads"] != body["hidden_size"]:
        raise InputError(f"heads of width {width} do not fill hidden_size {body['hidden_size']}")
    return ModelConfig(
        vocab_size=body["vocab_size"],
        d_model=body["hidden_size"],
        layers=body["num_hidden_layers"],
        heads=body["num_attention_heads"],
        kv_heads=body.get("num_key_value_heads") or body["num_attention_heads"],
        d_ff=body["intermediate_size"],
        rope_theta=float(theta),
        rope_scaling=float(scaling.get("factor", 1.0)) if kind == "linear" else 1.0,
        norm_eps=body.get("rms_norm_eps", 1e-6),
        tied_embeddings=bool(body.get("tie_word_embeddings", False)),
    )


def write_llama(
    folder: Path,
    config: ModelConfig,
    names: list[str],
    read: Callable[[str], Tensor],
    *,
    dtype: str = "bfloat16",
    ids: dict[str, int],
    longest: int,
) -> list[Path]:
    """Write config.json and the weights that `read` gives by our names; the files of weights.

    InputError where the folder holds something already.
    """
    from safetensors.torch import save_file

    made = llama_config(config, dtype=dtype, ids=ids, longest=longest)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty", mend="name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    groups = list(_grouped(config, names, torch.empty((), dtype=_TYPES[dtype]).element_size()))
    paths, places, total = [], {}, 0
    for number, group in enumerate(groups, 1):
        name = "model.safetensors" if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        tensors = {llama_name(own): read(own).to(_TYPES[dtype]).contiguous() for own in group}
        save_file(tensors, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, name)
        total += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        paths.append(folder / name)
    if len(groups) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    (folder / "config.json").write_text(json.dumps(made, indent=1) + "\n")
    return paths


def _grouped(config: ModelConfig, names: list[str], element_bytes: int) -> Iterator[list[str]]:
    """Names in order, each group one file."""
    sizes = {name: math.prod(shape) * element_bytes for name, shape in parameter_shapes(config).items()}
    group: list[str] = []
    held = 0
    for name in names:
        if group and held + sizes[name] > FILE_BYTES:
            yield group
            group, held = [], 0
        group.append(name)
        held += sizes[name]
    yield group


def read_llama(folder: Path) -> tuple[ModelConfig, Callable[[str], Tensor]]:
    """(sizes, float32 weights by our name); InputError where the folder is no such model."""
    try:
        config = decoder_config(json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} holds no Llama's config.json: {error!r}") from error
    return config, _weights(folder, config)


def _weights(folder: Path, config: ModelConfig) -> Callable[[str], Tensor]:
    """Reads one parameter at a time; every name and shape of the files is checked before."""
    from safetensors import safe_open

    shapes = parameter_shapes(config)
    left = {llama_name(name): name for name in shapes}
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for theirs in file.keys():  # noqa: SIM118  (the file is no mapping)
                if theirs not in left:
                    if theirs == "lm_head.weight" or theirs.endswith("rotary_emb.inv_freq"):
                        continue  # a tied copy; a table that is computed
                    raise InputError(f"{path.name} has {theirs}, which a Llama has not")
                name, shape = left.pop(theirs), tuple(file.get_slice(theirs).get_shape())
                if shape != shapes[name]:
                    raise InputError(f"{theirs} has shape {shape}, expected {shapes[name]}")
                files[name] = path
    if left:
        raise InputError(f"{folder} lacks {sorted(left)[:3]} and {max(len(left) - 3, 0)} more parameters")

    def read(name: str) -> Tensor:
        with safe_open(files[name], framework="pt") as file:
            return file.get_tensor(llama_name(name)).float()

    return read


def llama_weights(config: ModelConfig, folder: Path) -> Callable[[str], Tensor]:
    """A folder's float32 weights by our name; InputError where its sizes are others."""
    found, read = read_llama(folder)
    theirs, ours = found.to_json(), config.to_json()
    if odd := [f"{k} {theirs[k]} there, {ours[k]} here" for k in ours if k != "init_std" and theirs[k] != ours[k]]:
        raise InputError(f"{folder} is another model: {'; '.join(odd)}")
    return read


@torch.no_grad()
def load_llama(model: Decoder, folder: Path) -> Decoder:
    """Fill a decoder from a folder; InputError where its sizes are others."""
    read = llama_weights(model.config, folder)
    for name, parameter in model.named_parameters():
        parameter.copy_(read(name))
    return model
