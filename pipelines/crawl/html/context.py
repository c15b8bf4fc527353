"""What the blocks around a block, and its containers, look like to the first model: the second model's inputs.

Weighted means of the first model's probability over windows, containers, paths and repeated structures; the container
and the run of blocks that hold the most probable main text, and where the block lies in them.
"""

from __future__ import annotations

import numpy as np

from pipelines.kernels import kernel

_WINDOWS = (2, 5, 12, 30)
_LEVELS = (0.25, 0.5, 0.75)
CONTEXT: tuple[str, ...] = (
    "p",
    *(f"p@{o:+d}" for o in (-4, -3, -2, -1, 1, 2, 3, 4)),
    *(f"p_mean{r}" for r in _WINDOWS),
    "p_before",
    "p_after",
    "p_place",
    *(f"p_{what}_{group}" for group in ("box", "upper_box", "path", "repeat") for what in ("mean", "share")),
    *(f"p_{what}_up{level}" for level in range(1, 5) for what in ("mean", "share")),
    "p_page",
    "p_mass",
    "p_from_first",
    "p_to_last",
    "p_max_before",
    "p_max_after",
    *(
        f"{what}{int(100 * t)}"
        for t in _LEVELS
        for what in (
            "p_inside",
            "p_worth0_",
            "p_worth1_",
            "p_worth2_",
            "p_in_run",
            "p_run_from",
            "p_run_to",
            "p_span",
            "p_inside_place",
        )
    ),
)


def context(
    probability: np.ndarray, tokens: np.ndarray, groups: np.ndarray, blocks: np.ndarray, nodes: np.ndarray
) -> np.ndarray:
    """(n, len(CONTEXT)) float32 from (n,) probabilities and what `features` and `scan` gave."""
    return _context(probability.astype(np.float32), tokens, groups, blocks, nodes, len(CONTEXT), np.array(_LEVELS))


@kernel
def _context(p, tokens, groups, blocks, nodes, width, levels):
    n = len(p)
    m = len(nodes)
    out = np.zeros((n, width), np.float32)
    if n == 0:
        return out
    mass = np.zeros(n + 1, np.float64)
    weight = np.zeros(n + 1, np.float64)
    for b in range(n):
        w = tokens[b] + 0.3
        weight[b + 1] = weight[b] + w
        mass[b + 1] = mass[b] + w * p[b]
    whole = max(mass[n], 1e-6)
    first = 0
    last = n
    for b in range(n):
        if p[b] > 0.5:
            first = b
            break
    for b in range(n - 1, -1, -1):
        if p[b] > 0.5:
            last = b
            break
    room = 0
    for b in range(n):
        for k in range(4):
            room = max(room, groups[b, k])
    group_weight = np.zeros((room + 1, 4), np.float64)
    group_mass = np.zeros((room + 1, 4), np.float64)
    for b in range(n):
        w = tokens[b] + 0.3
        for k in range(4):
            group_weight[groups[b, k], k] += w
            group_mass[groups[b, k], k] += w * p[b]
    for b in range(n):
        row = out[b]
        row[0] = p[b]
        for k in range(4):
            row[1 + k] = p[b - 4 + k] if b - 4 + k >= 0 else -0.1
            row[5 + k] = p[b + 1 + k] if b + 1 + k < n else -0.1
        column = 9
        for r in (2, 5, 12, 30):
            a = max(b - r, 0)
            z = min(b + r + 1, n)
            row[column] = (mass[z] - mass[a]) / (weight[z] - weight[a])
            column += 1
        row[13] = mass[b] / max(weight[b], 1e-3)
        row[14] = (mass[n] - mass[b + 1]) / max(weight[n] - weight[b + 1], 1e-3)
        row[15] = mass[b] / whole
        column = 16
        for k in range(4):
            g = groups[b, k]
            row[column] = group_mass[g, k] / group_weight[g, k]
            row[column + 1] = group_mass[g, k] / whole
            column += 2
        u = blocks[b, 2]
        for _ in range(4):
            if nodes[u, 0] >= 0:
                u = nodes[u, 0]
            a = nodes[u, 3]
            z = nodes[u, 4]
            row[column] = (mass[z] - mass[a]) / max(weight[z] - weight[a], 1e-3)
            row[column + 1] = (mass[z] - mass[a]) / whole
            column += 2
        row[32] = mass[n] / weight[n]
        row[33] = np.log(1.0 + mass[n])
        row[34] = min(max(b - first, -60), 200)
        row[35] = min(max(last - b, -60), 200)
        for k in range(max(b - 5, 0), b):
            row[36] = max(row[36], p[k])
        for k in range(b + 1, min(b + 6, n)):
            row[37] = max(row[37], p[k])
    column = 38
    for level in levels:
        # The container worth most, when a block is worth its tokens times what its probability exceeds the level by.
        best = 0
        best_worth = -1e30
        for v in range(m):
            worth = mass[nodes[v, 4]] - mass[nodes[v, 3]] - level * (weight[nodes[v, 4]] - weight[nodes[v, 3]])
            if worth + 1e-6 * nodes[v, 2] > best_worth:
                best_worth = worth + 1e-6 * nodes[v, 2]
                best = v
        start = nodes[best, 3]
        end = nodes[best, 4]
        # The run of blocks worth most (Kadane).
        run_start = 0
        run_end = 0
        run_worth = 0.0
        current = 0.0
        current_start = 0
        for b in range(n):
            if current <= 0:
                current = 0.0
                current_start = b
            current += (tokens[b] + 0.3) * (p[b] - level)
            if current > run_worth:
                run_worth = current
                run_start = current_start
                run_end = b + 1
        scale = max(best_worth, 1e-3)
        for b in range(n):
            row = out[b]
            inside = start <= b and b < end
            row[column] = inside
            u = blocks[b, 2]
            for k in range(3):
                worth = mass[nodes[u, 4]] - mass[nodes[u, 3]] - level * (weight[nodes[u, 4]] - weight[nodes[u, 3]])
                row[column + 1 + k] = min(max(worth / scale, -3.0), 1.0)
                if nodes[u, 0] >= 0:
                    u = nodes[u, 0]
            row[column + 4] = run_start <= b and b < run_end
            row[column + 5] = min(max(b - run_start, -30), 60)
            row[column + 6] = min(max(run_end - b, -30), 60)
            row[column + 7] = (end - start) / n
            row[column + 8] = (b - start) / max(end - start, 1) if inside else -1.0
        column += 9
    return out
