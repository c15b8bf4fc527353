"""What every Ray Train worker of `pretrain` runs: the training loop, and a note where going on would be useless.

A module of its own, so that Ray finds it by name, and with few imports, since a replaced worker pays for them again.
"""

from __future__ import annotations

import json
from typing import Any

from pipelines.datasets.store import Store, open_store
from pipelines.errors import GristmillError, MissingObjectError


def train_worker(task: dict[str, Any]) -> None:
    """Train on this rank.  An error of ours is noted: Ray would restart the workers only to meet it again."""
    import ray
    import ray.train
    import ray.train.torch
    import torch

    from training.loop import LoopSettings, train
    from training.process_group import reorder_ranks

    store = open_store(task["root"])
    if read_note(store, task["run"], task["job"]) is not None:
        return

    if (device := ray.train.torch.get_device()).type == "cuda":
        torch.cuda.set_device(device)  # NCCL's collectives of objects go there, the first of them before the engine
    here, worker = ray.get_runtime_context(), ray.train.get_context()
    place = (here.get_node_id(), here.get_node_labels().get("rack", ""), worker.get_local_rank())
    reorder_ranks(place, timeout_s=task["collective_timeout_s"])

    def on_step(metrics: dict[str, Any]) -> None:
        if metrics["step"] % task["report_every_steps"] == 0:  # equal on all ranks: report is a barrier
            told = ("step", "loss", "grad_norm", "trained_tokens", "tokens_per_s")
            ray.train.report({name: metrics[name] for name in told})

    try:
        train(store, task["run"], LoopSettings(**task["settings"]), on_step=on_step, started_by=task["job"])
    except GristmillError as error:
        note = {"error": type(error).__name__, "message": error.args[0], "mend": error.mend, "key": error.key}
        store.put(note_key(task["run"], task["job"]), json.dumps(note).encode(), create_only=True)
        raise


def note_key(run: str, job: str) -> str:
    """Where a job's first error is kept."""
    return f"runs/{run}/incidents/{job}.json"


def read_note(store: Store, run: str, job: str) -> dict[str, Any] | None:
    """The error that ended the job, if one of ours did."""
    try:
        return json.loads(store.get(note_key(run, job)))
    except MissingObjectError:
        return None
