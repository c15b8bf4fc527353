"""One rank's part in a pipeline: which parts of the chain it runs, on which rows.

Every stage is given the rows of all micro-steps, so only activations go from stage to stage; masks, positions and
labels do not. Stages meet micro-steps in one order, forward as in DeepSpeed's 1F1B schedule, so a counter tells which
rows an activation is of.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from training.model.decoder import Batch, Decoder


class Pipeline:
    """The parts [first, last) of a decoder, run micro-step by micro-step.

    `losses` are by row, of the micro-steps that the last stage has run.
    """

    def __init__(self, decoder: Decoder, parts: range) -> None:
        self.decoder, self._parts = decoder, parts
        self.losses: list[Tensor] = []
        self._batches: list[Batch] = []
        self._scale, self._next, self._shape = 1.0, 0, (0, 0)

    def begin(self, batches: list[Batch], scale: float) -> bool:
        """The rows of a step, all of one shape; whether it is another shape than before.  `scale`: of the loss."""
        self._batches, self._scale, self._next, self.losses = batches, scale, 0, []
        before, self._shape = self._shape, tuple(batches[0].ids.shape)
        return before != self._shape

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """What DeepSpeed loads at the first and the last stage."""
        return ((batch.ids, batch.labels) for batch in self._batches)

    def forward(self, x: Tensor) -> Tensor:
        """This stage's parts on the next micro-step: (B, L) ids or (B, L, D) in; the last stage gives (B,) losses."""
        batch = self._batches[self._next]
        self._next += 1
        return self.decoder.span(x, self._parts.start, self._parts.stop, batch)

    def loss(self, by_row: Tensor, _labels: Tensor) -> Tensor:
        """What the last stage goes backward from."""
        self.losses.append(by_row.detach())
        return by_row.sum() * self._scale
