"""`gristmill preview`: what a bound would keep, with documents from its border, from stored measures alone."""

from __future__ import annotations

import json
import time

import pytest

from jobs import extract_crawl, filter_documents
from jobs.runtime.context import Context
from pipelines.datasets import open_dataset
from pipelines.datasets.store import open_store
from tests.made_crawl import page_html, pages, write_crawl


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preview")
    extra = [(f"https://short.example/{n}", page_html([f"Short \x1b[31mpage\u202e {n}."] * n)) for n in range(1, 12)]
    crawl = write_crawl(
        folder, {"a.warc.gz": pages(range(12)) + extra[:5], "b.warc.gz": pages(range(12, 20)) + extra[5:]}
    )
    store = open_store(folder / "root")
    extract_crawl.run(extract_crawl.Config(crawl=crawl), Context(store=store, engine="process", flush_seconds=0.0))
    return folder / "root"


@pytest.fixture
def run(capsys):
    from cluster.cli import main

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            main(["preview", *(str(a) for a in arguments)])
            code = 0
        except SystemExit as e:
            code = int(e.code or 0)
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def test_it_tells_what_filter_documents_would_keep(run, root):
    code, out, _ = run("text.characters.min", "--values", "0,100,400", "--json", "--root", root)
    assert code == 0
    told = json.loads(out)
    measured = open_dataset(str(root), "filters").to_arrow()["text.characters"].to_pylist()
    for row in told["values"]:
        assert told["all"]["documents"] == len(measured) == 31
        if row["value"] in (0.0, 100.0, 400.0):
            kept = [c for c in measured if c >= row["value"]]
            assert row["alone"] == {"documents": len(kept), "characters": int(sum(kept))}
    now = [row for row in told["values"] if row["is_now"]]
    assert told["now"] == [80.0, 200.0] and len(now) == 2
    store = open_store(str(root))
    corpus, _ = filter_documents.run(
        filter_documents.Config(dedup="", quality="", bounds={"text.characters.min": 100}),
        Context(store=store, engine="process"),
    )
    (at_100,) = [row for row in told["values"] if row["value"] == 100.0]
    assert corpus.books["documents"]["kept"] == at_100["with_all_rules"]["documents"]


def test_documents_of_the_border_are_the_nearest_ones_of_all_parts(run, root):
    _, out, _ = run("text.characters.min", "--values", "100", "--samples", "3", "--json", "--root", root)
    measured = sorted(open_dataset(str(root), "filters").to_arrow()["text.characters"].to_pylist())
    (row,) = [r for r in json.loads(out)["values"] if r["value"] == 100.0]
    below = [s["value"] for s in row["border"]["dropped"]]
    assert below == sorted([m for m in measured if m < 100], reverse=True)[:3]
    assert [s["value"] for s in row["border"]["kept"]] == [m for m in measured if m >= 100][:3]


def test_it_answers_in_seconds_within_80_columns_with_crawled_text_escaped(run, root):
    begun = time.monotonic()
    code, out, _ = run("text.characters", "--side", "min", "--values", "30,60", "--root", root)
    assert code == 0 and time.monotonic() - begun < 5
    assert "30 dropped:" in out and "https://short.example/" in out
    assert "\x1b" not in out and "\u202e" not in out
    assert all(len(line) <= 80 for line in out.splitlines() if not line.startswith("root:"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["text.charcters", "--values", "1"], "text.characters"),
        (["text.words", "--values", "1"], "--side"),
        (["text.characters", "--values", "a,b"], "0.1,0.2"),
        (["code.alphanumeric_fraction", "--values", "1", "--filters", "nothing"], "nothing"),
    ],
)
def test_a_question_that_cannot_be_answered_names_its_mend(run, root, arguments, says):
    code, _, err = run(*arguments, "--root", root)
    assert code in (2, 3) and says in err


def test_a_measure_without_a_rule_takes_a_side(run, root):
    code, out, _ = run("text.lines", "--side", "max", "--values", "3", "--root", root)
    assert code == 0 and "at most" in out
