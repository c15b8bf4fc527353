import random
import uuid

import pyarrow as pa
import pytest

from jobs.dedup_documents import Config, run
from jobs.runtime.context import Context
from pipelines.datasets import open_dataset
from pipelines.datasets.parts import PartWriter
from pipelines.datasets.schemas import DOCUMENTS
from pipelines.datasets.store import MemoryStore, open_store
from pipelines.dedup.report import dedup_page, page_html, page_text, read_row, state_words
from pipelines.errors import InputError
from tests.made_documents import commit_documents

SAME = "one two three four five six seven eight nine ten eleven <b>twelve</b>"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "root"
    ctx = Context(store=open_store(folder), engine="process")
    rows = [{"text": f"{SAME} {'more ' * i}", "url": f"http://a.example/{i}\u202e"} for i in range(3)]
    rows += [{"text": "another page that is alone"}, {"text": "quite alone as well, this one"}]
    commit_documents(ctx, {"a": rows[:2], "b": rows[2:]})
    run(Config(), ctx)
    return folder


class Counting(MemoryStore):
    read = 0

    def get_ranges(self, key, ranges):
        Counting.read += sum(end - first for first, end in ranges)
        return super().get_ranges(key, ranges)


def test_a_row_is_read_by_its_group_alone():
    rng = random.Random(0)
    writer = PartWriter(DOCUMENTS)
    for start in range(0, 40, 4):
        texts = ["".join(chr(rng.randrange(0x4E00, 0x9000)) for _ in range(1_000_000)) for _ in range(4)]
        rows = [{"id": f"{start + i:032x}", "text": text, "url": f"u{start + i}"} for i, text in enumerate(texts)]
        writer.write(pa.Table.from_pylist(rows, schema=DOCUMENTS))
    made = writer.finish("documents", "u" * 32, "part")
    store = Counting(f"memory://{uuid.uuid4().hex}")
    store.put(made.key, made.body)
    for row in (0, 7, 39):
        found = read_row(store, made.key, row, ("id", "url", "text"))
        assert (found["id"], found["url"], len(found["text"])) == (f"{row:032x}", f"u{row}", 1_000_000)
    assert 0 < Counting.read < 1.3 * len(made.body)  # three groups of about a fifth, and footers
    with pytest.raises(InputError):
        read_row(store, made.key, 40, ("id",))


def test_the_page_shows_the_one_that_stays_and_some_that_left(root):
    dedup = open_dataset(open_store(root), "dedup")
    page = dedup_page(dedup)
    assert (page["kept"], page["duplicates"], page["cluster_sizes"]) == (3, 2, {"3-4": 1})
    assert page["accepted"] == page["counts"]["verified"] / page["counts"]["candidates"]
    (cluster,) = page["biggest_clusters"]
    assert cluster["documents"] == 3 and cluster["samples"][0]["id"] == cluster["cluster"]
    assert [sample["text"].count("more") for sample in cluster["samples"]] == [2, 0, 1]
    assert "one two" not in str(dedup.manifest.body())  # the manifest holds no text
    told = "\n".join(page_text(page, lambda value: str(value).replace("\u202e", "")))
    assert "3 documents stay, 2 leave" in told and "one two three" in told
    shown = page_html(page)
    assert "&lt;b&gt;twelve&lt;/b&gt;" in shown and "<b>" not in shown and "http-equiv" not in shown


def test_the_state_is_told_in_words():
    assert [state_words(state)[:16] for state in (0, 1, 0b1110, 0b1100, 16)] == [
        "nothing like it ", "an exact copy", "a near copy, fou", "a near copy, fou", "another capture ",
    ]  # fmt: skip
    assert state_words(0b1100).endswith("round 2")


def test_a_dataset_without_a_report_is_refused(root):
    with pytest.raises(InputError, match="no report"):
        dedup_page(open_dataset(open_store(root), "documents"))


def test_the_command_shows_it_and_writes_a_page(root, tmp_path, capsys):
    from cluster.cli import main

    def call(*arguments):
        main([str(a) for a in ("datasets", "report", *arguments, "--root", root)])
        return capsys.readouterr().out

    assert "a cluster of 3" in call("dedup") and "\u202e" not in call("dedup@1")
    assert '"accepted"' in call("--json")
    left = open_dataset(open_store(root), "dedup").to_arrow().to_pylist()[0]
    main(["explain", left["id"], "--root", str(root)])
    told = capsys.readouterr().out
    assert "dedup.state: 14 (a near copy, found in round 1)" in told
    stays = left["dedup.match"]
    assert stays == left["dedup.cluster"] and 0.7 <= left["dedup.similarity"] < 1
    for column in ("match", "cluster", "cluster_size", "similarity", "first_seen"):
        assert f"  dedup.{column}: {left[f'dedup.{column}']}\n" in told
    assert left["dedup.cluster_size"] == 3 and left["dedup.first_seen"] == "2026-11-03T00:00:00Z"
    assert "page.html: dedup version 1" in call("--output", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text("utf-8").startswith("<!doctype html>")
