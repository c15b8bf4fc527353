"""Taking pages down: gone everywhere, nothing else moved, whatever dies on the way."""

from __future__ import annotations

import contextlib
import itertools
import json
import uuid

import numpy as np
import pyarrow as pa
import pytest

from cluster.cli import main
from jobs import (
    dedup_documents,
    dedup_substrings,
    extract_crawl,
    filter_documents,
    takedown_documents,
    tokenize_documents,
    train_tokenizer,
)
from jobs.runtime import execute
from jobs.runtime.context import Context
from jobs.takedown_documents import apply, request
from jobs.takedown_purge import purge, verify
from pipelines.datasets import aligned_parts, open_dataset
from pipelines.datasets.store import MemoryStore, open_store
from pipelines.errors import InputError, IntegrityError
from pipelines.takedown.requests import targets, text_digests
from pipelines.tokens.lineage import with_takedowns
from pipelines.tokens.tokenizer import EOS_ID, FILLER_ID
from tests.made_crawl import page_html, pages, sentences, write_crawl
from tests.made_documents import commit_documents
from tests.unit.runtime.counting_store import CountingStore, Killed

BY_URL = "https://mill4.example/4"
BY_DOMAIN = "mill2.example"  # seeds 2, 9, 16, 23
TWIN = "https://copies.example/4"
NEAR = "https://near.example/4"
SHORT = "https://mill2.example/short"


def context(store) -> Context:
    return Context(store=store, engine="process", flush_seconds=0.0)


def crawl_files() -> dict[str, list[tuple[str, bytes]]]:
    whole = pages(range(24))
    copy = dict(whole)[BY_URL]
    near = copy.replace(b"</article>", b"<p>A mirror has added one more line to it.</p></article>")
    short = page_html(["Too short."])
    return {"a.warc.gz": [*whole[:12], (SHORT, short)], "b.warc.gz": [*whole[12:], (TWIN, copy), (NEAR, near)]}


def make(store, folder) -> None:
    extract_crawl.run(extract_crawl.Config(crawl=str(folder / "*.warc.gz")), context(store))
    downstream(store)


def downstream(store) -> None:
    dedup_documents.run(dedup_documents.Config(), context(store))
    filter_documents.run(filter_documents.Config(quality=""), context(store))
    train_tokenizer.run(train_tokenizer.Config(vocab_size=1200, character_coverage=0.99), context(store))
    tokenize_documents.run(tokenize_documents.Config(quality="", shard_tokens=4000), context(store))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[dict[str, bytes], object]:
    """Objects of a whole trip, and the folder of its crawl."""
    folder = tmp_path_factory.mktemp("crawl")
    write_crawl(folder, crawl_files())
    store = open_store(f"memory://{uuid.uuid4().hex}")
    make(store, folder)
    return dict(store.objects), folder


@pytest.fixture
def store(made) -> MemoryStore:
    fresh = open_store(f"memory://{uuid.uuid4().hex}")
    fresh.objects.update(made[0])
    return fresh


def ask(store, reason: str = "") -> None:
    rows = targets("url", [BY_URL.replace("https", "http") + "?utm_source=mail"], source="f")
    rows += targets("domain", [BY_DOMAIN], source="f")
    request(context(store), rows, reason)


def rows(store, name: str, version: int | None = None) -> list[dict]:
    return open_dataset(store, name, version).to_arrow().to_pylist()


def named(row: dict) -> bool:
    return row["url"] in (BY_URL, TWIN) or BY_DOMAIN in (row["url"] or "")


def sums(store) -> dict[str, str]:
    names = ("documents", "signatures", "filters", "dedup", "corpus", "heldout", "tokens")
    return {name: open_dataset(store, name).manifest.content_sum for name in names}


def test_the_pages_and_their_twins_are_gone_and_all_else_stands_as_it_stood(store):
    before = {name: rows(store, name) for name in ("documents", "corpus", "heldout")}
    ask(store)
    done = apply(context(store))
    gone = [row for row in before["documents"] if named(row)]
    assert len(gone) == 7  # one by its URL, its copy, four and the short one by their domain
    assert done.found == {"url": 1, "domain": 5, "twin": 1}
    for name, old in before.items():
        new = rows(store, name)
        assert [row["id"] for row in new] == [row["id"] for row in old]
        for was, now in zip(old, new, strict=True):
            assert now == ({key: (was["id"] if key == "id" else None) for key in was} if named(was) else was)
    documents = open_dataset(store, "documents")
    for family in ("filters", "dedup", "signatures"):
        assert len(aligned_parts(documents, open_dataset(store, family))) == documents.parts().num_rows
    assert done.rewritten["documents"] == 7


def test_near_copies_are_told_and_not_touched(store):
    ask(store)
    done = apply(context(store))
    near = {row["id"]: row for row in rows(store, "documents") if row["url"] == NEAR}
    assert set(done.near["id"].to_pylist()) == set(near) and len(near) == 1
    assert all(row["text"] for row in near.values())


def test_tokens_of_the_pages_are_filler_and_every_other_token_keeps_its_place(store):
    pinned = open_dataset(store, "tokens")
    trained = sum(named(row) for row in rows(store, "corpus"))
    ask(store)
    apply(context(store))
    masked = with_takedowns(pinned)
    assert masked.manifest.sha256 == pinned.manifest.sha256
    ids = {row["id"] for row in rows(store, "documents") if row["text"] is None}
    dtype = np.dtype(pinned.manifest.stats["dtype"])
    seen = 0
    docs = {(r["unit"], r["cell"]): r for r in pinned.parts("docs").to_pylist()}
    now = {(r["unit"], r["cell"]): r for r in masked.parts("shard").to_pylist()}
    for shard in pinned.parts("shard").to_pylist():
        place = shard["unit"], shard["cell"]
        old = np.frombuffer(pinned.read_object(shard), dtype)
        new = np.frombuffer(masked.read_object(now[place]), dtype)
        assert len(old) == len(new)
        for row in pinned.read_part(docs[place]["key"]).to_pylist():
            span = slice(row["first_token"], row["first_token"] + row["tokens"])
            if row["id"] in ids:
                seen += 1
                assert new[span][-1] == EOS_ID and set(new[span][:-1].tolist()) == {FILLER_ID}
            else:
                assert (new[span] == old[span]).all()
    assert seen == trained > 0


def test_the_ledger_no_longer_tells_of_them_and_still_counts_them(store):
    short = next(row for row in rows(store, "documents") if row["url"] == SHORT)
    before = open_dataset(store, "corpus").manifest.books
    ask(store)
    apply(context(store))
    corpus = open_dataset(store, "corpus")
    told = [row for table in corpus.ledger() for row in table.to_pylist() if row["id"] == short["id"]]
    assert [(row["reason"], row["url"], row["excerpt"]) for row in told] == [("too_short", None, None)]
    assert corpus.manifest.books == before


def test_a_scan_proves_it_and_finds_what_is_left(store):
    ask(store)
    proof = verify(context(store))
    assert proof.left.num_rows >= 4
    apply(context(store))
    assert verify(context(store)).left.num_rows == 0
    assert verify(context(store), all_objects=True).left.num_rows > 0


def test_purge_tells_first_and_then_deletes_the_old_bytes_and_no_other(store):
    ask(store)
    with pytest.raises(IntegrityError, match="apply"):
        purge(context(store))
    apply(context(store))
    before = dict(store.objects)
    found = purge(context(store))
    assert found.keys and not found.deleted and set(store.objects) == set(before)
    assert [name.split(" v")[0] for name in found.models] == ["artifacts/tokenizer"]
    done = purge(context(store), delete=True)
    assert done.keys == found.keys
    left = {key for key in store.objects if not key.startswith("audit/")}
    assert {key for key in before if not key.startswith("audit/")} - left == set(found.keys)
    assert verify(context(store), all_objects=True).left.num_rows == 0
    words = sentences_of(BY_URL)
    assert not [key for key, body in store.objects.items() if words in body]
    with pytest.raises(IntegrityError, match="taken down and purged"):
        rows(store, "documents", 1)
    assert len(rows(store, "documents")) == 27


def sentences_of(url: str) -> bytes:
    import random

    seed = int(url.rsplit("/", 1)[1])
    return sentences(random.Random(f"page {seed}"), ("zh", "en")[seed % 2])[0].encode()


def test_running_the_trip_again_makes_nothing_anew(made, store):
    ask(store)
    apply(context(store))
    taken = sums(store)
    tokens = open_dataset(store, "tokens").manifest.version
    make(store, made[1])
    assert sums(store) == taken
    assert open_dataset(store, "tokens").manifest.version == tokens


def test_a_crawl_that_comes_later_brings_none_of_them_back(made, store, tmp_path):
    ask(store)
    apply(context(store))
    copy = dict(crawl_files()["a.warc.gz"])[BY_URL]
    again = [(BY_URL, copy), ("https://elsewhere.example/copy", copy)]
    again.append((f"http://www.{BY_DOMAIN}/new", pages(range(40, 41))[0][1]))
    write_crawl(tmp_path, {**crawl_files(), "c.warc.gz": [*pages(range(52, 57)), *again]})
    extract_crawl.run(extract_crawl.Config(crawl=str(tmp_path / "*.warc.gz")), context(store))
    documents = open_dataset(store, "documents")
    assert documents.manifest.books["documents"]["rejected"]["takedown"] == 3
    fresh = [row for row in documents.to_arrow().to_pylist() if row["file"] == "c.warc.gz"]
    assert len(fresh) == 5 and not any(named(row) for row in fresh)
    told = [row for t in documents.ledger() for row in t.to_pylist() if row["reason"] == "takedown"]
    assert {row["detail"] for row in told} == {"url", "domain", "text"} and not any(row["url"] for row in told)
    downstream(store)
    assert verify(context(store)).left.num_rows == 0
    assert not any(named(row) for name in ("corpus", "heldout") for row in rows(store, name))


def test_a_document_without_an_address_is_found_by_its_id_and_by_its_text():
    """Books and rows of tables have none."""
    texts = [f"page {i} of a book that stands nowhere on the web" for i in range(4)]
    ctx = context(open_store(f"memory://{uuid.uuid4().hex}"))
    commit_documents(ctx, {"book": [{"text": text, "url": None, "domain": None} for text in texts]})
    ids = [row["id"] for row in rows(ctx.store, "documents")]
    asked = targets("id", ids[:1], source="f")
    request(ctx, asked + targets("text", [text_digests(pa.array(texts[1:2]))[0].as_py()], source="f"), "")
    assert apply(ctx).found == {"id": 1, "text": 1}
    assert [row["text"] for row in rows(ctx.store, "documents")] == [None, None, *texts[2:]]
    assert [row["id"] for row in rows(ctx.store, "documents")] == ids
    assert verify(ctx).left.num_rows == 0
    assert not apply(ctx).found


def test_applying_twice_writes_no_version(store):
    ask(store)
    apply(context(store))
    versions = {key for key in store.objects if "/manifests/" in key}
    done = apply(context(store))
    assert not done.found and not done.rewritten
    assert {key for key in store.objects if "/manifests/" in key} == versions


def test_killed_at_every_seventh_store_call_the_same_command_ends_at_the_same_content(made):
    whole = open_store(f"memory://{uuid.uuid4().hex}")
    whole.objects.update(made[0])
    ask(whole)
    apply(context(whole))
    expected = sums(whole)
    for kill in range(1, 400, 7):
        broken = open_store(f"memory://{uuid.uuid4().hex}")
        broken.objects.update(made[0])
        ask(broken)
        execute._open.clear()
        counting = CountingStore(broken, die_at=kill)
        try:
            apply(context(counting))
            break
        except Killed:
            pass
        execute._open.clear()
        apply(context(broken))
        assert sums(broken) == expected, kill
        assert verify(context(broken)).left.num_rows == 0
    else:
        raise AssertionError("the kill never came too late")


def test_pieces_of_texts_that_a_broken_run_left_behind_are_named_and_removed_and_it_begins_anew(store):
    ask(store)
    apply(context(store))
    whole = MemoryStore(f"memory://{uuid.uuid4().hex}")
    whole.objects.update(store.objects)
    config = dedup_substrings.Config(dedup="")
    wanted = dedup_substrings.run(config, context(whole))[0].content_sum
    assert not [key for key in whole.objects if "/windows-" in key]
    for kill in itertools.count(20, 4):
        execute._open.clear()
        with contextlib.suppress(Killed):
            dedup_substrings.run(config, context(CountingStore(store, die_at=kill)))
        if any("/spooler-" in key for key in store.objects):
            break
    execute._open.clear()
    left = verify(context(store), all_objects=True).left.to_pylist()
    assert any("/windows-" in row["key"] and row["what"].startswith("pieces") for row in left)
    told = purge(context(store))
    assert any("/windows-" in key for key in told.keys) and any("/spooler-" in key for key in told.keys)
    purge(context(store), delete=True)
    assert not [key for key in store.objects if "/windows-" in key or "/spooler-" in key]
    assert verify(context(store), all_objects=True).left.num_rows == 0
    execute._open.clear()
    assert dedup_substrings.run(config, context(store))[0].content_sum == wanted


def test_spills_that_a_broken_run_left_behind_are_named_and_removed(store):
    """With their rows by the documents that they hold, without them whatever they hold."""
    ask(store)
    for kill in itertools.count(4, 4):
        execute._open.clear()
        with contextlib.suppress(Killed):
            tokenize_documents.run(
                tokenize_documents.Config(quality="", shard_tokens=4001), context(CountingStore(store, die_at=kill))
            )
        spills = sorted(key for key in store.objects if key.endswith((".tokens", ".rows.parquet")))
        if len(spills) == 4:
            break
    execute._open.clear()
    apply(context(store))
    left = {row["key"]: row for row in verify(context(store), all_objects=True).left.to_pylist()}
    held = [key for key in spills if key.endswith(".tokens") and key in left]
    assert held and not [key for key in spills if key.endswith(".rows.parquet") and key in left]
    assert {left[key]["what"] for key in held} == {"tokens"}
    del store.objects[held[0].replace(".tokens", ".rows.parquet")]
    (row,) = [row for row in verify(context(store), all_objects=True).left.to_pylist() if row["key"] == held[0]]
    assert row["what"].startswith("a spill of which nobody tells")
    purge(context(store), delete=True)
    assert not [key for key in spills if key in store.objects]
    assert verify(context(store), all_objects=True).left.num_rows == 0


def test_what_is_looked_for_does_not_travel_with_the_tasks(store, monkeypatch):
    """Ten thousand ids in a task's configuration would be sent with every unit."""
    seen = []

    def spied(context, stage, *rest, **more):
        seen.append(len(repr(stage.worker_config)))
        return do_units(context, stage, *rest, **more)

    do_units = takedown_documents.do_units
    monkeypatch.setattr(takedown_documents, "do_units", spied)
    rows = targets("url", [BY_URL], source="f") + targets("domain", [BY_DOMAIN], source="f")
    request(context(store), rows, "")
    before = set(store.objects)
    assert apply(context(store), dry_run=True).found == {"url": 1, "domain": 5, "twin": 1}
    few, seen[:] = max(seen), []
    assert {key for key in store.objects if "/wanted/" in key} == set()
    assert {key for key in set(store.objects) - before if "/attempts/" not in key} == set()
    request(context(store), targets("domain", ["example"], source="f"), "")
    assert sum(apply(context(store), dry_run=True).found.values()) >= 27
    assert max(seen) <= few + 200


def test_the_audit_and_the_list_hold_no_word_of_a_page(store):
    ask(store, reason="court order 7")
    apply(context(store))
    purge(context(store), delete=True)
    told = [body for key, body in store.objects.items() if key.startswith(("audit/", "datasets/takedowns/manifests"))]
    assert len(told) >= 4
    assert not [body for body in told if b"mill4" in body or b".example" in body]
    actions = [json.loads(store.objects[key])["action"] for key in sorted(store.objects) if key.startswith("audit/")]
    assert actions == ["takedown.apply", "takedown.purge"]


def test_nothing_to_take_down_is_said(store):
    with pytest.raises(InputError, match="add"):
        apply(context(store))


def test_the_commands(made, tmp_path, capsys):
    root = tmp_path / "root"
    folder_store = open_store(root)
    for key, body in made[0].items():
        folder_store.put(key, body)
    (tmp_path / "urls.txt").write_text(f"# from a letter\n{BY_URL}\n", "utf-8")

    def told(*arguments: str) -> str:
        main(["takedown", *arguments, "--root", str(root)])
        return capsys.readouterr().out

    assert "1 new targets" in told("add", "--urls", str(tmp_path / "urls.txt"), "--reason", "letter 12")
    assert "no dataset was changed" in told("apply", "--dry-run")
    with pytest.raises(SystemExit) as left:
        told("verify")
    assert left.value.code == 5
    capsys.readouterr()
    shown = told("apply", "--near", str(tmp_path / "near.txt"))
    assert "1 by url, 1 by twin" in shown and len((tmp_path / "near.txt").read_text().split()) == 1
    assert "left in 0" in told("verify")
    assert "would be deleted" in told("purge")
    assert "deleted" in told("purge", "--delete")
    assert "left in 0" in told("verify", "--all-objects")
    main(["explain", BY_URL, "--root", str(root)])
    assert "asked to be taken down" in capsys.readouterr().out
