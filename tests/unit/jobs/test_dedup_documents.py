import random
import uuid

import pytest

from jobs.dedup_documents import Config, Lsh, run
from jobs.runtime.config import parse_config
from jobs.runtime.context import Context
from pipelines.datasets import aligned_parts, open_dataset
from pipelines.datasets.store import MemoryStore, open_store
from pipelines.errors import ConfigError
from tests.made_documents import commit_documents, edited, join, prose


def context(store=None):
    return Context(store=store or open_store(f"memory://{uuid.uuid4().hex}"), engine="process", flush_seconds=0.0)


def crawl(seed=0, count=40):
    """{input: rows} of four files: originals, exact copies set otherwise, edited copies, short pages."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        units = prose(rng, ("zh", "en")[i % 2])
        rows.append({"text": join(units)})
        if i % 4 == 0:
            rows.append({"text": "  " + join(units).upper() + "！"})
        if i % 4 == 1:
            rows.append({"text": join(edited(rng, units, 4)) + " and some more at the end"})
        if i % 4 == 2:
            rows.append({"text": join(edited(rng, units, 150))})
    rows += [{"text": text} for text in ("short page", "Short  page!", "another", None, "", "?!")]
    rng.shuffle(rows)
    return {f"crawl-{file}": rows[file::4] for file in range(4)}


def annotations(ctx):
    documents, dedup = open_dataset(ctx.store, "documents"), open_dataset(ctx.store, "dedup")
    rows = []
    for mine, theirs in aligned_parts(documents, dedup):
        texts = documents.read_part(mine["key"]).to_pylist()
        rows += [text | note for text, note in zip(texts, dedup.read_part(theirs["key"]).to_pylist(), strict=True)]
    return {row["id"]: row for row in rows}


def test_copies_are_marked_and_strangers_stay():
    ctx = context()
    commit_documents(ctx, crawl())
    signed, marked, _ = run(Config(), ctx)
    rows = annotations(ctx)
    removed = [row for row in rows.values() if not row["dedup.keep"]]
    assert len(removed) == 10 + 10 + 1
    for row in removed:
        best = rows[row["dedup.cluster"]]
        assert best["dedup.keep"] and len(best["text"]) >= len(row["text"])
        assert row["dedup.match"] == best["id"] and row["dedup.similarity"] >= 0.7
    assert all(row["dedup.cluster"] == row["id"] for row in rows.values() if row["dedup.keep"])
    assert marked.books["documents"]["rows"] == len(rows) == marked.books["documents"]["annotated"]
    assert marked.stats["kept"] == len(rows) - 21 and marked.stats["duplicates"] == 21
    assert marked.stats["pairs"]["exact"] == 11 and marked.stats["pairs"]["verified"] == 10
    assert (signed.kind, marked.kind) == ("signatures", "annotations")


def test_short_pages_are_compared_exactly_and_empty_ones_not_at_all():
    ctx = context()
    commit_documents(ctx, {"a": [{"text": t} for t in ("short page", "SHORT page.", "page short", "", None, "!")]})
    run(Config(), ctx)
    assert [row["dedup.keep"] for row in annotations(ctx).values()] == [False, True, True, True, True, True]


def test_running_again_writes_nothing():
    ctx = context()
    commit_documents(ctx, crawl())
    first = run(Config(), ctx)
    before = {o.key for o in ctx.store.list("")}
    again = run(Config(), context(ctx.store))
    assert [m.sha256 for m in again] == [m.sha256 for m in first]
    assert {o.key for o in ctx.store.list("")} == before
    assert not [key for key in before if "/wide/" in key]


def test_the_cut_into_parts_and_chunks_does_not_matter():
    sums = set()
    for pieces, pairs in ((1, 5000), (4, 3), (7, 1)):
        ctx = context()
        rows = sorted((row | {"id": f"{i:032x}", "file": "f", "offset": i, "date": "2026-01-01T00:00:00Z"}
                       for i, row in enumerate(r for file in crawl().values() for r in file)),
                      key=lambda row: row["id"])  # fmt: skip
        commit_documents(ctx, {f"p{k}": rows[k::pieces] for k in range(pieces)})
        sums.add(run(Config(pairs_per_unit=pairs), ctx)[1].content_sum)
    assert len(sums) == 1


def test_an_append_keeps_every_old_part_and_equals_the_whole_done_at_once():
    ctx = context()
    parts = crawl()
    extra = {"late": [{"text": "  " + row["text"] + " and more and longer"} for row in parts["crawl-1"] if row["text"]]}
    commit_documents(ctx, parts)
    _, early, _ = run(Config(), ctx)
    commit_documents(ctx, parts | extra)
    _, late, _ = run(Config(), context(ctx.store))
    assert late.extends["version"] == early.version
    old = set(open_dataset(ctx.store, "dedup", early.version).parts()["key"].to_pylist())
    new = open_dataset(ctx.store, "dedup").parts()["key"].to_pylist()
    assert old < set(new) and len(new) == len(old) + 1
    appended = [row for row in annotations(ctx).values() if row["file"] == "late.warc.gz"]
    long = [row for row in appended if len(row["text"]) > 100]
    assert long and not any(row["dedup.keep"] for row in long)

    fresh = context()
    commit_documents(fresh, parts)
    commit_documents(fresh, parts | extra)
    assert run(Config(), fresh)[1].content_sum == late.content_sum


def test_a_leftover_of_other_inputs_is_never_taken_over():
    ctx = context()
    parts = crawl()
    commit_documents(ctx, parts)
    run(Config(), ctx)
    fewer = {name: parts[name] for name in ("crawl-0", "crawl-1")}
    commit_documents(ctx, fewer)
    _, marked, _ = run(Config(), context(ctx.store))
    alone = context()
    commit_documents(alone, fewer)
    assert run(Config(), alone)[1].content_sum == marked.content_sum


class Dying(MemoryStore):
    """Fails for good at the n-th write."""

    left = 10**9

    def put(self, key, body, *, create_only=False):
        Dying.left -= 1
        if Dying.left < 0:
            raise KeyboardInterrupt
        return super().put(key, body, create_only=create_only)


def test_killed_at_any_write_it_goes_on_to_the_same_content(monkeypatch):
    config = Config(lsh=Lsh(num_bands=6, rows_per_band=4), pairs_per_unit=4)
    small = {name: rows[:5] for name, rows in list(crawl().items())[:2]}
    ctx = context()
    commit_documents(ctx, small)
    start = sum(1 for _ in ctx.store.list(""))
    expected = [m.content_sum for m in run(config, ctx)]
    pairs = open_dataset(ctx.store, "dedup_pairs").manifest.content_sum
    assert start
    killed = 0
    for kill in [*range(0, 32, 3), *range(32, 44)]:  # the last ones are the commits of both datasets
        broken = context()
        commit_documents(broken, small)
        broken.store.__class__ = Dying
        Dying.left = kill
        try:
            finished = run(config, broken)
        except KeyboardInterrupt:
            killed += 1
            Dying.left = 10**9
            broken.store.__class__ = MemoryStore
            finished = run(config, context(broken.store))
        finally:
            Dying.left = 10**9
        assert [m.content_sum for m in finished] == expected, kill
        assert open_dataset(broken.store, "dedup_pairs").manifest.content_sum == pairs, kill
    assert killed > 5


def test_other_bands_reuse_nothing_and_another_threshold_reuses_the_signatures():
    ctx = context()
    commit_documents(ctx, crawl())
    signed, _, _ = run(Config(), ctx)
    again, marked, _ = run(Config(lsh=Lsh(min_similarity=0.95)), context(ctx.store))
    assert again.sha256 == signed.sha256 and marked.stats["duplicates"] == 11
    other, _, _ = run(Config(lsh=Lsh(num_bands=20)), context(ctx.store))
    assert other.stage_id != signed.stage_id


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"lsh": {"num_bands": 20, "rows_per_band": 450}}, "at most 1024"),
        ({"lsh": {"num_bands": 4, "rows_per_band": 32}}, "expected at least half"),
        ({"lsh": {"rows_per_band": 1}}, "unlike pairs"),
        ({"bucket_cap": 1}, "expected 2 or more"),
        ({"pairs_per_unit": 0}, "expected 1 or more"),
        ({"links_per_task": 0}, "expected 1 or more"),
    ],
)
def test_what_makes_no_sense_is_refused_where_the_settings_are_read(settings, told):
    """So by `config show`, `plan` and `submit` too, and by a recipe before its first job."""
    with pytest.raises(ConfigError, match=told):
        parse_config(Config, [("recipe", settings)])


def test_no_documents_give_empty_annotations():
    ctx = context()
    commit_documents(ctx, {"empty": []})
    _, marked, _ = run(Config(), ctx)
    assert marked.content_sum.startswith("0-")
