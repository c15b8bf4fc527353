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
from pipelines.crawl.html.scan import Scan
from pipelines.errors import IntegrityError
from pipelines.kernels import kernel

MODEL_NAME = "blocks.npz"
# Blocks of one page err together, so the expectation over independent blocks keeps too much; chosen on folds.
SHARPNESS = 1.7
_IS_TITLE = FEATURES.index("is_title")


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
    around = context(forward(fitted.first, own), tokens, groups, page.blocks, page.nodes)
    keep = best_cut(forward(fitted.second, np.hstack((own[:, fitted.own], around))), tokens)
    headline = own[:, _IS_TITLE] > 0
    body = np.flatnonzero(keep & ~headline)
    if len(body):
        keep[: body[0]] = False
    return keep


def forward(trees: Trees, rows: np.ndarray) -> np.ndarray:
    """(n,) float32 probabilities of (n, columns) float32 rows."""
    return _forward(rows, *trees)


@kernel
def _forward(rows, roots, column, threshold, left, right, leaves):
    n = len(rows)
    sums = np.zeros(n, np.float32)
    for root in roots:
        for b in range(n):
            k = root
            while k >= 0:
                k = left[k] if rows[b, column[k]] <= threshold[k] else right[k]
            sums[b] += leaves[-k - 1]
    return np.float32(1.0) / (np.float32(1.0) + np.exp(-sums))


def best_cut(probability: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """(n,) bool: the blocks to keep so that the expected token F1 of the page is largest."""
    keep = np.zeros(len(probability), bool)
    if len(probability):
        sharp = probability.astype(np.float64) ** SHARPNESS
        order = np.argsort(-sharp, kind="stable")
        weight = tokens[order].astype(np.float64)
        found = np.cumsum(weight * sharp[order])
        keep[order[: int(np.argmax(2 * found / (np.cumsum(weight) + found[-1] + 1e-9))) + 1]] = True
    return keep
