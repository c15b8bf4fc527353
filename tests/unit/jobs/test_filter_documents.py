"""filter_documents: verdicts become a corpus and a heldout set that never touch each other."""

from __future__ import annotations

import random
import uuid

import pyarrow as pa
import pytest

from jobs import dedup_documents, dedup_lines, extract_crawl, filter_documents, score_quality, train_quality
from jobs.runtime.context import Context
from jobs.runtime.run import run_stage
from jobs.runtime.stage import Output, Stage, UnitResult, hash_unit, part_units
from pipelines.datasets import open_dataset
from pipelines.datasets.dataset import read_parquet
from pipelines.datasets.store import open_store
from pipelines.errors import ConfigError, InputError
from tests.made_crawl import page_html, pages, sentences, write_crawl
from tests.sample.junk import spam_line_zh

JUNK = [
    ("https://junk.example/short", page_html(["Too short."])),
    ("https://junk.example/again", page_html(["点击这里领取大奖，今天注册马上送彩金。" * 40])),
]


def context(store=None) -> Context:
    return Context(store=store or open_store(f"memory://{uuid.uuid4().hex}"), engine="process", flush_seconds=0.0)


def prepare(tmp_path, files, ctx=None) -> Context:
    """A store with documents, filters and dedup of the crawl."""
    crawl = write_crawl(tmp_path, files)
    ctx = ctx or context()
    extract_crawl.run(extract_crawl.Config(crawl=crawl), ctx)
    dedup_documents.run(dedup_documents.Config(), context(ctx.store))
    return ctx


def apply(ctx: Context, **settings):
    return filter_documents.run(filter_documents.Config(quality="", **settings), context(ctx.store))


def rows(ctx: Context, name: str) -> list[dict]:
    return open_dataset(ctx.store, name).to_arrow().to_pylist()


def ledger(ctx: Context) -> list[dict]:
    corpus = open_dataset(ctx.store, "corpus")
    return [row for key in corpus.parts("ledger")["key"].to_pylist() for row in corpus.read_part(key).to_pylist()]


def copies(seeds: range) -> list[tuple[str, bytes]]:
    """Exact copies of pages, elsewhere."""
    return [(f"https://copies.example/{url.rsplit('/', 1)[1]}", html) for url, html in pages(seeds)]


def test_every_document_ends_in_corpus_heldout_or_ledger(tmp_path):
    ctx = prepare(
        tmp_path, {"a.warc.gz": pages(range(30)) + JUNK, "b.warc.gz": pages(range(30, 50)) + copies(range(9))}
    )
    corpus, heldout = apply(ctx)
    everything = {row["id"] for row in rows(ctx, "documents")}
    kept, held, dropped = (
        {row["id"] for row in table} for table in (rows(ctx, "corpus"), rows(ctx, "heldout"), ledger(ctx))
    )
    assert kept | held | dropped == everything
    assert len(kept) + len(held) + len(dropped) == len(everything)
    books = corpus.books
    assert books["documents"]["read"] == 61 and books["documents"]["kept"] == 50
    assert books["documents"]["rejected"] == {"duplicate": 9, "frequent_ngram": 1, "too_short": 1}
    assert books["split"]["corpus"] + books["split"]["heldout"] == books["split"]["kept"] == 50
    assert (corpus.stats["split"], heldout.stats["split"]) == ("train", "heldout")


def test_a_dropped_document_says_why_with_numbers_or_with_the_one_that_was_kept(tmp_path):
    ctx = prepare(tmp_path, {"a.warc.gz": pages(range(20)) + JUNK + copies(range(3))})
    apply(ctx)
    kept = {row["id"] for row in rows(ctx, "corpus") + rows(ctx, "heldout")}
    for row in ledger(ctx):
        assert row["stage"] == "filter_documents" and row["verdict"] == "rejected" and row["file"] == "a.warc.gz"
        if row["reason"] == "duplicate":
            assert row["match"] in kept and row["value"] >= 0.7
        else:
            assert row["value"] is not None and row["threshold"] is not None and row["match"] is None


def test_a_page_that_left_for_another_capture_of_its_address_says_so(tmp_path):
    page, other = (pages(range(i, i + 1))[0] for i in (0, 1))
    crawl = [page, (f"{page[0]}?utm_source=mail", other[1]), *pages(range(2, 12))]
    ctx = prepare(tmp_path, {"a.warc.gz": crawl})
    assert not [row for row in (apply(ctx), ledger(ctx))[1] if row["reason"].startswith("duplicate")]
    dedup_documents.run(dedup_documents.Config(urls="first"), context(ctx.store))
    apply(ctx)
    (row,) = (row for row in ledger(ctx) if row["reason"].startswith("duplicate"))
    match = next(r for r in rows(ctx, "documents") if r["id"] == row["match"])
    assert (row["reason"], row["value"], {row["url"], match["url"]}) == (
        "duplicate_url", None, {crawl[0][0], crawl[1][0]},
    )  # fmt: skip


def test_one_dropped_document_in_eight_leaves_an_excerpt(tmp_path):
    short = [(f"https://junk.example/{n}", page_html([f"Too short, number {n}."])) for n in range(60)]
    ctx = prepare(tmp_path, {"a.warc.gz": pages(range(4)) + short})
    apply(ctx)
    excerpts = [row["excerpt"] for row in ledger(ctx) if row["reason"] == "too_short"]
    assert len(excerpts) == 60
    given = [excerpt for excerpt in excerpts if excerpt is not None]
    assert 1 <= len(given) <= 20 and all("Too short, number" in excerpt for excerpt in given)


def test_no_copy_of_a_heldout_page_is_trained_on_and_each_language_has_five_clusters(tmp_path):
    edited = []
    for url, html in pages(range(60)):
        if int(url.rsplit("/", 1)[1]) % 2:
            edited.append(
                (url + "-copy", html.replace(b"</article>", b"<p>This copy was kept by a mirror.</p></article>"))
            )
    ctx = prepare(tmp_path, {"a.warc.gz": pages(range(60)), "b.warc.gz": edited})
    corpus, heldout = apply(ctx)
    assert min(heldout.stats["by_language"].values()) >= 5 and set(heldout.stats["by_language"]) == {"zh", "en"}
    assert len(rows(ctx, "heldout")) < 20
    titles = {row["title"] for row in rows(ctx, "heldout")}
    assert titles and not titles & {row["title"] for row in rows(ctx, "corpus")}
    assert corpus.books["documents"]["rejected"] == {"duplicate": 30}


def test_running_again_writes_nothing_and_a_bound_that_moves_makes_a_version(tmp_path):
    ctx = prepare(tmp_path, {"a.warc.gz": pages(range(20))})
    first = apply(ctx)
    before = {o.key for o in ctx.store.list("")}
    assert [m.sha256 for m in apply(ctx)] == [m.sha256 for m in first]
    assert {o.key for o in ctx.store.list("")} == before
    lengths = sorted(len("".join(row["text"].split())) for row in rows(ctx, "documents") if row["language"] == "en")
    moved, _ = apply(ctx, bounds={"text.characters.min": lengths[4]})
    assert moved.version == 2
    assert moved.books["documents"]["rejected"]["too_short"] == 10 + 4
    assert open_dataset(ctx.store, "documents").manifest.version == 1


def test_a_crawl_that_grew_moves_no_document_between_the_sides(tmp_path):
    ctx = prepare(tmp_path, {"a.warc.gz": pages(range(30))})
    apply(ctx)
    corpus, heldout = ({row["id"] for row in rows(ctx, name)} for name in ("corpus", "heldout"))
    prepare(tmp_path, {"b.warc.gz": pages(range(30, 60)) + copies(range(10))}, context(ctx.store))
    apply(ctx)
    later_corpus, later_heldout = ({row["id"] for row in rows(ctx, name)} for name in ("corpus", "heldout"))
    assert corpus <= later_corpus and heldout <= later_heldout
    assert not later_corpus & later_heldout
    assert len(later_corpus | later_heldout) == 60


def test_the_content_does_not_depend_on_how_the_crawl_is_cut_into_files(tmp_path):
    whole = pages(range(40)) + JUNK
    one = prepare(tmp_path / "one", {"a.warc.gz": whole})
    many = prepare(tmp_path / "many", {f"{n}.warc.gz": whole[n::5] for n in range(5)})
    for name in ("corpus", "heldout"):
        apply(one), apply(many)
        first, second = (sorted((r["id"], r["text"]) for r in rows(ctx, name)) for ctx in (one, many))
        assert first == second


def test_without_a_heldout_fraction_all_is_corpus(tmp_path):
    ctx = prepare(tmp_path, {"a.warc.gz": pages(range(12))})
    corpus, heldout = apply(ctx, heldout_fraction=0.0)
    assert (corpus.part_list["rows"], heldout.part_list["rows"]) == (12, 0)


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_a_small_crawl_keeps_at_least_half_of_each_language_for_training(tmp_path, count):
    ctx = prepare(tmp_path, {"a.warc.gz": pages(range(count))})
    corpus, heldout = apply(ctx)
    assert corpus.part_list["rows"] + heldout.part_list["rows"] == count
    for language, n in corpus.stats["by_language"].items():
        assert n >= heldout.stats.get("by_language", {}).get(language, 0)


def test_low_scores_are_dropped_with_their_score(tmp_path):
    rng = random.Random(3)
    spam = [spam_line_zh(rng) for _ in range(14)]
    ctx = prepare(tmp_path, {"a.warc.gz": [*pages(range(20)), ("https://spam.example/", page_html(spam))]})
    train_quality.run(train_quality.Config(), context(ctx.store))
    score_quality.run(score_quality.Config(), context(ctx.store))
    off = {"spam.gambling_fraction.max": None, "spam.lure_fraction.max": None}  # the rules would be first
    filter_documents.run(filter_documents.Config(min_quality=0.5, bounds=off), context(ctx.store))
    low = [row for row in ledger(ctx) if row["reason"] == "low_quality"]
    assert "https://spam.example/" in {row["url"] for row in low}
    assert all(row["value"] < row["threshold"] == 0.5 for row in low)


def test_what_a_soft_rule_would_drop_is_counted_and_kept(tmp_path):
    told = sentences(random.Random(5), "en")
    again = page_html(told + told[:3])
    ctx = prepare(tmp_path, {"a.warc.gz": [*pages(range(12)), ("https://again.example/", again)]})
    corpus, heldout = apply(ctx)
    marked = {**heldout.stats.get("marked", {}), **corpus.stats.get("marked", {})}
    assert marked.get("gopher.dup_5_gram.max", 0) >= 1 and all(n > 0 for n in marked.values())
    assert "https://again.example/" in {row["url"] for row in rows(ctx, "corpus") + rows(ctx, "heldout")}


def test_what_is_wrong_is_said(tmp_path):
    ctx = prepare(tmp_path, {"a.warc.gz": pages(range(6))})
    with pytest.raises(ConfigError, match=r"text\.character"):
        apply(ctx, bounds={"text.character.min": 1})
    with pytest.raises(InputError, match="too_short") as caught:
        apply(ctx, bounds={"text.characters.min": 10**6})
    assert caught.value.mend


def test_documents_that_changed_after_their_annotations_are_refused(tmp_path):
    ctx = prepare(tmp_path, {"a.warc.gz": pages(range(6))})
    crawl = write_crawl(tmp_path, {"b.warc.gz": pages(range(6, 9))})
    extract_crawl.run(extract_crawl.Config(crawl=crawl), context(ctx.store))
    with pytest.raises(InputError, match="dedup"):
        apply(ctx)


def test_made_pages_pass_the_rules_so_that_these_tests_mean_something(tmp_path):
    ctx = prepare(tmp_path, {"a.warc.gz": pages(range(24))})
    corpus, _ = apply(ctx)
    assert corpus.books["documents"]["kept"] == 24
    assert len({tuple(sentences(random.Random(n), "zh")) for n in range(24)}) == 24


def test_spans_that_recur_leave_the_texts_with_an_account(tmp_path):
    notice = "This page is reprinted here by the kind permission of its owner."
    files = {"a.warc.gz": [(url, html.replace(b"</article>", f"<p>{notice}</p></article>".encode()))
                           for url, html in pages(range(30))]}  # fmt: skip
    ctx = prepare(tmp_path, files)
    apply(ctx)
    plain = {row["id"]: row["text"] for row in rows(ctx, "corpus") + rows(ctx, "heldout")}
    assert sum(notice in text for text in plain.values()) == 30
    dedup_lines.run(dedup_lines.Config(min_count=20, sketch_mib=1), context(ctx.store))
    corpus, _ = apply(ctx, cuts=["lines"])
    cut = {row["id"]: row["text"] for row in rows(ctx, "corpus") + rows(ctx, "heldout")}
    assert cut.keys() == plain.keys() and sum(notice in text for text in cut.values()) == 1
    changed = {row["id"]: row for row in ledger(ctx) if row["verdict"] == "changed"}
    assert len(changed) == 29
    for id, text in cut.items():
        if id in changed:
            start, end = (int(place) for place in changed[id]["detail"].split("-"))
            assert plain[id][:start] + plain[id][end:] == text and changed[id]["value"] == end - start
            assert changed[id]["reason"] == "repeated_paragraph" and plain[id][start:end].strip() == notice
        else:
            assert text == plain[id]
    books = corpus.books["characters"]
    assert books["in"] == sum(map(len, plain.values())) and books["out"] == sum(map(len, cut.values()))
    assert books["in"] == books["out"] + books["removed"]["repeated_paragraph"]


def test_a_document_of_which_too_little_is_left_is_dropped_as_hollow(tmp_path):
    shared = sentences(random.Random(5), "en", 12)
    shells = [
        (f"https://shells.example/{n}", page_html([*shared, f"Only the shell with number {n * 7919} says this here."]))
        for n in range(12)
    ]
    ctx = prepare(tmp_path, {"a.warc.gz": pages(range(20)) + shells})
    settings = {"dedup": "", "min_count": 12, "sketch_mib": 1, "policy": "drop_everywhere"}
    dedup_lines.run(dedup_lines.Config(**settings), context(ctx.store))
    hollow = {row["id"]: row["lines.kept_share"] for row in rows(ctx, "lines") if row["lines.hollow"]}
    corpus, _ = apply(ctx, cuts=["lines"], dedup="")
    assert {row["id"]: row["value"] for row in ledger(ctx) if row["reason"] == "hollow"} == hollow
    assert corpus.books["documents"]["rejected"] == {"hollow": 12} and max(hollow.values()) < 0.3


def annotate(ctx: Context, name: str, columns: dict) -> None:
    """Annotations beside the documents: by column, a function of the row's place."""
    stage = Stage(
        job="made",
        stage_id=hash_unit(name),
        outputs=(Output(dataset=name, kind="annotations", schema=pa.schema([("id", pa.string()), *columns.values()])),),
        worker="tests.unit.jobs.test_filter_documents:open_annotator",
        worker_config={"name": name},
    )
    run_stage(ctx, stage, part_units(open_dataset(ctx.store, "documents").parts()), engine="process")


def open_annotator(worker_config, store):
    made = {
        "other": lambda n: {"quality.other": n / 10},
        "leaks": lambda n: {"contamination.hits": 5 * (n == 3), "contamination.example": "set/q:1" if n == 3 else None},
    }[worker_config["name"]]

    def annotator(unit):
        documents = read_parquet(store.get(unit.spec["key"]), ["id"])
        made_rows = [{"id": id_} | made(n) for n, id_ in enumerate(documents["id"].to_pylist())]
        return UnitResult(parts={worker_config["name"]: pa.Table.from_pylist(made_rows)})

    return annotator


def test_further_scores_cut_by_language_and_leaks_of_evaluation_sets_leave(tmp_path):
    ctx = prepare(tmp_path, {"a.warc.gz": pages(range(20))})
    annotate(ctx, "other", {0: pa.field("quality.other", pa.float64())})
    annotate(ctx, "leaks", {0: pa.field("contamination.hits", pa.int64()), 1: ("contamination.example", pa.string())})
    corpus, _ = apply(ctx, scores={"other": {"zh": 0.75, "any": 0.15}}, contamination="leaks")
    languages = [row["language"] for row in rows(ctx, "documents")]
    low = [n / 10 < (0.75 if language == "zh" else 0.15) for n, language in enumerate(languages)]
    found = ledger(ctx)
    by_reason = {reason: [r for r in found if r["reason"] == reason] for reason in ("low_score", "contaminated")}
    assert len(by_reason["low_score"]) == sum(low) > 3
    assert {(r["detail"], r["threshold"]) for r in by_reason["low_score"]} == {("other", 0.75), ("other", 0.15)}
    assert len(by_reason["contaminated"]) == (not low[3])
    assert all(r["detail"] == "set/q:1" and r["value"] == 5 for r in by_reason["contaminated"])
    assert corpus.job["config"]["contamination_hits"] == 1
    plain, _ = apply(ctx)
    assert "scores" not in plain.job["config"] and "contamination_hits" not in plain.job["config"]
    lenient, _ = apply(ctx, scores={"other": {"zh": 0.0}}, contamination="leaks", contamination_hits=6)
    assert lenient.books["documents"]["kept"] == plain.books["documents"]["kept"]
