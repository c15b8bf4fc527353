"""Training on one GPU beside plain torch and Hugging Face's library: utilisation, and where the rest of the time goes.

`python -m tests.benchmarks.gpu` needs torch, DeepSpeed and the base install, no Ray and no network; transformers is a
peer where it is there. Two models at 4,096 tokens a row: 1.3 billion parameters (24 layers of 2,048), and as many
layers of a 7B (4,096 wide) as fit. All read the same rows, through our loader from checked shards in a folder: the
document mask, clipping, the optimizer step and the loader are inside the timing. Every variant runs in a process of its
own: warm-up, then `--steps` steps, synchronised at both ends.

- ours: the engine as `pretrain` uses it (DeepSpeed ZeRO-1, bf16 with fp32 masters), attention inside documents
- torch: the same decoder under autocast with fp32 weights, torch.compile, scaled_dot_product_attention with a mask,
  fused AdamW
- hf: LlamaForCausalLM of the same shape, the same way

Utilisation (MFU) counts 6N + 12LHQT with the real lengths of the documents, and the same with full rows, which is how
published figures count. Without a GPU `--toy` shows that it runs; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.benchmarks.filters import note
from tests.unit.training.token_shards import EOS, FILLER, PAD, write_tokens
from training.data.plan import DatasetPin, single_segment_plan
from training.data.rows import IGNORED, RowArrays, SpecialTokens
from training.data.stream import RowSource, RowStream
from training.model.attention import attention_of, document_mask
from training.model.decoder import Decoder, ModelConfig, draw, parameter_shapes
from training.model.presets import preset, tiny
from training.step_metrics import peak_tflops_of, squared_lengths, step_flops

SPECIAL = SpecialTokens(eos_id=EOS, pad_id=PAD, filler_id=FILLER)
VOCABULARY = 32_000
WARM_UP = 8
CLIP, RATE = 1.0, 1e-4
BYTES_PER_PARAMETER = 18  # bf16 weights and gradients, fp32 masters, moments, and one buffer of the reduction
Step = Callable[[list[RowArrays]], float]


def main() -> None:
    """Every variant of every model in a process of its own; one JSON line."""
    arguments = _arguments()
    if arguments.variant:
        print(json.dumps(_measure(arguments)))
        return
    told: dict[str, Any] = {"benchmark": "gpu", **_machine(), "steps": arguments.steps, "toy": arguments.toy}
    told["attention_equal"] = _attention_errors()
    variants = ["ours", "torch", *(["hf"] if importlib.util.find_spec("transformers") else [])]
    with tempfile.TemporaryDirectory(prefix="gm-gpu-") as folder:
        for model in arguments.models:
            found = {variant: _child(arguments, model, variant, folder) for variant in variants}
            _tell(told, model, found)
    told["met"] = _met(told)
    print(json.dumps(told))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["1.3b", "7b"], choices=["1.3b", "7b"])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rows", type=int, default=4, help="rows a step, all in one micro-batch")
    parser.add_argument("--toy", action="store_true", help="a tiny model on the CPU, to see that it runs")
    parser.add_argument("--variant", choices=["ours", "torch", "hf"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.toy and not torch.cuda.is_available():
        parser.error("no GPU is at hand; --toy runs a tiny model on the CPU, whose figures mean nothing")
    return arguments


def _child(arguments: argparse.Namespace, model: str, variant: str, folder: str) -> dict[str, Any]:
    words = [sys.executable, "-m", "tests.benchmarks.gpu", "--variant", variant, "--models", model, "--folder", folder]
    words += ["--steps", str(arguments.steps), "--rows", str(arguments.rows), *(["--toy"] if arguments.toy else [])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        note(f"{model} {variant}: failed\n{done.stderr[-2000:]}")
        return {"failed": done.stderr.strip().splitlines()[-1][:300] if done.stderr else "no message"}
    return json.loads(done.stdout.splitlines()[-1])


def _tell(told: dict[str, Any], model: str, found: dict[str, dict[str, Any]]) -> None:
    note(f"{model}: {found['ours'].get('layers')} layers, {found['ours'].get('parameters', 0) / 1e9:.2f} billion")
    for variant, one in found.items():
        if "failed" in one:
            continue
        note(
            f"  {variant:6}{one['tokens_per_s']:>10,.0f} tokens/s  MFU {one['mfu']:.3f} "
            f"(full rows {one['mfu_full']:.3f})  {one['memory_gb']:.1f} GB  loss {one['loss']:.3f}"
        )
    name = model.replace(".", "_")
    told[name] = found
    ours = found["ours"]
    if "failed" not in ours:
        told[f"mfu_{name}"] = ours["mfu_full"]
        for peer in found.keys() - {"ours"}:
            if "failed" not in found[peer]:
                told[f"vs_{peer}_{name}"] = round(ours["tokens_per_s"] / found[peer]["tokens_per_s"], 3)


def _met(told: dict[str, Any]) -> dict[str, bool] | None:
    """The bars: half of the peak on Hopper, 58% on A100's kind, 1.05 times plain torch; None where none applies."""
    peak = peak_tflops_of(told["gpu"])
    if peak is None or told["toy"]:
        return None
    least = 0.58 if peak == 312 else 0.50
    met = {key: value >= least for key, value in told.items() if key.startswith("mfu_")}
    return met | {key: value >= 1.05 for key, value in told.items() if key.startswith("vs_torch")}


def _machine() -> dict[str, Any]:
    libraries = {}
    for name in ("torch", "deepspeed", "transformers"):
        try:
            libraries[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            libraries[name] = None
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"gpu": gpu, "cuda": torch.version.cuda, "versions": libraries}


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One variant of one model, in this process."""
    [name] = arguments.models
    config, length = _model(name, arguments.rows, toy=arguments.toy)
    rows = 2 if arguments.toy else arguments.rows
    prepare = {"ours": _ours, "torch": _plain, "hf": _hugging_face}[arguments.variant]
    steps = prepare(config, rows, length, arguments.folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    tokens, squares, loss, begun = 0, 0, 0.0, 0.0
    stream = _stream(arguments.folder, rows, length, WARM_UP + arguments.steps, config.vocab_size)
    for number, batch in enumerate(stream):
        if number == WARM_UP:
            _synchronise(device)
            begun = time.perf_counter()
        loss = steps(batch) / max(sum(row.trained_tokens for row in batch), 1)
        if number >= WARM_UP:
            tokens += rows * length
            squares += sum(squared_lengths(row) for row in batch)
    _synchronise(device)
    seconds = time.perf_counter() - begun
    available = 1e12 * seconds * (peak_tflops_of(torch.cuda.get_device_name() if device == "cuda" else "") or 1.0)
    told = {
        "layers": config.layers,
        "parameters": config.parameters,
        "seconds": round(seconds, 3),
        "tokens_per_s": round(tokens / seconds, 1),
        "mfu": round(step_flops(config, tokens, squares)[0] / available, 4),
        "mfu_full": round(step_flops(config, tokens, tokens * length)[0] / available, 4),
        "loss": round(loss, 4),
        "memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if device == "cuda" else 0.0,
    }
    if arguments.variant == "ours" and device == "cuda":
        batch = next(iter(_stream(arguments.folder, rows, length, 4, config.vocab_size)))
        told["profile"] = _profile(lambda: steps(batch))
    return told


def _model(name: str, rows: int, *, toy: bool) -> tuple[ModelConfig, int]:
    """(sizes, tokens a row); of a 7B as many layers as fit beside the activations of `rows` rows."""
    if toy:
        return replace(tiny(512), tied_embeddings=False), 128
    if name == "1.3b":
        return preset("1.3b", VOCABULARY), 4096
    whole = preset("baichuan-7b", VOCABULARY)
    memory = torch.cuda.get_device_properties(0).total_memory * 0.9 - 6e9
    per_layer = (whole.parameters - 2 * VOCABULARY * whole.d_model) / whole.layers * BYTES_PER_PARAMETER
    per_layer += rows * 4096 * (22 * whole.d_model + 8 * whole.d_ff)
    fixed = 2 * VOCABULARY * whole.d_model * BYTES_PER_PARAMETER + rows * 4096 * VOCABULARY * 8
    return replace(whole, layers=max(2, min(whole.layers, int((memory - fixed) / per_layer)))), 4096


def _stream(folder: str, rows: int, length: int, steps: int, vocab_size: int) -> Iterator[list[RowArrays]]:
    """Rows from shards in a folder, documents of 900 tokens on the mean; written once."""
    root = Path(folder) / f"tokens-{length}-{vocab_size}"
    from pipelines.datasets import open_dataset
    from pipelines.datasets.store import open_store

    store = open_store(root)
    if not root.exists() or not any(True for _ in store.list("datasets/")):
        rng = np.random.default_rng(7)
        count = 256 * length
        tokens = rng.integers(8, vocab_size, count, dtype=np.uint16)
        tokens[np.cumsum(rng.geometric(1 / min(900, length // 3), count // 100))[:-1] % count] = EOS
        write_tokens(store, {"en.web.q1": np.array_split(tokens, 2)}, vocab_size=vocab_size)
    manifest = open_dataset(store, "tokens").manifest
    plan = single_segment_plan(
        seed=1,
        dataset=DatasetPin(name="tokens", version=manifest.version, manifest_sha256=manifest.sha256),
        weights={"en.web.q1": 1.0},
        sequence_length=length,
        rows_per_batch=rows,
        steps=steps,
    )
    with RowStream(RowSource(store, plan), rank=0, world_size=1) as stream:
        for step in stream:
            yield step.rows


def _ours(config: ModelConfig, rows: int, _length: int, folder: str) -> Step:
    from training.engine import Engine
    from training.layout import EngineConfig
    from training.process_group import join_process_group

    join_process_group(rank=0, world_size=1, init_method=f"file://{tempfile.mkdtemp(dir=folder)}/group")
    fast = torch.cuda.is_available()
    layout = EngineConfig(
        zero_stage=1, precision="bf16", micro_batch_rows=rows, gradient_clip=CLIP, compile_model=fast
    )
    shapes = parameter_shapes(config)
    engine = Engine(config, lambda name: draw(config, name, shapes[name], 1), layout, SPECIAL)

    def step(batch: list[RowArrays]) -> float:
        tokens = sum(row.trained_tokens for row in batch)
        outcome = engine.train_step(batch, micro_steps=1, trained_tokens=tokens, learning_rate=RATE)
        return float(outcome.row_losses.sum())

    return step


def _plain(config: ModelConfig, _rows: int, _length: int, _folder: str) -> Step:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = initialise_on(Decoder(config))
    model.attention_way = "dense"
    run = torch.compile(model) if device == "cuda" else model
    return _autocast_step(model, lambda *batch: run(*batch).sum(), device)


def _hugging_face(config: ModelConfig, _rows: int, length: int, _folder: str) -> Step:
    from transformers import LlamaConfig, LlamaForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.d_model,
        intermediate_size=config.d_ff,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        max_position_embeddings=length,
        tie_word_embeddings=config.tied_embeddings,
        use_cache=False,
        attn_implementation="sdpa",
    )
    with torch.device(device):
        model = LlamaForCausalLM(shape)
    run = torch.compile(model) if device == "cuda" else model

    def loss(ids: torch.Tensor, places: torch.Tensor, documents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = run(input_ids=ids, position_ids=places, attention_mask=document_mask(documents)).logits
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), reduction="sum", ignore_index=IGNORED
        )

    return _autocast_step(model, loss, device)


def initialise_on(model: Decoder) -> Decoder:
    """Weights that need not be ours: drawn where the model lies."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.02)
        else:
            torch.nn.init.ones_(parameter)
    return model


def _autocast_step(model: torch.nn.Module, loss: Callable[..., torch.Tensor], device: str) -> Step:
    """fp32 weights as masters, bf16 by autocast, clipping, fused AdamW."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=device == "cuda"
    )

    def step(batch: list[RowArrays]) -> float:
        tensors = [
            torch.from_numpy(np.stack([getattr(row, field) for row in batch])).long().to(device)
            for field in ("ids", "positions", "documents", "labels")
        ]
        with torch.autocast(device, torch.bfloat16):
            nll = loss(*tensors)
        (nll / sum(row.trained_tokens for row in batch)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(nll.detach())

    return step


def _attention_errors() -> dict[str, float]:
    """Largest difference from the dense mask over the largest value, forward and gradients, by way.

    In single precision; `varlen`, whose kernel has half precision only, beside the dense mask in the same.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    documents, _ = torch.sort(torch.randint(0, 9, (2, 512), generator=torch.Generator().manual_seed(3)), dim=1)
    places = torch.zeros_like(documents)
    for row in range(2):
        _, counts = torch.unique_consecutive(documents[row], return_counts=True)
        places[row] = torch.cat([torch.arange(int(count)) for count in counts])
    documents, places = documents.to(device), places.to(device)
    inputs = [torch.randn(2, heads, 512, 64, device=device) for heads in (8, 4, 4)]

    def both(way: Any, dtype: torch.dtype) -> list[torch.Tensor]:
        leaves = [one.to(dtype).requires_grad_() for one in (x.clone() for x in inputs)]
        out = attention_of(documents, places, way=way)(*leaves)
        out.float().square().sum().backward()
        return [out.detach(), *(leaf.grad for leaf in leaves)]  # type: ignore[misc]

    ways = {"documents": torch.float32}
    if device == "cuda":
        ways |= {"flex": torch.float32, "varlen": torch.bfloat16}
    errors = {}
    for way, dtype in ways.items():
        pairs = zip(both(way, dtype), both("dense", dtype), strict=True)
        errors[way] = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    return errors


def _profile(step: Callable[[], object], steps: int = 3) -> dict[str, float]:
    """Share of the GPU's time by kind of kernel, and the share of the wall in which the GPU had nothing to do."""
    from torch.profiler import ProfilerActivity, profile

    kinds = {"matrix": ("gemm", "cutlass", "nvjet", "xmma"), "attention": ("flex", "flash", "fmha", "attention")}
    kinds |= {"optimizer": ("adam", "multi_tensor", "norm_"), "copies": ("memcpy", "memset"), "compiled": ("triton",)}
    step()
    _synchronise("cuda")
    begun = time.perf_counter()
    with profile(activities=[ProfilerActivity.CUDA]) as measured:
        for _ in range(steps):
            step()
        _synchronise("cuda")
    wall = time.perf_counter() - begun
    spent = dict.fromkeys([*kinds, "other"], 0.0)
    for event in measured.key_averages():
        name, seconds = event.key.lower(), event.self_device_time_total / 1e6
        kind = next((kind for kind, words in kinds.items() if any(word in name for word in words)), "other")
        spent[kind] += seconds
    busy = sum(spent.values())
    return {kind: round(seconds / wall, 3) for kind, seconds in spent.items()} | {"idle": round(1 - busy / wall, 3)}


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
