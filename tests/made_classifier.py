"""A small BERT made here: torch's own encoder layers, trained a few steps, saved as Hugging Face's library would.

Torch's layers are the oracle of our forward pass: other code, the same mathematics.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

LAYERS, WIDTH, HEADS, INNER, POSITIONS = 2, 32, 4, 64, 64


class MadeBert(nn.Module):
    """Embeddings, nn.TransformerEncoder with post-norm, pooler and classifier."""

    def __init__(self, vocabulary, labels=2, epsilon=1e-12):
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, WIDTH), nn.Embedding(POSITIONS, WIDTH)
        self.kinds, self.norm = nn.Embedding(2, WIDTH), nn.LayerNorm(WIDTH, eps=epsilon)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, INNER, dropout=0.0, activation="gelu", layer_norm_eps=epsilon, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.pooler, self.classifier = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, labels)

    def forward(self, ids, mask):
        places = torch.arange(ids.shape[1])
        hidden = self.norm(self.words(ids) + self.places(places) + self.kinds.weight[0])
        hidden = self.encoder(hidden, src_key_padding_mask=mask == 0)
        return self.classifier(torch.tanh(self.pooler(hidden[:, 0])))

    def named(self):
        """Weights under the names that the folder of a BertForSequenceClassification has."""
        embeddings = "bert.embeddings."
        found = {
            f"{embeddings}word_embeddings.weight": self.words.weight,
            f"{embeddings}position_embeddings.weight": self.places.weight,
            f"{embeddings}token_type_embeddings.weight": self.kinds.weight,
        }
        pairs = {
            f"{embeddings}LayerNorm": self.norm,
            "bert.pooler.dense": self.pooler,
            "classifier": self.classifier,
        }
        for number, layer in enumerate(self.encoder.layers):
            name = f"bert.encoder.layer.{number}."
            weights = layer.self_attn.in_proj_weight.chunk(3)
            biases = layer.self_attn.in_proj_bias.chunk(3)
            for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
                found |= {f"{name}attention.self.{part}.weight": weight, f"{name}attention.self.{part}.bias": bias}
            pairs |= {
                f"{name}attention.output.dense": layer.self_attn.out_proj,
                f"{name}attention.output.LayerNorm": layer.norm1,
                f"{name}intermediate.dense": layer.linear1,
                f"{name}output.dense": layer.linear2,
                f"{name}output.LayerNorm": layer.norm2,
            }
        for name, part in pairs.items():
            found |= {f"{name}.weight": part.weight, f"{name}.bias": part.bias}
        return {name: tensor.detach().contiguous() for name, tensor in found.items()}


def safetensors(tensors):
    """The file format: length, JSON header, bytes."""
    header, body = {}, b""
    for name, tensor in tensors.items():
        raw = tensor.float().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    told = json.dumps(header).encode()
    return len(told).to_bytes(8, "little") + told + body


def train_classifier(folder: Path, texts, labels, vocabulary, steps=60):
    """Train on (texts, labels) and save the folder; the module."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    names = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(set(vocabulary))])}
    tokenizer = Tokenizer(models.WordLevel(names, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", names["[SEP]"]), ("[CLS]", names["[CLS]"]))
    torch.manual_seed(0)
    made = MadeBert(len(names))
    optimizer = torch.optim.Adam(made.parameters(), 3e-3)
    tokenizer.enable_truncation(POSITIONS)
    encoded = [e.ids for e in tokenizer.encode_batch(list(texts))]
    longest = max(map(len, encoded))
    ids = torch.tensor([e + [0] * (longest - len(e)) for e in encoded])
    wanted = torch.tensor(labels)
    for step in range(steps):
        some = torch.arange(step * 16, step * 16 + 16) % len(ids)
        loss = nn.functional.cross_entropy(made(ids[some], (ids[some] > 0).long()), wanted[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    config = {
        "model_type": "bert", "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "hidden_size": WIDTH,
        "max_position_embeddings": POSITIONS, "layer_norm_eps": 1e-12, "hidden_act": "gelu", "pad_token_id": 0,
        "id2label": {"0": "bad", "1": "good"},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.no_truncation()
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    (folder / "model.safetensors").write_bytes(safetensors(made.named()))
    return made.eval()
