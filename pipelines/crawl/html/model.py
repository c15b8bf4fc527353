"""The two models of `blocks.npz` and their forward passes: which blocks are main text.

Gradient-boosted trees (fitted by `pipelines.crawl.html.fit`): the first sees a block's own numbers, the second also
what the first says of the blocks around it. The cut is made per page where the expected F1 is largest (an optimal F1
threshold is half of the F1 it reaches: Lipton et al. 2014, so no fixed threshold fits all pages).
"""

from __future__ import annotations

import functools
import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

import numpy as np

from pipelines.crawl.html.context import CONTEXT, context
from pipelines.crawl.html.features import FEATURES, features
from pipelines.crawl.html.scan import PARENT, Scan
from pipelines.errors import IntegrityError
from pipelines.kernels import kernel

MODEL_NAME = "blocks.npz"
# Blocks of one page err together, so that the expectation over independent blocks is off by a sharpness that differs
# from page to page; the cut has to be good under all of these.
SHARPNESS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
_LEAST_COPY_TOKENS = 8
_UNLIKELY = 0.02  # two blocks in five; the second model never makes main text of them
_IS_TITLE, _SAME_TEXT = FEATURES.index("is_title"), FEATURES.index("same_text")


class Trees(NamedTuple):
    """Trees as arrays: node k goes to `left[k]` where column `column[k]` <= `threshold[k]`, else to `right[k]`.

    A child below 0 is leaf -child-1.
    """

    roots: np.ndarray  # (trees,) int32
    column: np.ndarray  # (nodes,) int16
    threshold: np.ndarray  # (nodes,) float32
    left: np.ndarray  # (nodes,) int32
    right: np.ndarray  # (nodes,) int32
    leaves: np.ndarray  # (leaves,) float32


class Model(NamedTuple):
    """Both models, and which columns of the block's own numbers the second one takes."""

    first: Trees
    second: Trees
    own: np.ndarray  # (k,) int64


@functools.cache
def model() -> Model:
    """The shipped model; IntegrityError where it does not fit this code."""
    return read_model(files("pipelines.crawl.html").joinpath(MODEL_NAME))


def read_model(resource: Traversable) -> Model:
    """A model that `fit` wrote; IntegrityError where it does not fit this code."""
    with resource.open("rb") as file, np.load(file, allow_pickle=False) as loaded:
        if str(loaded["columns"]) != column_names_hash():
            raise IntegrityError(
                f"{resource.name} was fitted for other features than this code computes.",
                key=MODEL_NAME,
                mend="Restore the file of this version, or fit it again: python -m pipelines.crawl.html.fit",
            )
        trees = [Trees(*(loaded[f"{stage}.{name}"] for name in Trees._fields)) for stage in ("first", "second")]
        return Model(trees[0], trees[1], loaded["own"])


@functools.cache
def model_sha256() -> str:
    """sha256 of the shipped model."""
    return hashlib.sha256(files("pipelines.crawl.html").joinpath(MODEL_NAME).read_bytes()).hexdigest()


def column_names_hash() -> str:
    """Names the features that a model was fitted on."""
    return hashlib.sha256("\n".join((*FEATURES, "", *CONTEXT)).encode()).hexdigest()[:16]


def main_blocks(page: Scan, fitted: Model | None = None) -> np.ndarray:
    """(n,) bool: the blocks that are main text; a headline before the first of them is not, it is the page's title."""
    fitted = fitted or model()
    own, tokens, groups = features(page)
    first = forward(fitted.first, own)
    around = context(first, tokens, groups, page.blocks, page.nodes)
    second = first.copy()
    likely = first >= _UNLIKELY
    second[likely] = forward(fitted.second, np.hstack((own[likely][:, fitted.own], around[likely])))
    keep = best_cut(np.stack((first, second)), tokens)
    headline = own[:, _IS_TITLE] > 0
    body = np.flatnonzero(keep & ~headline)
    if len(body):
        keep[: body[0]] = False
    return without_copies(page, keep, (own[:, _SAME_TEXT] > 0) & (tokens >= _LEAST_COPY_TOKENS))


def forward(trees: Trees, rows: np.ndarray) -> np.ndarray:
    """(n,) float32 probabilities of (n, columns) float32 rows."""
    return _forward(rows, *trees)


@kernel
def _forward(rows, roots, column, threshold, left, right, leaves):
    n = len(rows)
    sums = np.zeros(n, np.float32)
    for b in range(n):  # rows outside: a page of many blocks does not fit into the cache, the trees do
        row = rows[b]
        total = np.float32(0.0)
        for root in roots:
            k = root
            while k >= 0:
                k = left[k] if row[column[k]] <= threshold[k] else right[k]
            total += leaves[-k - 1]
        sums[b] = total
    return np.float32(1.0) / (np.float32(1.0) + np.exp(-sums))


def best_cut(opinions: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """(n,) bool: the blocks to keep so that the expected token F1 of the page is largest.

    `opinions` are (models, n) probabilities. Blocks are taken in the order of their mean; where to stop is the mean of
    what each model at each sharpness expects.
    """
    keep = np.zeros(opinions.shape[1], bool)
    if len(keep):
        order = np.argsort(-opinions.mean(axis=0), kind="stable")
        weight = tokens[order].astype(np.float64)
        sharp = opinions[:, None, order].astype(np.float64) ** np.array(SHARPNESS)[:, None]
        found = np.cumsum(weight * sharp, axis=2)
        expected = (2 * found / (np.cumsum(weight) + found[..., -1:] + 1e-9)).sum(axis=(0, 1))
        keep[order[: int(np.argmax(expected)) + 1]] = True
    return keep


def without_copies(page: Scan, keep: np.ndarray, repeated: np.ndarray) -> np.ndarray:
    """`keep` without `repeated` blocks whose text was kept before in another container: a copy for small screens.

    What an author says twice stands in one container and stays.
    """
    keep = keep.copy()
    holders: dict[bytes, int] = {}
    for block in np.flatnonzero(keep & repeated):
        start, end, node = page.blocks[block, :3].tolist()
        holder = max(int(page.nodes[node, PARENT]), 0)
        keep[block] = holders.setdefault(page.text[start:end].tobytes(), holder) == holder
    return keep
