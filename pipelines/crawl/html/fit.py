"""Fit the models of `blocks.npz`: `python -m pipelines.crawl.html.fit --labels FOLDER [--folds] [--out FILE]`.

Needs LightGBM (`pip install gristmill[fit]`), which nothing else of the project does.  `--folds` first prints held-out figures:
five folds, pages of one registered domain or with shared text always in the same fold.  Sets named in `--without` are
predicted and never fitted on; the file is a function of the labels and of this code (one seed, deterministic trees).
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.crawl.html.context import context
from pipelines.crawl.html.features import FEATURES, features
from pipelines.crawl.html.labels import (
    block_labels,
    is_headline,
    page_bytes,
    page_groups,
    read_pages,
    segment_hits,
    token_scores,
    without_headline,
)
from pipelines.crawl.html.model import MODEL_NAME, Model, Trees, best_cut, column_names_hash, forward
from pipelines.crawl.html.scan import Scan, scan

FOLDS = 5
# Numbers of the page as a whole let trees learn pages by heart.
_NOT_FIRST = {"depth", "page_blocks", "page_tokens", "page_headings", "page_time", "links", "tokens"}
_SECOND_PREFIXES = ("phrase.", "page.", "since.", "heading.", "title_", "article_", "repeat_", "path_", "box_linked", "box_score")
_SECOND = {
    "log_tokens", "linked", "links_per_token", "ends_sentence", "ends_other", "in_title", "same_text", "phrase_bits", "han", "digit",
    "comma", "sentence_end", "colon", "after_break", "bold", "letters_per_token", "box_tokens0", "box_tokens1", "best_inside", "best_up",
    "blocks_from_title", "blocks_from_heading", "token_place", "page_linked", "page_sentences", "page_lists", "page_long",
    "page_longest", "page_titled", "log_tokens@-1", "log_tokens@+1", "linked@-1", "linked@+1", "headings_after_title", "heading_rank",
    "heading_level", "heading_linked", "long_since_title", "links_since_long", "own_repeat_linked", "first_long", "long_rank",
    *(f"near.{name}" for name in "comment related ad sidebar footer content article forum share nav user meta list product".split()),
    *(f"in.{name}" for name in "article main aside footer li table h2 p td".split()),
}  # fmt: skip
FIRST_COLUMNS = np.array([k for k, name in enumerate(FEATURES) if name not in _NOT_FIRST], np.int64)
SECOND_COLUMNS = np.array(
    [k for k, name in enumerate(FEATURES) if name in _SECOND or name.startswith(_SECOND_PREFIXES)], np.int64
)
_TREES = {
    "objective": "cross_entropy", "num_leaves": 15, "learning_rate": 0.07, "min_data_in_leaf": 80, "feature_fraction": 0.2,
    "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 5.0, "extra_trees": True, "max_bin": 127, "deterministic": True,
    "force_row_wise": True, "num_threads": 2, "seed": 1, "verbose": -1,
}  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Sample:
    """One labelled page; `own`, `tokens`, `groups` are what `features` gives."""

    row: dict[str, Any]
    page: Scan
    texts: list[str]
    title: str
    own: np.ndarray
    tokens: np.ndarray
    groups: np.ndarray
    label: np.ndarray | None
    headline: np.ndarray
    fold: int


def load(folder: Path) -> list[Sample]:
    """The labelled pages; the charset is the one that the labels state, so that only extraction is fitted."""
    rows = list(read_pages(folder))
    samples = []
    for row, group in zip(rows, page_groups(rows), strict=True):
        page = scan(page_bytes(row).decode(row["encoding"], "replace").encode("utf-8", "replace"))
        own, tokens, groups = features(page)
        raw = page.text.tobytes()
        texts = [raw[a:b].decode("utf-8", "replace") for a, b in page.blocks[:, :2].tolist()]
        title = raw[page.title[0] : page.title[1]].decode("utf-8", "replace")
        samples.append(
            Sample(
                row=row, page=page, texts=texts, title=title, own=own, tokens=tokens, groups=groups,
                label=block_labels(texts, row["gold"]) if row["gold"] and texts else None,
                headline=np.array([is_headline(text, title) for text in texts], bool),
                fold=zlib.crc32(group.encode()) % FOLDS,
            )  # fmt: skip
        )
    return samples


def weights(sample: Sample) -> np.ndarray:
    """(n,) what each block's error costs: its tokens over what F1 divides by, so that pages count alike."""
    assert sample.label is not None
    tokens = sample.tokens + 0.5
    return 100 * tokens / (float((tokens * np.clip(sample.label, 0, 1)).sum()) + 0.5 * float(tokens.sum()) + 20)


def fit_trees(samples: Sequence[Sample], rows_of: Callable[[Sample], np.ndarray], rounds: int) -> Any:
    """A LightGBM booster over the labelled blocks of the samples; headlines are left out."""
    import lightgbm

    used = [(s, (s.label >= 0) & ~s.headline) for s in samples if s.label is not None]
    rows = np.concatenate([rows_of(s)[mask] for s, mask in used])
    labels = np.concatenate([np.clip(s.label[mask], 0, 1) for s, mask in used])
    cost = np.concatenate([weights(s)[mask] for s, mask in used])
    data = lightgbm.Dataset(rows, labels, weight=cost, params={"max_bin": _TREES["max_bin"], "verbose": -1})
    return lightgbm.train(_TREES, data, rounds)


def trees_of(booster: Any, columns: np.ndarray) -> Trees:
    """The booster as arrays; its column k is `columns[k]` of the rows it will see."""
    roots: list[int] = []
    nodes: list[tuple[int, float, int, int]] = []
    leaves: list[float] = []

    def add(tree: dict[str, Any]) -> int:
        if "leaf_value" in tree:
            leaves.append(tree["leaf_value"])
            return -len(leaves)
        place = len(nodes)
        nodes.append((0, 0.0, 0, 0))
        bound = np.float32(tree["threshold"])
        if float(bound) > tree["threshold"]:  # rows are float32, so the largest float32 below it decides the same
            bound = np.nextafter(bound, np.float32(-np.inf))
        nodes[place] = (int(columns[tree["split_feature"]]), float(bound), add(tree["left_child"]), add(tree["right_child"]))
        return place

    for tree in booster.dump_model()["tree_info"]:
        roots.append(add(tree["tree_structure"]))
    column, threshold, left, right = zip(*nodes, strict=True)
    return Trees(
        np.array(roots, np.int32), np.array(column, np.int16), np.array(threshold, np.float32), np.array(left, np.int32),
        np.array(right, np.int32), np.array(leaves, np.float32),
    )  # fmt: skip


def second_rows(sample: Sample, first: np.ndarray) -> np.ndarray:
    """What the second model sees."""
    return np.hstack((sample.own[:, SECOND_COLUMNS], context(first, sample.tokens, sample.groups, sample.page.blocks, sample.page.nodes)))


def out_of_fold(
    samples: Sequence[Sample], fitted_on: Callable[[Sample], bool], rows_of: Callable[[Sample], np.ndarray], columns: np.ndarray, rounds: int
) -> dict[str, np.ndarray]:
    """Probabilities of each page from the model that saw none of its fold, by page id."""
    found = {}
    for fold in range(FOLDS):
        trees = trees_of(fit_trees([s for s in samples if s.fold != fold and fitted_on(s)], rows_of, rounds), columns)
        for sample in samples:
            if sample.fold == fold:
                found[sample.row["id"]] = forward(trees, _wide(rows_of(sample), columns))
    return found


def _wide(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Rows whose column `columns[k]` is column k of these."""
    wide = np.zeros((len(rows), int(columns.max()) + 1), np.float32)
    wide[:, columns] = rows
    return wide


def report(samples: Iterable[Sample], found: dict[str, np.ndarray], sets: Sequence[str]) -> dict[str, Any]:
    """Mean token F1 a set and over sets, Chinese pages, segments."""
    by_set: dict[str, list[float]] = defaultdict(list)
    chinese: list[float] = []
    hits = np.zeros(4)
    for sample in samples:
        keep = best_cut(found[sample.row["id"]], sample.tokens)
        text = "\n".join(t for t, is_kept in zip(sample.texts, keep, strict=True) if is_kept)
        if sample.row["gold"]:
            score = token_scores(without_headline(text, sample.title), without_headline(sample.row["gold"], sample.title))[2]
            by_set[sample.row["set"]].append(score)
            if sample.row["lang"] == "zh":
                chinese.append(score)
        else:
            hits += segment_hits(text, sample.row["must"], sample.row["must_not"])
    means = {name: round(float(np.mean(by_set[name])), 4) for name in sets if by_set[name]}
    return {
        "macro": round(float(np.mean(list(means.values()))), 4), "zh": round(float(np.mean(chinese)), 4), "sets": means,
        "must": round(hits[0] / max(hits[1], 1), 4), "must_not": round(1 - hits[2] / max(hits[3], 1), 4),
    }  # fmt: skip


def save(path: Path, model: Model) -> None:
    """Write the file; equal models give equal bytes."""
    arrays = {f"{stage}.{name}": getattr(getattr(model, stage), name) for stage in ("first", "second") for name in Trees._fields}
    with path.open("wb") as file:
        np.savez_compressed(file, columns=np.array(column_names_hash()), own=model.own, **arrays)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.crawl.html.fit", description=__doc__)
    parser.add_argument("--labels", type=Path, required=True, help="folder of *.jsonl, .gz or .zst files of labelled pages")
    parser.add_argument("--without", nargs="*", default=["daniel_zh", "daniel_other"], help="sets that are not fitted on")
    parser.add_argument("--rounds", type=int, nargs=2, default=(200, 200), help="trees of the two models")
    parser.add_argument("--folds", action="store_true", help="print held-out figures first")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name(MODEL_NAME))
    chosen = parser.parse_args(arguments)
    samples = load(chosen.labels)
    sets = sorted({s.row["set"] for s in samples if s.row["gold"]})

    def fitted_on(sample: Sample) -> bool:
        return sample.label is not None and sample.row["set"] not in chosen.without

    def first_rows(sample: Sample) -> np.ndarray:
        return sample.own[:, FIRST_COLUMNS]

    first = out_of_fold(samples, fitted_on, first_rows, FIRST_COLUMNS, chosen.rounds[0])
    rows = {s.row["id"]: second_rows(s, first[s.row["id"]]) for s in samples}

    def rows_of(sample: Sample) -> np.ndarray:
        return rows[sample.row["id"]]

    columns = np.arange(next(iter(rows.values())).shape[1])
    if chosen.folds:
        second = out_of_fold(samples, fitted_on, rows_of, columns, chosen.rounds[1])
        sys.stdout.write(json.dumps({"first": report(samples, first, sets), "second": report(samples, second, sets)}) + "\n")
    used = [s for s in samples if fitted_on(s)]
    save(
        chosen.out,
        Model(
            trees_of(fit_trees(used, first_rows, chosen.rounds[0]), FIRST_COLUMNS),
            trees_of(fit_trees(used, rows_of, chosen.rounds[1]), columns),
            SECOND_COLUMNS,
        ),
    )


if __name__ == "__main__":
    main()
