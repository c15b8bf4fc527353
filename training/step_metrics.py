"""What a step tells of itself: losses by cell, speed, utilisation, memory, and where the time went.

FLOPs of a token are 6 N + 12 L H Q T: two for each of N parameters forward, four backward, and the attention's two
products over T tokens in L layers of H heads of width Q, not halved for causality (PaLM, Chowdhery et al. 2022, B). N
is all parameters, or leaves out the input embedding, a look-up (a tied one is multiplied at the output, and counts).
With a document mask T is the token's own document: the sum over documents of their squared lengths takes the place of T
times the tokens. A step's seconds are those since the step before was told, so they hold the saves between.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from training.data.plan import Plan
from training.data.rows import RowArrays
from training.hardware import GPUS
from training.model.decoder import ModelConfig

WINDOW_STEPS = 100  # over which waits for data are told
# Where a step's time goes; the rest is `other`.
PARTS = ("data_wait", "forward_backward", "optimizer", "save_wait", "control", "other")


def peak_tflops_of(device_name: str) -> float | None:
    """A GPU's dense bf16 peak by what the driver calls it; None where it is not in the table."""
    return next((gpu.peak_tflops for name, gpu in GPUS.items() if name.split("-")[0].upper() in device_name), None)


def squared_lengths(row: RowArrays) -> int:
    """Sum over the documents of a row of their length squared."""
    return int((np.bincount(row.documents) ** 2).sum())


def step_flops(model: ModelConfig, tokens: int, squared: int) -> tuple[int, int]:
    """FLOPs of a step over `tokens` in documents of this sum of squares: with and without the input embedding."""
    attention = 12 * model.layers * model.heads * model.head_width * squared
    look_up = 0 if model.tied_embeddings else model.vocab_size * model.d_model
    return 6 * model.parameters * tokens + attention, 6 * (model.parameters - look_up) * tokens + attention


class CellLosses:
    """Loss by cell of the mixture: sums that add up over the ranks."""

    def __init__(self, plan: Plan) -> None:
        """Cells are numbered in the order of their names, over all segments."""
        self.names = sorted({cell.name for segment in plan.segments for cell in segment.cells})
        self._numbers = {name: number for number, name in enumerate(self.names)}

    def sums(
        self, cells: Sequence[str], rows: Sequence[RowArrays], row_losses: Sequence[float]
    ) -> npt.NDArray[np.float64]:
        """(2, cells): sum of token losses, and labels, of this rank's rows."""
        found = np.zeros((2, len(self.names)))
        for cell, row, loss in zip(cells, rows, row_losses, strict=True):
            found[:, self._numbers[cell]] += loss, row.trained_tokens
        return found

    def told(self, sums: npt.NDArray[np.float64]) -> dict[str, dict[str, float]]:
        """What the sums of all ranks say: mean loss and labels of the cells that the step read."""
        read = [(name, loss, int(labels)) for name, loss, labels in zip(self.names, *sums, strict=True) if labels]
        return {
            "loss_by_cell": {name: loss / labels for name, loss, labels in read},
            "tokens_by_cell": {name: labels for name, _, labels in read},
        }


class StepClock:
    """Seconds of the PARTS of a step, and waits for data over the last WINDOW_STEPS; one step at a time."""

    def __init__(self) -> None:
        """The first step begins now."""
        self._began = self._lap = time.perf_counter()
        self._parts = dict.fromkeys(PARTS, 0.0)
        self._window: deque[tuple[float, float]] = deque(maxlen=WINDOW_STEPS)

    def lap(self, part: str) -> None:
        """The time since the last lap goes to this part."""
        now = time.perf_counter()
        self._parts[part] += now - self._lap
        self._lap = now

    def move(self, seconds: float, part: str, *, out_of: str) -> None:
        """Seconds that are known to be of another part; no more than there are."""
        seconds = min(seconds, self._parts[out_of])
        self._parts[out_of] -= seconds
        self._parts[part] += seconds

    def end(self, mine: float, longest: float) -> dict[str, float]:
        """The step's seconds, whole and by part; waits for data of this rank, and the longest of any.

        What others wait longer than this rank, it waits for them.
        """
        self.lap("other")
        self.move(mine, "data_wait", out_of="other")
        self.move(longest - mine, "data_wait", out_of="control")
        seconds, self._began = self._lap - self._began, self._lap
        self._window.append((longest, seconds))
        waits, all_seconds = np.array(self._window).T
        told = {
            "seconds": seconds,
            **{f"{part}_seconds": value for part, value in self._parts.items()},
            "data_wait_p50_seconds": float(np.quantile(waits, 0.5)),
            "data_wait_p99_seconds": float(np.quantile(waits, 0.99)),
            "stall_share": float(waits.sum() / all_seconds.sum()),
        }
        self._parts = dict.fromkeys(PARTS, 0.0)
        return told


def speed(
    model: ModelConfig, tokens: int, squared: int, seconds: float, world_size: int, peak_tflops: float | None
) -> dict[str, float | None]:
    """Tokens a second, of all ranks and of one, and the share of the ranks' peak by both counts of N."""
    told: dict[str, float | None] = {"tokens_per_s": tokens / seconds}
    told["tokens_per_s_rank"] = tokens / seconds / world_size
    for name, flops in zip(("mfu", "mfu_without_embedding"), step_flops(model, tokens, squared), strict=True):
        told[name] = flops / seconds / (peak_tflops * 1e12 * world_size) if peak_tflops else None
    return told


def memory() -> dict[str, int | None]:
    """Most bytes that this process, and its GPU, have held so far."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "peak_rss_bytes": resident,
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    }
