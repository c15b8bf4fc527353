"""The forward pass of BERT-class sequence classifiers, from the folder that Hugging Face's library writes.

BERT (Devlin et al. 2019), RoBERTa, XLM-R and CamemBERT (Liu et al. 2019; Conneau et al. 2020), ELECTRA (Clark et al.
2020) and DistilBERT (Sanh et al. 2019): embeddings, encoder layers with post-layer-norm, and the head over the first
token. They differ in names, in where positions begin and in the head. Weights come as safetensors alone: a pickle would
run code. What else the folder may hold is not used, code least of all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from pipelines.errors import InputError, IntegrityError

_ROBERTAS = ("roberta", "xlm-roberta", "camembert")
KINDS = ("bert", *_ROBERTAS, "electra", "distilbert")
_DISTILBERT_NAMES = {
    "distilbert.transformer.": "distilbert.encoder.",
    ".attention.q_lin.": ".attention.self.query.",
    ".attention.k_lin.": ".attention.self.key.",
    ".attention.v_lin.": ".attention.self.value.",
    ".attention.out_lin.": ".attention.output.dense.",
    ".sa_layer_norm.": ".attention.output.LayerNorm.",
    ".ffn.lin1.": ".intermediate.dense.",
    ".ffn.lin2.": ".output.dense.",
    ".output_layer_norm.": ".output.LayerNorm.",
}
_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64, "I64": torch.int64}
_ACTIVATIONS = {
    "gelu": functional.gelu,
    "gelu_new": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
}
Weights = dict[str, torch.Tensor]


def read_safetensors(body: bytes) -> Weights:
    """Tensors by name; IntegrityError where the file's own bounds do not hold."""
    try:
        (size,) = np.frombuffer(body, "<u8", 1)
        header = json.loads(body[8 : 8 + int(size)])
    except (ValueError, OverflowError) as error:
        raise IntegrityError(f"no safetensors file: {error}") from None
    first = 8 + int(size)
    tensors: Weights = {}
    for name, told in header.items():
        if name == "__metadata__":
            continue
        try:
            kind, shape = _TYPES[told["dtype"]], [int(n) for n in told["shape"]]
            start, stop = (int(n) for n in told["data_offsets"])
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"safetensors: {name} is described wrongly: {error!r}") from None
        elements = int(np.prod(shape, dtype=np.int64)) if min(shape, default=0) >= 0 else -1
        inside = 0 <= start <= stop <= len(body) - first
        if not inside or elements * torch.empty(0, dtype=kind).element_size() != stop - start:
            raise IntegrityError(f"safetensors: the bytes of {name} are not where the header says")
        values = (
            torch.frombuffer(bytearray(body[first + start : first + stop]), dtype=kind) if elements else torch.empty(0)
        )
        tensors[name] = values.reshape(shape)
    return tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    layers: int
    heads: int
    epsilon: float
    activation: Any
    first_position: int


class BertClassifier:
    """Ids and mask in, logits out. No gradient, evaluation only; single precision on CPU, half on a GPU."""

    def __init__(self, config: dict[str, Any], weights: Weights, *, on_gpu: bool, batch_tokens: int) -> None:
        kind = str(config.get("model_type", ""))
        if kind not in KINDS:
            raise InputError(f"a classifier of the type {kind!r}", mend=f"known are {', '.join(KINDS)}")
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise InputError("a classifier with relative positions", mend="only absolute ones are known")
        if kind == "distilbert":
            config, weights = _named_as_bert(config, weights)
        activation = str(config.get("hidden_act", "gelu"))
        if activation not in _ACTIVATIONS:
            raise InputError(
                f"a classifier with the activation {activation!r}", mend=f"known: {', '.join(_ACTIVATIONS)}"
            )
        self._device = torch.device("cuda" if on_gpu and torch.cuda.is_available() else "cpu")
        self._type = torch.float16 if self._device.type == "cuda" else torch.float32
        self._kind = kind
        self._prefix = "roberta." if kind in _ROBERTAS else f"{kind}."
        self._weights = {
            name.replace(".gamma", ".weight").replace(".beta", ".bias"): tensor.to(self._device, self._type)
            for name, tensor in weights.items()
            if tensor.is_floating_point()
        }
        self._shape = _Shape(
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            epsilon=float(config.get("layer_norm_eps", 1e-12)),
            activation=_ACTIVATIONS[activation],
            first_position=int(config.get("pad_token_id") or 0) + 1 if kind in _ROBERTAS else 0,
        )
        self.batch_tokens = batch_tokens

    @torch.inference_mode()
    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """(batch, tokens) int64 ids and mask -> (batch, labels) float32 logits."""
        tokens = torch.from_numpy(ids).to(self._device)
        seen = torch.from_numpy(mask).to(self._device).bool()
        if int(tokens.max()) >= self._tensor("embeddings.word_embeddings.weight").shape[0]:
            raise IntegrityError("the tokenizer knows more tokens than the network")
        hidden = self._embedded(tokens)
        attended = seen[:, None, None, :]
        for layer in range(self._shape.layers):
            hidden = self._layer(hidden, attended, f"encoder.layer.{layer}.")
        return self._head(hidden[:, 0]).float().cpu().numpy()

    def _embedded(self, tokens: torch.Tensor) -> torch.Tensor:
        # texts are padded at the end, so places count from the first; RoBERTa's begin after the padding's own
        places = torch.arange(tokens.shape[1], device=self._device) + self._shape.first_position
        embedded = (
            functional.embedding(tokens, self._tensor("embeddings.word_embeddings.weight"))
            + self._tensor("embeddings.position_embeddings.weight")[places]
        )
        if self._kind != "distilbert":
            embedded = embedded + self._tensor("embeddings.token_type_embeddings.weight")[0]
        embedded = self._norm(embedded, "embeddings.LayerNorm")
        narrow = f"{self._prefix}embeddings_project.weight" in self._weights  # of ELECTRA's small ones
        return self._linear(embedded, "embeddings_project") if narrow else embedded

    def _layer(self, hidden: torch.Tensor, attended: torch.Tensor, name: str) -> torch.Tensor:
        batch, tokens, width = hidden.shape

        def heads(part: str) -> torch.Tensor:
            made = self._linear(hidden, f"{name}attention.self.{part}")
            return made.view(batch, tokens, self._shape.heads, -1).transpose(1, 2)

        mixed = functional.scaled_dot_product_attention(
            heads("query"), heads("key"), heads("value"), attn_mask=attended
        )
        mixed = self._linear(mixed.transpose(1, 2).reshape(batch, tokens, width), f"{name}attention.output.dense")
        hidden = self._norm(hidden + mixed, f"{name}attention.output.LayerNorm")
        inner = self._shape.activation(self._linear(hidden, f"{name}intermediate.dense"))
        return self._norm(hidden + self._linear(inner, f"{name}output.dense"), f"{name}output.LayerNorm")

    def _head(self, first: torch.Tensor) -> torch.Tensor:
        if self._kind == "bert":
            return self._linear(torch.tanh(self._linear(first, "pooler.dense")), "classifier", prefix="")
        if self._kind == "distilbert":
            return self._linear(
                functional.relu(self._linear(first, "pre_classifier", prefix="")), "classifier", prefix=""
            )
        between = functional.gelu if self._kind == "electra" else torch.tanh
        return self._linear(
            between(self._linear(first, "classifier.dense", prefix="")), "classifier.out_proj", prefix=""
        )

    def _tensor(self, name: str, prefix: str | None = None) -> torch.Tensor:
        full = (self._prefix if prefix is None else prefix) + name
        try:
            return self._weights[full]
        except KeyError:
            raise InputError(
                f"the model has no weights {full}", mend="give a sequence classifier, not a bare encoder"
            ) from None

    def _linear(self, x: torch.Tensor, name: str, prefix: str | None = None) -> torch.Tensor:
        return functional.linear(x, self._tensor(f"{name}.weight", prefix), self._tensor(f"{name}.bias", prefix))

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self._tensor(f"{name}.weight"), self._tensor(f"{name}.bias")
        return functional.layer_norm(x, (x.shape[-1],), weight, bias, self._shape.epsilon)


def _named_as_bert(config: dict[str, Any], weights: Weights) -> tuple[dict[str, Any], Weights]:
    """DistilBERT's settings and weights under the names that BERT has for them."""
    told = {"num_hidden_layers": config["n_layers"], "num_attention_heads": config["n_heads"]}
    renamed = {}
    for name, tensor in weights.items():
        for theirs, ours in _DISTILBERT_NAMES.items():
            name = name.replace(theirs, ours)
        renamed[name] = tensor
    return {**told, "hidden_act": config.get("activation", "gelu")}, renamed


def open_network(config: dict[str, Any], body: bytes, *, on_gpu: bool, batch_tokens: int) -> BertClassifier:
    """The network of config.json and model.safetensors."""
    return BertClassifier(config, read_safetensors(body), on_gpu=on_gpu, batch_tokens=batch_tokens)
