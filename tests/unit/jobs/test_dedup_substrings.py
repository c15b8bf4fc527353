"""dedup_substrings: the repeats that a look at every window finds, however the work is cut."""

from __future__ import annotations

import random
import uuid

import pytest

from jobs import dedup_documents, dedup_substrings
from jobs.runtime.context import Context
from pipelines.datasets import aligned_parts, open_dataset
from pipelines.datasets.store import open_store
from pipelines.dedup.spans import read_spans
from pipelines.errors import ConfigError
from tests.made_documents import commit_documents


def context(store=None):
    return Context(store=store or open_store(f"memory://{uuid.uuid4().hex}"), engine="process", flush_seconds=0.0)


def name(number):
    return f"{number:08x}{'0' * 24}"


def corpus(seed=0, count=40):
    """Documents that share passages of 30 to 400 characters, at dates of their own."""
    rng = random.Random(seed)
    pool = random.Random(99)
    passages = ["".join(pool.choices("abcdefghij 汉字漢。", k=30 + 37 * n)) for n in range(10)]
    rows = []
    for i in range(count):
        own = ["".join(rng.choices("klmnopqrst 上中下，", k=rng.randrange(60, 200))) for _ in range(3)]
        text = "\n".join([own[0], rng.choice(passages), own[1], rng.choice(passages) if i % 2 else "", own[2]])
        date = f"2026-01-{1 + i % 28:02d}T00:00:00Z"
        rows.append({"text": text, "id": name(1000 * seed + i), "file": f"f{seed}", "offset": i, "date": date})
    return rows


def substrings(ctx, **settings):
    settings = {"dedup": "", "sketch_mib": 1} | settings
    return dedup_substrings.run(dedup_substrings.Config(**settings), ctx)[0]


def rows(ctx):
    documents, notes = open_dataset(ctx.store, "documents"), open_dataset(ctx.store, "substrings")
    found = {}
    for mine, theirs in aligned_parts(documents, notes):
        pairs = zip(
            documents.read_part(mine["key"]).to_pylist(), notes.read_part(theirs["key"]).to_pylist(), strict=True
        )
        found |= {text["id"]: text | note | {"generation": mine["generation"]} for text, note in pairs}
    return found


def expected(found, size=100):
    """Spans by a dictionary of every window, documents taken in the survivor order."""
    first, spans = {}, {}
    for row in sorted(found.values(), key=lambda r: (r["generation"], -len(r["text"]), r["date"], r["id"])):
        mine = spans[row["id"]] = []
        for at in range(len(row["text"]) - size + 1):
            where = first.setdefault(row["text"][at : at + size], (row["id"], at))
            if where[0] != row["id"] or where[1] + size <= at:
                if mine and at <= mine[-1][1]:
                    mine[-1] = (mine[-1][0], at + size)
                else:
                    mine.append((at, at + size))
    return spans


def spans(found):
    return {key: [(a, b) for a, b, _ in read_spans(row["substrings.spans"])] for key, row in found.items()}


def test_the_repeats_of_every_window_and_no_other():
    ctx = context()
    commit_documents(ctx, {"a": corpus(0), "b": corpus(1)})
    made = substrings(ctx)
    found = rows(ctx)
    assert spans(found) == expected(found)
    removed = sum(row["substrings.removed"] for row in found.values())
    books = made.books["characters"]
    assert books["in"] == books["out"] + removed and books["removed"] == {"repeated_substring": removed}
    assert removed > 5000 and made.stats["windows"]["repeats"] > 20
    assert {rule for row in found.values() for _, _, rule in read_spans(row["substrings.spans"])} == {
        "repeated_substring"
    }


def test_the_cut_into_parts_steps_and_partitions_does_not_matter(monkeypatch):
    sums = set()
    for pieces, step, windows, mib in ((1, 1 << 30, 10**6, 1), (5, 1, 40, 2), (3, 5000, 7, 1)):
        monkeypatch.setattr(dedup_substrings, "SLICE_BYTES", 10**pieces)
        monkeypatch.setattr(dedup_substrings, "SPOOL_BYTES", 10**pieces)
        monkeypatch.setattr(dedup_substrings, "BLOCK_ROWS", 10**pieces)
        ctx = context()
        documents = corpus()
        random.Random(pieces).shuffle(documents)
        commit_documents(ctx, {f"p{k}": documents[k::pieces] for k in range(pieces)})
        made = substrings(ctx, bytes_per_step=step, windows_per_partition=windows, sketch_mib=mib)
        assert (made.stats["windows"]["partitions"] > 1) == (windows < 100)
        sums.add(made.content_sum)
    assert len(sums) == 1


def test_an_appended_crawl_changes_nothing_old_and_equals_the_whole_at_once():
    ctx = context()
    commit_documents(ctx, {"a": corpus(0)})
    substrings(ctx)
    before = spans(rows(ctx))
    commit_documents(ctx, {"a": corpus(0), "b": corpus(1)})
    appended = substrings(ctx)
    now = rows(ctx)
    assert {key: spans(now)[key] for key in before} == before and appended.extends
    assert spans(now) == expected(now)
    both = context()
    commit_documents(both, {"a": corpus(0)})
    commit_documents(both, {"a": corpus(0), "b": corpus(1)})
    assert substrings(both).content_sum == appended.content_sum


def test_running_again_writes_nothing_and_leaves_nothing_in_flight():
    ctx = context()
    commit_documents(ctx, {"a": corpus(), "b": [{"text": None}, {"text": ""}, {"text": "short"}], "c": []})
    first = substrings(ctx)
    before = {o.key for o in ctx.store.list("")}
    assert substrings(context(ctx.store)).sha256 == first.sha256
    assert {o.key for o in ctx.store.list("")} == before
    assert not [key for key in before if "/wide/" in key]


def test_copies_that_dedup_removes_are_not_looked_at():
    ctx = context()
    original = corpus()[0]
    commit_documents(ctx, {"a": [original, original | {"id": name(77), "offset": 5}]})
    dedup_documents.run(dedup_documents.Config(), context(ctx.store))
    substrings(ctx, dedup="dedup")
    assert not any(row["substrings.spans"] for row in rows(ctx).values())
    made = substrings(context(ctx.store))
    assert made.stats["hollow"] == 1


def test_the_first_document_is_the_one_that_deduplication_would_keep():
    ctx = context()
    rng = random.Random(3)
    passage = "".join(rng.choices("abcdefghij ", k=150))
    own = ["".join(rng.choices("klmnopqrst ", k=300)) for _ in range(6)]
    documents = [
        {"text": f"{text}\n{passage}", "id": name(i), "file": "f", "offset": i, "domain": f"d{i}.example"}
        for i, text in enumerate(own)
    ]
    commit_documents(ctx, {"a": documents[:3], "b": documents[3:]})
    dedup_documents.run(dedup_documents.Config(preferred_domains=("d4.example",)), context(ctx.store))
    for signatures, stays in (("", name(0)), ("signatures", name(4))):
        substrings(context(ctx.store), signatures=signatures)
        assert [key for key, row in rows(ctx).items() if not row["substrings.spans"]] == [stays]


def test_settings_that_make_no_sense_are_refused():
    ctx = context()
    commit_documents(ctx, {"a": corpus(0, 3)})
    for settings in ({"min_characters": 5}, {"sketch_mib": 3}):
        with pytest.raises(ConfigError):
            substrings(ctx, **settings)
