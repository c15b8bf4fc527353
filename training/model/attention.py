"""Attention inside documents, in the way that the machine does best; all ways give the same numbers.

`dense` hands a mask of every pair to torch's fused attention: simple, and right for short rows. `documents` runs each
document by itself, so it never computes a pair across a border: what a CPU does best where documents are short against
the row. For GPUs: `varlen` gives flash attention the borders of all documents of the batch at once (half precision, no
bias); `flex` compiles mask and bias into the kernel and skips the blocks that they empty.

Shape legend: B rows, L tokens, H query heads, G key/value heads, K head width.
"""

# ruff: noqa: N803, N806  (tensors carry shape suffixes)
from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from pipelines.errors import ConfigError

Way = Literal["auto", "dense", "documents", "varlen", "flex"]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # q (B, H, L, K), k and v (B, G, L, K) -> (B, H, L, K)


def attention_of(
    documents_BL: Tensor, positions_BL: Tensor, *, slopes_H: Tensor | None = None, way: Way = "auto"
) -> Attend:
    """Attention of these rows: causal, inside documents; with `slopes_H` biased by distance (Press et al., 2021).

    Made once a forward pass: mask or borders are the same in every layer.
    """
    if way == "auto" and documents_BL.device.type == "cuda":
        return _on_gpu(documents_BL, positions_BL, slopes_H)
    if way == "varlen":
        if slopes_H is not None:
            raise ConfigError("attention by varlen has no bias by distance", mend="flex, or rotary positions")
        return _varlen(documents_BL, _flash_varlen())
    if way == "flex":
        return _flex(documents_BL, positions_BL, slopes_H)
    if way in ("auto", "documents"):
        return _by_document(documents_BL, slopes_H)
    return _dense(documents_BL, positions_BL, slopes_H)


def document_mask(documents_BL: Tensor) -> Tensor:
    """True where a token may look: the same document, itself and before; (B, 1, L, L)."""
    same_BLL = documents_BL[:, :, None] == documents_BL[:, None, :]
    return same_BLL.tril().unsqueeze(1)


def alibi_slopes(heads: int) -> Tensor:
    """(H,) slopes of ALiBi: a geometric sequence from 2^(-8/n), n the power of two below; the rest in between."""
    whole = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8.0 * (i + 1) / whole) for i in range(whole)]
    slopes += [2.0 ** (-4.0 * (2 * i + 1) / whole) for i in range(heads - whole)]
    return torch.tensor(slopes)


def _dense(documents_BL: Tensor, positions_BL: Tensor, slopes_H: Tensor | None) -> Attend:
    mask: Tensor = document_mask(documents_BL)
    if slopes_H is not None:
        distance_B1LL = (positions_BL[:, :, None] - positions_BL[:, None, :]).unsqueeze(1)
        bias_BHLL = -slopes_H.view(1, -1, 1, 1) * distance_B1LL
        mask = bias_BHLL.masked_fill(~mask, -math.inf)

    def attend(q_BHLK: Tensor, k_BGLK: Tensor, v_BGLK: Tensor) -> Tensor:
        chosen = mask if mask.dtype == torch.bool else mask.to(q_BHLK.dtype)
        grouped = q_BHLK.shape[1] != k_BGLK.shape[1]
        return F.scaled_dot_product_attention(q_BHLK, k_BGLK, v_BGLK, attn_mask=chosen, enable_gqa=grouped)

    return attend


def _by_document(documents_BL: Tensor, slopes_H: Tensor | None) -> Attend:
    rows = [torch.unique_consecutive(row, return_counts=True)[1].tolist() for row in documents_BL]

    def attend(q_BHLK: Tensor, k_BGLK: Tensor, v_BGLK: Tensor) -> Tensor:
        grouped = q_BHLK.shape[1] != k_BGLK.shape[1]
        made = []
        for row, sizes in enumerate(rows):
            parts = zip(*(x[row : row + 1].split(sizes, dim=2) for x in (q_BHLK, k_BGLK, v_BGLK)), strict=True)
            found = [
                F.scaled_dot_product_attention(
                    *part,
                    attn_mask=None if slopes_H is None else _alibi_bias(slopes_H, part[0].shape[2], part[0].dtype),
                    is_causal=slopes_H is None,
                    enable_gqa=grouped,
                )
                for part in parts
            ]
            made.append(torch.cat(found, dim=2))
        return torch.cat(made)

    return attend


def _alibi_bias(slopes_H: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """(1, H, L, L): minus slope times distance before a token, minus infinity after it."""
    at = torch.arange(length, device=slopes_H.device)
    distance_LL = at[:, None] - at[None, :]
    bias_HLL = -slopes_H.view(-1, 1, 1) * distance_LL
    return bias_HLL.masked_fill(distance_LL < 0, -math.inf).to(dtype).unsqueeze(0)


def _on_gpu(documents_BL: Tensor, positions_BL: Tensor, slopes_H: Tensor | None) -> Attend:
    """`varlen` where its kernel serves, else `flex`; which one is known with the first queries."""
    made: dict[Way, Attend] = {}

    def attend(q_BHLK: Tensor, k_BGLK: Tensor, v_BGLK: Tensor) -> Tensor:
        way: Way = "varlen" if slopes_H is None and q_BHLK.dtype in (torch.bfloat16, torch.float16) else "flex"
        if way not in made:
            made[way] = attention_of(documents_BL, positions_BL, slopes_H=slopes_H, way=way)
        return made[way](q_BHLK, k_BGLK, v_BGLK)

    return attend


def borders(documents_BL: Tensor) -> Tensor:
    """(documents + 1,) int32: where each document of the batch begins, its rows laid end to end; then the end."""
    begins_BL = torch.ones_like(documents_BL, dtype=torch.bool)
    begins_BL[:, 1:] = documents_BL[:, 1:] != documents_BL[:, :-1]
    begins = begins_BL.flatten().nonzero().flatten()
    return F.pad(begins, (0, 1), value=documents_BL.numel()).int()


def _varlen(documents_BL: Tensor, kernel: Callable[..., Tensor]) -> Attend:
    """`kernel` takes q, k, v (tokens, heads, K), the borders twice, and the longest document twice."""
    ends = borders(documents_BL)
    rows, length = documents_BL.shape  # a document is no longer than its row; asking how long would wait for the GPU

    def attend(q_BHLK: Tensor, k_BGLK: Tensor, v_BGLK: Tensor) -> Tensor:
        packed = [x.transpose(1, 2).flatten(0, 1) for x in (q_BHLK, k_BGLK, v_BGLK)]
        grouped = q_BHLK.shape[1] != k_BGLK.shape[1]
        mixed_NHK = kernel(*packed, ends, ends, length, length, window_size=(-1, 0), enable_gqa=grouped)
        return mixed_NHK.view(rows, length, *mixed_NHK.shape[1:]).transpose(1, 2)

    return attend


def _flash_varlen() -> Callable[..., Tensor]:
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn


def _flex(documents_BL: Tensor, positions_BL: Tensor, slopes_H: Tensor | None) -> Attend:
    from torch.nn.attention.flex_attention import create_block_mask

    rows, length = documents_BL.shape

    def sees(b: Tensor, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (documents_BL[b, q] == documents_BL[b, k])

    def biased(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return score - slopes_H[h] * (positions_BL[b, q] - positions_BL[b, k])  # type: ignore[index]

    blocks = create_block_mask(sees, rows, None, length, length, device=documents_BL.device.type)
    score = None if slopes_H is None else biased

    def attend(q_BHLK: Tensor, k_BGLK: Tensor, v_BGLK: Tensor) -> Tensor:
        grouped = q_BHLK.shape[1] != k_BGLK.shape[1]
        kernel = _compiled_flex() if q_BHLK.is_cuda else _plain_flex()
        return kernel(q_BHLK, k_BGLK, v_BGLK, score_mod=score, block_mask=blocks, enable_gqa=grouped)

    return attend


@cache
def _compiled_flex() -> Any:
    return torch.compile(_plain_flex(), dynamic=False)


def _plain_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention
