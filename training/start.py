"""Where a run's first weights come from: drawn, a Llama folder, or another run's checkpoint.

The chain pins what was meant by its sha256, so that an attempt on another machine cannot begin with other weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipelines.datasets.store import Store
from pipelines.errors import InputError, IntegrityError
from training.checkpoint.reader import CheckpointReader
from training.model.decoder import ModelConfig, draw, parameter_shapes
from training.model.llama import llama_weights, read_llama
from training.run_log import RunLog


def find_start(store: Store, init: str) -> tuple[dict[str, Any], ModelConfig]:
    """(what the chain pins, the model's sizes) of `FOLDER` or `RUN@STEP` (`RUN@` for its newest checkpoint).

    InputError where there is no such folder, run or checkpoint.
    """
    run, at, step = init.rpartition("@")
    if at and "/" not in run and (step.isdigit() or not step):
        entry = RunLog(store, run).checkpoint_of(int(step) if step else None)
        config = ModelConfig(**CheckpointReader(store, entry["key"], entry["sha256"]).body["model"])
        return {"run": run, "step": entry["step"], "key": entry["key"], "sha256": entry["sha256"]}, config
    folder = Path(init).expanduser().absolute()
    if not folder.is_dir():
        raise InputError(f"{init} is neither a folder nor RUN@STEP", mend="give a Llama folder or a run's checkpoint")
    config, _ = read_llama(folder)
    return {"folder": str(folder), "sha256": _folder_sha256(folder)}, config


def first_weights(
    store: Store, model: ModelConfig, seed: int, start: dict[str, Any] | None
) -> Callable[[str], torch.Tensor]:
    """What a run begins with: float32 weights by a parameter's name.  IntegrityError where others were pinned."""
    if start is None:
        shapes = parameter_shapes(model)
        return lambda name: draw(model, name, shapes[name], seed)
    if "folder" in start:
        if not Path(start["folder"]).is_dir():
            raise InputError(
                f"the run begins with the weights of {start['folder']}, which is not on this machine",
                mend="put the folder there on every machine that trains, or start from a run's checkpoint (RUN@STEP)",
            )
        if (found := _folder_sha256(Path(start["folder"]))) != start["sha256"]:
            raise IntegrityError(f"{start['folder']} has sha256 {found[:12]}, the run pins {start['sha256'][:12]}")
        return llama_weights(model, Path(start["folder"]))
    reader = CheckpointReader(store, start["key"], start["sha256"])
    return lambda name: torch.from_numpy(reader.parameter(name))


def _folder_sha256(folder: Path) -> str:
    """Of the names and contents of config and weights."""
    digest = hashlib.sha256()
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        with path.open("rb") as file:
            digest.update(json.dumps([path.name, hashlib.file_digest(file, "sha256").hexdigest()]).encode())
    return digest.hexdigest()
