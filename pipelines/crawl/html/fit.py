"""Fit the models of `blocks.npz`: `python -m pipelines.crawl.html.fit --labels FOLDER [--folds] [--out FILE]`.

Needs LightGBM (`pip install gristmill[fit]`), which nothing else of the project does. `--folds FOLDER` also keeps the
models of five folds, each fitted without its pages; pages of one registered domain or with shared text are always in
the same fold. Sets named in `--without` are predicted and never fitted on; the file is a function of the labels and
of this code (one seed, deterministic trees).
"""

from __future__ import annotations

import argparse
import random
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.crawl.html.context import CONTEXT, context
from pipelines.crawl.html.features import FEATURES, features
from pipelines.crawl.html.labels import (
    block_labels,
    is_headline,
    page_bytes,
    page_groups,
    read_pages,
    segment_labels,
)
from pipelines.crawl.html.model import MODEL_NAME, Model, Trees, column_names_hash, forward
from pipelines.crawl.html.scan import SOURCE, Scan, scan
from pipelines.crawl.html.splice import Story, replies, spliced, stories_in_full, teasers, with_notices

FOLDS = 5
_AT_ONCE = 2  # models fitted side by side, each by one thread
ROUNDS = (200, 200)
WITHOUT = ("daniel_zh", "daniel_other")  # their repository is GPL-3.0
# Numbers of the page as a whole let trees learn pages by heart.
_NOT_FIRST = {"depth", "page_blocks", "page_tokens", "page_headings", "page_time", "links", "tokens"}
_SECOND_PREFIXES = (
    "phrase.",
    "page.",
    "since.",
    "heading.",
    "title_",
    "article_",
    "repeat_",
    "path_",
    "box_linked",
    "box_score",
    "read_",
    "terms_",
)
# What authors name: a second copy of every page goes without these, so that pages with no telling names are learnt too.
_NAMED = np.array(
    [
        name.startswith(("near.", "page."))
        or name in {f"in.{tag}" for tag in ("article", "main", "aside", "nav", "footer", "header", "section")}
        for name in FEATURES
    ]
)
_NAMELESS = np.array([20.0 if name.startswith(("near.", "in.")) else 0.0 for name in FEATURES], np.float32)
_SHARES = (0.65, 0.35)  # what a page and its nameless copy weigh
_LISTS = ("listing", "collection")  # whose main text are teasers
_REPLIES_SHARE = 0.3
_NOTICES_SHARE = 0.5
_LINKED = FEATURES.index("linked")
_NOTICE_PHRASES = [FEATURES.index(f"phrase.{name}") for name in ("disclaimer", "copyright", "app", "share", "login")]
_STRANGERS_SHARE = 0.5  # what the copy of an article with other stories behind it weighs
_CHINESE_WEIGHT = 1.5  # a seventh of the pages that may be fitted on are Chinese
_SECOND = {
    "log_tokens",
    "linked",
    "links_per_token",
    "ends_sentence",
    "ends_other",
    "in_title",
    "same_text",
    "phrase_bits",
    "han",
    "digit",
    "comma",
    "sentence_end",
    "colon",
    "after_break",
    "bold",
    "letters_per_token",
    "box_tokens0",
    "box_tokens1",
    "best_inside",
    "best_up",
    "blocks_from_title",
    "blocks_from_heading",
    "token_place",
    "page_linked",
    "page_sentences",
    "page_lists",
    "page_long",
    "page_longest",
    "page_titled",
    "log_tokens@-1",
    "log_tokens@+1",
    "linked@-1",
    "linked@+1",
    "headings_after_title",
    "heading_rank",
    "heading_level",
    "heading_linked",
    "long_since_title",
    "links_since_long",
    "own_repeat_linked",
    "first_long",
    "long_rank",
    *(
        f"near.{name}"
        for name in [
            "comment",
            "related",
            "ad",
            "sidebar",
            "footer",
            "content",
            "article",
            "forum",
            "share",
            "nav",
            "user",
            "meta",
            "list",
            "product",
        ]
    ),
    *(f"in.{name}" for name in ["article", "main", "aside", "footer", "li", "table", "h2", "p", "td"]),
}
FIRST_COLUMNS = np.array([k for k, name in enumerate(FEATURES) if name not in _NOT_FIRST], np.int64)
SECOND_COLUMNS = np.array(
    [k for k, name in enumerate(FEATURES) if name in _SECOND or name.startswith(_SECOND_PREFIXES)], np.int64
)
_TREES = {
    "objective": "cross_entropy",
    "num_leaves": 15,
    "learning_rate": 0.07,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.2,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "extra_trees": True,
    "max_bin": 63,
    "deterministic": True,
    "force_col_wise": True,
    "num_threads": 1,
    "seed": 1,
    "verbose": -1,
}


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
    share: float = 1.0


def load(folder: Path) -> list[Sample]:
    """The labelled pages; the charset is the one that the labels state, so that only extraction is fitted."""
    rows = list(read_pages(folder))
    return [_sample(row, _markup(row), fold_of(group)) for row, group in zip(rows, page_groups(rows), strict=True)]


def _markup(row: dict[str, Any]) -> bytes:
    return page_bytes(row).decode(row["encoding"], "replace").encode("utf-8", "replace")


def _sample(row: dict[str, Any], markup: bytes, fold: int, share: float = 1.0) -> Sample:
    page = scan(markup)
    own, tokens, groups = features(page)
    raw = page.text.tobytes()
    texts = [raw[a:b].decode("utf-8", "replace") for a, b in page.blocks[:, :2].tolist()]
    title = raw[page.title[0] : page.title[1]].decode("utf-8", "replace")
    return Sample(
        row=row,
        page=page,
        texts=texts,
        title=title,
        own=own,
        tokens=tokens,
        groups=groups,
        label=_labels(row, texts) if texts else None,
        headline=np.array([is_headline(text, title) for text in texts], bool),
        fold=fold,
        share=share,
    )


def with_strangers(samples: Sequence[Sample], without: Sequence[str]) -> list[Sample]:
    """Copies of pages with texts of other pages, of the same fold and script, behind their main text."""
    usable = [s for s in samples if s.row["gold"] and s.label is not None and s.row["set"] not in without]
    made = []
    for sample in usable:
        main = np.flatnonzero((sample.label > 0.5) & (sample.tokens >= 5))
        kind = sample.row.get("page_type") or "article"
        if kind in _LISTS or not len(main):
            continue
        draw = random.Random(sample.row["id"])
        is_chinese = sample.row["lang"] == "zh"
        others = [
            s
            for s in usable
            if s.fold == sample.fold
            and s.row["domain"] != sample.row["domain"]
            and (s.row["lang"] == "zh") == is_chinese
            and s.row.get("page_type") not in _LISTS
        ]
        for _ in range(2 if is_chinese else 1):
            added = _strangers(others, kind, draw)
            behind = int(sample.page.blocks[main[-1], SOURCE])
            markup = _markup(sample.row)
            if kind == "article" and draw.random() < _NOTICES_SHARE:
                notices = [text for s in others for text in _notices(s)]
                markup = with_notices(markup, behind, draw.sample(notices, min(len(notices), draw.randint(1, 3))), draw)
            if added:
                markup = spliced(markup, behind, added, draw) or markup
            made.append(_sample(sample.row, markup, sample.fold, _STRANGERS_SHARE))
    return made


def _notices(sample: Sample) -> list[str]:
    """Plain text of the page that is not its main text and reads like a notice."""
    own, label = sample.own, sample.label
    found = (label == 0) & (sample.tokens >= 12) & (sample.tokens <= 200) & (own[:, _LINKED] < 0.2)
    found &= (own[:, _NOTICE_PHRASES] > 0).any(axis=1)
    return [sample.texts[block] for block in np.flatnonzero(found)]


def _strangers(others: Sequence[Sample], kind: str, draw: random.Random) -> str:
    """Markup of other articles or their teasers; behind an article perhaps what readers of a forum wrote."""
    threads = [s for s in others if s.row.get("page_type") == "forum"]
    if kind == "article" and threads and draw.random() < _REPLIES_SHARE:
        chosen = draw.sample(threads, min(len(threads), 3))
        posts = [line for s in chosen for line in s.row["gold"].split("\n") if 20 <= len(line) <= 1500]
        return replies(draw.sample(posts, min(len(posts), draw.randint(2, 12))), draw) if posts else ""
    articles = [s for s in others if s.row.get("page_type") in (None, "article")]
    stories = [
        Story(title=s.title, paragraphs=paragraphs)
        for s in draw.sample(articles, min(len(articles), draw.randint(3, 8)))
        if (paragraphs := [line for line in s.row["gold"].split("\n") if len(line) >= 60])
    ]
    if not stories:
        return ""
    return stories_in_full(stories, draw) if kind == "article" and draw.random() < 0.4 else teasers(stories, draw)


def _labels(row: dict[str, Any], texts: list[str]) -> np.ndarray:
    if row["gold"]:
        return block_labels(texts, row["gold"])
    return segment_labels(texts, row["must"] or [], row["must_not"] or [])


def fold_of(group: str) -> int:
    """The fold of a group of pages, by hash."""
    return zlib.crc32(group.encode()) % FOLDS


def nameless(own: np.ndarray) -> np.ndarray:
    """The rows as if the page's elements had no class, id or telling tag."""
    return np.where(_NAMED, _NAMELESS, own)


def weights(sample: Sample) -> np.ndarray:
    """(n,) what each block's error costs: its tokens over what F1 divides by, so that pages count alike."""
    tokens = sample.tokens + 0.5
    share = 100 * tokens / (float((tokens * np.clip(sample.label, 0, 1)).sum()) + 0.5 * float(tokens.sum()) + 20)
    return share * sample.share * (_CHINESE_WEIGHT if sample.row["lang"] == "zh" else 1.0)


Rows = Callable[[Sample], tuple[np.ndarray, np.ndarray]]  # of a page, and of its nameless copy


def fit_trees(samples: Sequence[Sample], rows_of: Rows, rounds: int) -> Any:
    """A LightGBM booster over the labelled blocks of the samples; headlines are left out."""
    import lightgbm

    used = [(s, (s.label >= 0) & ~s.headline) for s in samples if s.label is not None]
    rows = np.concatenate([rows_of(s)[copy][mask] for copy in (0, 1) for s, mask in used])
    labels = np.concatenate([np.clip(s.label[mask], 0, 1) for s, mask in used] * 2)
    cost = np.concatenate([weights(s)[mask] * share for share in _SHARES for s, mask in used])
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
        nodes[place] = (
            int(columns[tree["split_feature"]]),
            float(bound),
            add(tree["left_child"]),
            add(tree["right_child"]),
        )
        return place

    for tree in booster.dump_model()["tree_info"]:
        roots.append(add(tree["tree_structure"]))
    column, threshold, left, right = zip(*nodes, strict=True)
    return Trees(
        np.array(roots, np.int32),
        np.array(column, np.int16),
        np.array(threshold, np.float32),
        np.array(left, np.int32),
        np.array(right, np.int32),
        np.array(leaves, np.float32),
    )


def _context_rows(sample: Sample, own: np.ndarray, first: np.ndarray) -> np.ndarray:
    around = context(first, sample.tokens, sample.groups, sample.page.blocks, sample.page.nodes)
    return np.hstack((own[:, SECOND_COLUMNS], around))


def first_rows(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """What the first model sees, before its columns are chosen."""
    return sample.own[:, FIRST_COLUMNS], nameless(sample.own)[:, FIRST_COLUMNS]


def fit_models(samples: Sequence[Sample], without: Sequence[str], rounds: Sequence[int]) -> tuple[list[Model], Model]:
    """One model a fold, fitted on the other folds, and one fitted on all; sets in `without` are never fitted on.

    The second model learns from what first models say of pages that they have not seen.
    """

    def usable(fold: int | None) -> list[Sample]:
        return [s for s in samples if s.label is not None and s.row["set"] not in without and s.fold != fold]

    every = [*range(FOLDS), None]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        firsts = list(
            pool.map(lambda fold: trees_of(fit_trees(usable(fold), first_rows, rounds[0]), FIRST_COLUMNS), every)
        )
        rows = {
            id(s): tuple(
                _context_rows(s, own, forward(firsts[s.fold], own))
                for own in (s.own, nameless(s.own).astype(np.float32))
            )
            for s in usable(None)
        }
        columns = np.arange(len(SECOND_COLUMNS) + len(CONTEXT))

        def second_rows(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
            return rows[id(sample)]  # type: ignore[return-value]

        seconds = list(pool.map(lambda fold: trees_of(fit_trees(usable(fold), second_rows, rounds[1]), columns), every))
    *folds, whole = (Model(first, second, SECOND_COLUMNS) for first, second in zip(firsts, seconds, strict=True))
    return folds, whole


def save(path: Path, model: Model) -> None:
    """Write the file; equal models give equal bytes."""
    arrays = {
        f"{stage}.{name}": getattr(getattr(model, stage), name)
        for stage in ("first", "second")
        for name in Trees._fields
    }
    with path.open("wb") as file:
        np.savez_compressed(file, columns=np.array(column_names_hash()), own=model.own, **arrays)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.crawl.html.fit", description=__doc__)
    parser.add_argument(
        "--labels", type=Path, required=True, help="folder of *.jsonl, .gz or .zst files of labelled pages"
    )
    parser.add_argument("--without", nargs="*", default=WITHOUT, help="sets that are not fitted on")
    parser.add_argument("--rounds", type=int, nargs=2, default=ROUNDS, help="trees of the two models")
    parser.add_argument("--folds", type=Path, help="folder for the models of the folds, fold0.npz to fold4.npz")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name(MODEL_NAME))
    chosen = parser.parse_args(arguments)
    samples = load(chosen.labels)
    folds, whole = fit_models([*samples, *with_strangers(samples, chosen.without)], chosen.without, chosen.rounds)
    save(chosen.out, whole)
    if chosen.folds:
        chosen.folds.mkdir(parents=True, exist_ok=True)
        for number, fitted in enumerate(folds):
            save(chosen.folds / f"fold{number}.npz", fitted)


if __name__ == "__main__":
    main()
