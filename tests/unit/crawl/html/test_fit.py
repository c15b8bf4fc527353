from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pipelines.crawl.html import fit


def row(number: int, **fields) -> dict:
    lines = [f"Sentence {n} of story number {number} tells something about the mill number {number}." for n in range(5)]
    paragraphs = "".join(f"<p>{line}</p>" for line in lines)
    body = f"<title>Story {number}</title><body><div><div>{paragraphs}</div></div><div>foot {number}</div></body>"
    page = {"set": "s", "id": f"p{number}", "domain": f"d{number}.example", "lang": "en", "page_type": "article"}
    page |= {
        "html": body,
        "html_codec": "utf-8",
        "encoding": "utf-8",
        "gold": "\n".join(lines),
        "must": [],
        "must_not": [],
    }
    return page | fields


def samples(folder: Path, rows: list[dict]) -> list[fit.Sample]:
    (folder / "pages.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return fit.load(folder)


def test_strangers_stand_behind_the_story_and_are_no_main_text(tmp_path):
    loaded = samples(tmp_path, [row(n) for n in range(30)])
    made = fit.with_strangers(loaded, ())
    assert made
    for copy in made:
        texts = [text for text, label in zip(copy.texts, copy.label, strict=True) if label > 0.5]
        assert texts == copy.row["gold"].split("\n")
        assert len(copy.texts) > 6
        assert copy.share < 1
        original = next(s for s in loaded if s.row["id"] == copy.row["id"])
        assert copy.fold == original.fold
        donors = {s.row["id"] for s in loaded if s.fold == copy.fold}
        named = {f"p{n}" for n in range(30) if f"story number {n} " in " ".join(copy.texts)}
        assert named <= donors  # no text of a fold gets into another one


def test_lists_and_sets_that_may_not_be_fitted_on_get_no_copies(tmp_path):
    rows = [row(n, set="gpl" if n % 2 else "s", page_type="listing" if n % 4 == 0 else "article") for n in range(30)]
    made = fit.with_strangers(samples(tmp_path, rows), ("gpl",))
    assert made and all(s.row["set"] == "s" and s.row["page_type"] == "article" for s in made)


def test_pages_with_segments_only_label_only_these(tmp_path):
    only = row(1, gold=None, must=["Sentence 2 of story number 1"], must_not=["foot 1"])
    label = samples(tmp_path, [only])[0].label
    assert label.tolist() == [-1, -1, 1, -1, -1, 0]


def test_a_nameless_copy_differs_in_names_only():
    own = np.ones((1, len(fit.FEATURES)), np.float32)
    changed = [name for name, value in zip(fit.FEATURES, fit.nameless(own)[0], strict=True) if value != 1]
    assert "near.comment" in changed and "page.forum" in changed and "in.article" in changed
    assert not [name for name in changed if not name.startswith(("near.", "page.", "in."))]
