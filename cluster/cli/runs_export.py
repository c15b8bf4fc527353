"""`gristmill runs export`: a checkpoint as a folder that Hugging Face's tools read."""

from __future__ import annotations

from pathlib import Path

import click

from cluster.cli.options import open_root, with_root
from pipelines.errors import InputError


@click.command()
@click.argument("what", metavar="RUN[@STEP]")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--dtype", type=click.Choice(["bfloat16", "float16", "float32"]), default="bfloat16", show_default=True)
@with_root
def export(what: str, folder: Path, dtype: str, root: str | None) -> None:
    """Write a checkpoint as a LlamaForCausalLM with its tokenizer.

    The newest one, or that of a step. The weights are the fp32 masters,
    rounded once.
    """
    import torch

    from pipelines.datasets import open_dataset
    from training.checkpoint.reader import CheckpointReader
    from training.model.decoder import ModelConfig
    from training.model.llama import write_llama
    from training.run_log import RunLog

    store = open_root(root)
    name, _, step = what.partition("@")
    if step and not step.isdigit():
        raise InputError(f"{what}: the step is a number", mend=f"for example {name}@1000")
    log = RunLog(store, name)
    entry = log.checkpoint_of(int(step) if step else None)
    reader = CheckpointReader(store, entry["key"], entry["sha256"])
    segment = log.state.plan.segments[-1]
    pin = segment.datasets[0]
    tokens = open_dataset(store, pin.name, pin.version).manifest.stats["tokenizer"]
    paths = write_llama(
        folder,
        ModelConfig(**reader.body["model"]),
        list(reader.shapes),
        lambda parameter: torch.from_numpy(reader.parameter(parameter).copy()),
        dtype=dtype,
        ids=tokens,
        longest=max(s.sequence_length for s in log.state.plan.segments),
    )
    artifact = open_dataset(store, tokens["name"], tokens["version"])
    for part in artifact.parts("file").to_pylist():
        (folder / Path(part["input"]).name).write_bytes(artifact.read_file(part["input"]))
    click.echo(f"{name} at step {entry['step']}: {len(paths)} files of weights ({dtype}) in {folder}")
