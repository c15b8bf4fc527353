"""dedup_lines: what recurs is found by a plain count, whatever the partitioning, and an append changes nothing old."""

from __future__ import annotations

import random
import uuid
from collections import defaultdict

import pytest

from jobs import dedup_documents, dedup_lines, wide_steps
from jobs.runtime.context import Context
from pipelines.datasets import aligned_parts, open_dataset
from pipelines.datasets.store import MemoryStore, open_store
from pipelines.dedup.spans import cut_spans, read_spans
from pipelines.errors import ConfigError
from tests.made_documents import commit_documents, join, prose

NOTICES = [f"Notice {n}: all of this is reprinted by kind permission of the owner." for n in range(3)]
NAGS = [f"请点击第{n}个按钮，关注我们的微信公众号获取更多内容。" for n in range(3)]


def context(store=None):
    return Context(store=store or open_store(f"memory://{uuid.uuid4().hex}"), engine="process", flush_seconds=0.0)


def corpus(seed=0, count=60):
    """Documents of five lines of their own, some with notices as paragraphs and nags inside a paragraph."""
    rng = random.Random(seed)
    texts = []
    for i in range(count):
        lines = [join(prose(rng, ("zh", "en")[i % 2], 60)) + "。" for _ in range(5)]
        if i % 3 == 0:
            at = rng.randrange(5)
            lines[at] = lines[at] + NAGS[i % 2] + "后面还有一些别的话。"
        if i % 2:
            lines.insert(rng.randrange(5), NOTICES[i % 3])
        texts.append("\n".join(lines))
    date = "2026-01-01T00:00:00Z"
    return [{"text": text, "id": name(seed * 1000 + i), "file": f"f{seed}", "offset": i, "date": date}
            for i, text in enumerate(texts)]  # fmt: skip


def name(number):
    return f"{number:08x}{'0' * 24}"


def lines(ctx, **settings):
    settings = {"dedup": "", "min_count": 8, "sketch_mib": 1} | settings
    return dedup_lines.run(dedup_lines.Config(**settings), ctx)


def rows(ctx):
    documents, notes = open_dataset(ctx.store, "documents"), open_dataset(ctx.store, "lines")
    found = {}
    for mine, theirs in aligned_parts(documents, notes):
        pairs = zip(
            documents.read_part(mine["key"]).to_pylist(), notes.read_part(theirs["key"]).to_pylist(), strict=True
        )
        found |= {text["id"]: text | note for text, note in pairs}
    return found


def after(row):
    return cut_spans(row["text"] or "", read_spans(row["lines.spans"]))


def test_what_recurs_goes_but_where_it_came_first():
    ctx = context()
    commit_documents(ctx, {"a": corpus()})
    _, made = lines(ctx)
    found = rows(ctx)
    holders = defaultdict(list)
    for key, row in found.items():
        for piece in NOTICES + NAGS:
            if piece in row["text"]:
                holders[piece].append(key)
    rank = {key: (-len(row["text"]), row["id"]) for key, row in found.items()}
    for piece, keys in holders.items():
        left = [key for key in keys if piece in after(found[key])]
        if len(keys) >= 8:
            assert left == [min(keys, key=lambda key: rank[key])], piece
        else:
            assert left == keys
    assert sum(len(keys) >= 8 for keys in holders.values()) >= 4
    removed = sum(row["lines.removed"] for row in found.values())
    assert made.books["characters"]["in"] == sum(len(row["text"]) for row in found.values())
    assert sum(made.books["characters"]["removed"].values()) == removed > 0
    assert made.books["characters"]["out"] == sum(len(after(row)) for row in found.values())
    assert made.stats["counted"]["frequent"] == sum(len(keys) >= 8 for keys in holders.values())
    for row in found.values():
        assert "\n\n" not in after(row) and not after(row).endswith("\n")


def test_by_the_other_policy_it_goes_everywhere():
    ctx = context()
    commit_documents(ctx, {"a": corpus()})
    lines(ctx, policy="drop_everywhere")
    text = "\n".join(after(row) for row in rows(ctx).values())
    gone = [piece for piece in NOTICES + NAGS if piece not in text]
    assert len(gone) >= 4 and "后面还有一些别的话" in text


def test_the_cut_into_parts_steps_and_sketches_does_not_matter():
    sums = set()
    for pieces, step, mib in ((1, 1 << 30, 1), (4, 1, 2), (7, 1000, 4)):
        ctx = context()
        documents = corpus()
        random.Random(pieces).shuffle(documents)
        commit_documents(ctx, {f"p{k}": documents[k::pieces] for k in range(pieces)})
        sums.add(lines(ctx, bytes_per_step=step, sketch_mib=mib)[1].content_sum)
    assert len(sums) == 1


def test_an_appended_crawl_changes_nothing_old_and_equals_the_whole_at_once():
    for policy in ("keep_first", "drop_everywhere"):
        ctx = context()
        first = {"a": corpus(0, 30)}
        commit_documents(ctx, first)
        lines(ctx, policy=policy)
        before = {key: row["lines.spans"] for key, row in rows(ctx).items()}
        commit_documents(ctx, first | {"b": corpus(1, 60)})
        digests, appended = lines(ctx, policy=policy)
        now = {key: row["lines.spans"] for key, row in rows(ctx).items()}
        assert {key: now[key] for key in before} == before
        assert any(spans for key, spans in now.items() if key not in before)
        assert digests.extends and appended.extends
        both = context()
        commit_documents(both, first)
        commit_documents(both, first | {"b": corpus(1, 60)})
        assert lines(both, policy=policy)[1].content_sum == appended.content_sum


def test_running_again_writes_nothing_and_leaves_nothing_in_flight():
    ctx = context()
    commit_documents(ctx, {"a": corpus()})
    first = lines(ctx)
    before = {o.key for o in ctx.store.list("")}
    assert [m.sha256 for m in lines(context(ctx.store))] == [m.sha256 for m in first]
    assert {o.key for o in ctx.store.list("")} == before
    assert not [key for key in before if "/wide/" in key]


def test_copies_that_dedup_removes_are_neither_counted_nor_cut():
    ctx = context()
    original = corpus()[1]
    copies = [original | {"id": name(i), "text": original["text"] + "!" * i} for i in range(500, 540)]
    commit_documents(ctx, {"a": corpus(), "b": copies})
    dedup_documents.run(dedup_documents.Config(), context(ctx.store))
    lines(ctx, dedup="dedup")
    found = rows(ctx)
    own = original["text"].split("\n")[0]
    assert not any(found[name(i)]["lines.spans"] for i in range(500, 539))
    assert sum(own in after(row) for row in found.values()) == 41
    lines(context(ctx.store))
    assert sum(own in after(row) for row in rows(ctx).values()) == 1


def preferred(count=10):
    """Documents of one length that share a notice; only the last one's domain is preferred."""
    rng = random.Random(5)
    texts = [f"{join(prose(rng, 'zh', 60))}\n{NOTICES[0]}" for _ in range(count)]
    domains = [f"d{i}.example" for i in range(count)]
    return [
        {"text": text, "id": name(i), "file": "f", "offset": i, "date": "2026-01-01T00:00:00Z", "domain": domain}
        for i, (text, domain) in enumerate(zip(texts, domains, strict=True))
    ], domains[-1]


def test_the_first_document_is_the_one_that_deduplication_would_keep():
    ctx = context()
    documents, domain = preferred()
    commit_documents(ctx, {"a": documents[:5], "b": documents[5:]})
    dedup_documents.run(dedup_documents.Config(preferred_domains=(domain,)), context(ctx.store))
    for signatures, stays in (("", name(0)), ("signatures", name(9))):
        lines(context(ctx.store), signatures=signatures)
        assert [key for key, row in rows(ctx).items() if NOTICES[0] in after(row)] == [stays]


def test_occurrences_count_where_they_are_asked_for():
    ctx = context()
    text = "\n".join([NOTICES[0]] * 9 + ["This stands here and nowhere else in all the world."])
    commit_documents(ctx, {"a": [{"text": text}, {"text": None}, {"text": ""}]})
    lines(ctx)
    assert not any(row["lines.spans"] for row in rows(ctx).values())
    lines(ctx, count="occurrences")
    found = next(row for row in rows(ctx).values() if row["text"])
    assert after(found) == "\n".join([NOTICES[0], "This stands here and nowhere else in all the world."])
    assert found["lines.hollow"] is True and 0 < found["lines.kept_share"] < 0.3


def test_a_sketch_that_is_too_small_is_refused_with_the_size_that_would_do(monkeypatch):
    monkeypatch.setattr(wide_steps, "MOST_FALSE_SHARE", -1.0)
    ctx = context()
    commit_documents(ctx, {"a": corpus()})
    with pytest.raises(ConfigError, match="lets 0% of what is rare through") as error:
        lines(ctx)
    assert "sketch_mib=2" in error.value.mend


def test_settings_that_make_no_sense_are_refused():
    ctx = context()
    for settings in ({"policy": "drop"}, {"count": "lines"}, {"sketch_mib": 3}, {"min_count": 1}):
        with pytest.raises(ConfigError):
            lines(ctx, **settings)


class Dying(MemoryStore):
    """A store whose process dies at the nth put."""

    left = 10**9

    def put(self, key, body, *, create_only=False):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().put(key, body, create_only=create_only)


def test_whatever_put_it_dies_at_the_same_content_comes_out():
    ctx = context()
    commit_documents(ctx, {"a": corpus(0, 20), "b": corpus(1, 20)})
    wanted, deaths = lines(ctx)[1].content_sum, 0
    for step in range(1, 30, 2):
        store = Dying(f"memory://{uuid.uuid4().hex}")
        commit_documents(context(store), {"a": corpus(0, 20), "b": corpus(1, 20)})
        store.left = step
        died = False
        try:
            lines(context(store))
        except KeyboardInterrupt:
            died = True
        store.left = 10**9
        other = (
            {"sketch_mib": 2, "bytes_per_step": 1} if step % 4 == 1 else {}
        )  # what is left behind is not counted twice
        assert lines(context(store), **other)[1].content_sum == wanted
        deaths += died
    assert deaths > 10
