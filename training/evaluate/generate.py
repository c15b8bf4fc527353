"""A few sampled tokens, to look at: seeded, one process, no cache of keys and values."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipelines.errors import InputError
from training.model.decoder import Decoder


@torch.no_grad()
def generate(
    model: Decoder,
    prompt: Sequence[int],
    *,
    new_tokens: int,
    context: int,
    eos_id: int,
    forbidden: Sequence[int] = (),
    temperature: float = 0.8,
    seed: int = 0,
) -> list[int]:
    """Token ids after the prompt, up to `new_tokens` or the EOS (left out); `temperature` 0 takes the likeliest."""
    if not prompt:
        raise InputError("generation needs at least one token of prompt")
    generator = torch.Generator().manual_seed(seed)
    ids = list(prompt)
    for _ in range(new_tokens):
        seen = torch.tensor([ids[-context:]])
        positions = torch.arange(seen.shape[1]).unsqueeze(0)
        logits_V = model.logits(seen, positions, torch.zeros_like(seen))[0, -1].float()  # noqa: N806
        logits_V[list(forbidden)] = -torch.inf
        if temperature == 0:
            chosen = int(logits_V.argmax())
        else:
            chances = torch.softmax(logits_V / temperature, dim=0)
            chosen = int(torch.multinomial(chances, 1, generator=generator))
        if chosen == eos_id:
            break
        ids.append(chosen)
    return ids[len(prompt) :]
