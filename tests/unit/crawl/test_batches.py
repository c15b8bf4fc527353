"""Batches: every item once, rows that do not depend on where a batch ends, and every policy's effect."""

from __future__ import annotations

import time
from dataclasses import replace

import pyarrow as pa
import pytest

from pipelines.crawl import pages as pages_module
from pipelines.crawl.batches import batches
from pipelines.crawl.document import VERDICTS, DocumentRules
from pipelines.crawl.pages import Found, PageExtractor, PageInput, PageRules
from pipelines.crawl.records import read_records
from pipelines.crawl.sniff import SniffRules
from pipelines.crawl.sources import MemorySource
from pipelines.datasets.books import Counters
from pipelines.datasets.reasons import REASONS
from pipelines.errors import ConfigError
from pipelines.filters.blocklist import load_blocklists
from pipelines.filters.clean import CleanRules
from pipelines.language.convert import check_policy
from tests.made_crawl import page
from tests.sample.warc_writer import crawl_file, response_record

PARAGRAPH = "<p>The stones turn slowly and the grain becomes flour, as it always has.</p>"
HANT = "<p>磨盤緩緩轉動，穀物變成麵粉，這樣的門店還有幾家，來買麵的人說這裡的麵最香。</p>"


def html(body: str, head: str = "") -> bytes:
    return f"<html><head><title>t</title>{head}</head><body><article>{body}</article></body></html>".encode()


def all_batches(records: list[bytes], rules: DocumentRules | None = None, **given):
    items = read_records(MemorySource(crawl_file(*records)))
    return list(batches(items, "a.warc.gz", rules or DocumentRules(), **given))


def documents(records: list[bytes], rules: DocumentRules | None = None, **given) -> list[dict]:
    made = all_batches(records, rules, **given)
    return pa.concat_tables([batch.documents for batch in made]).to_pylist()


def ledger(records: list[bytes], rules: DocumentRules | None = None) -> list[dict]:
    return [row for batch in all_batches(records, rules) for row in batch.ledger.to_pylist()]


def mixed() -> list[bytes]:
    records = [response_record(f"https://mill.example/{n}", page(n)) for n in range(12)]
    records[3] = response_record("https://mill.example/3", b"", status="404 Not Found")
    records[7] = response_record("https://mill.example/7", b"<html></html>")
    return records


def test_rows_and_books_do_not_depend_on_where_a_batch_ends():
    whole = all_batches(mixed())
    assert len(whole) == 1 and sum(n for n, _ in whole[0].accounts.values()) == 24
    for batch_bytes in (1, 3_000, 9_000):
        cut = all_batches(mixed(), batch_bytes=batch_bytes)
        assert len(cut) > 1
        for name in ("documents", "measures", "ledger"):
            rows = pa.concat_tables([getattr(b, name) for b in cut]).to_pylist()
            expected = getattr(whole[0], name).to_pylist()
            assert rows == expected or (name == "ledger" and sorted(map(str, rows)) == sorted(map(str, expected)))
        totals = Counters()
        for batch in cut:
            for account, (n, total) in batch.accounts.items():
                totals.add_sum(account, n, total)
        expected = Counters()
        for account, (n, total) in whole[0].accounts.items():
            expected.add_sum(account, n, total)
        assert totals.values == expected.values


def test_a_unit_without_records_gives_one_empty_batch():
    (batch,) = batches([], "a.warc.gz", DocumentRules())
    assert batch.documents.num_rows == batch.measures.num_rows == batch.ledger.num_rows == 0
    assert batch.accounts == {"read": (0, 0)}


def test_every_verdict_has_a_meaning():
    assert set(VERDICTS) <= set(REASONS)


def test_pages_apart_and_pages_here_give_the_same():
    pages = [PageInput(body=page(n), plain=False) for n in range(4)]
    pages.append(PageInput(body="纯文本\n第二行".encode(), plain=True))
    here = PageExtractor(PageRules(isolate_bytes=None)).extract(pages)
    assert PageExtractor(PageRules(isolate_bytes=0)).extract(pages) == here
    assert PageExtractor(PageRules(isolate_bytes=len(page(0)))).extract(pages) == here


def stuck_page(body: bytes, *rest) -> dict:
    """Stands in for an engine that some pages hang."""
    if b"hang" in body:
        while True:
            time.sleep(0.01)
    return {"text": "fine"}


def no_warm_up() -> None:
    pass


def test_a_page_that_hangs_has_its_reason_and_its_place_in_the_ledger(monkeypatch):
    from pipelines.crawl.sandbox import Sandbox

    box = Sandbox(f"{__name__}:stuck_page", seconds=0.2, wall_seconds=0.5, memory_bytes=1 << 28)
    monkeypatch.setattr(pages_module, "_sandbox", lambda *_: box)
    records = [response_record(f"https://mill.example/{n}", html(PARAGRAPH)) for n in range(3)]
    records[1] = response_record("https://mill.example/1", html("hang"))
    rules = DocumentRules(page=PageRules(isolate_bytes=0))
    with box:
        assert [row["url"][-1] for row in documents(records, rules)] == ["0", "2"]
        (row,) = ledger(records, rules)
    start = len(crawl_file(records[0]))
    assert (row["reason"], row["verdict"], row["offset"]) == ("page_time", "failed", start)
    assert row["length"] == len(crawl_file(records[1])) and row["id"]


def test_opt_out_is_marked_dropped_or_not_looked_at():
    head = '<meta name="robots" content="noai, noindex"><link rel="license" href="https://spdx.org/licenses/MIT">'
    records = [
        response_record("https://mill.example/meta", html(PARAGRAPH * 9, head)),
        response_record("https://mill.example/head", html(PARAGRAPH * 9), headers=(("TDM-Reservation", "1"),)),
        response_record("https://mill.example/none", html(PARAGRAPH * 9)),
    ]
    marked = {row["url"][21:]: row for row in documents(records)}
    assert marked["meta"]["opt_out"] == "noai,noindex" and marked["meta"]["license"]
    assert (marked["head"]["opt_out"], marked["none"]["opt_out"]) == ("tdm-reservation", None)
    assert [row["opt_out"] for row in documents(records, DocumentRules(opt_out="keep"))] == [None] * 3
    drop = DocumentRules(opt_out="drop")
    assert [row["url"][21:] for row in documents(records, drop)] == ["none"]
    assert {(row["reason"], row["detail"]) for row in ledger(records, drop)} == {
        ("opt_out", "noai"),
        ("opt_out", "tdm-reservation"),
    }
    some = DocumentRules(opt_out="drop", refused_signals=frozenset({"noindex"}))
    assert [row["url"][21:] for row in documents(records, some)] == ["head", "none"]


def test_script_is_kept_converted_with_the_original_or_routed():
    records = [response_record("https://mill.example/", html(HANT * 6))]
    (kept,) = documents(records)
    assert (kept["language"], kept["script"], kept["original_text"], kept["route"]) == ("zh", "Hant", None, None)
    (converted,) = documents(records, DocumentRules(script="convert:hans"))
    assert "磨盘缓缓转动" in converted["text"] and converted["original_text"] == kept["text"]
    assert converted["script"] == "Hant"
    (same,) = documents(records, DocumentRules(script="convert:hant"))
    assert same["original_text"] is None and same["text"] == kept["text"]
    (routed,) = documents(records, DocumentRules(script="route"))
    assert routed["route"] == "zh-hant" and routed["text"] == kept["text"]
    with pytest.raises(ConfigError):
        check_policy("convert:klingon")


def test_measures_are_of_the_text_that_is_written():
    from pipelines.filters.measures import measure

    records = [
        response_record("https://mill.example/zh", html(HANT * 6 + "<p>來信請寄 li.si@example.org 謝謝。</p>")),
        response_record("https://mill.example/en", html(PARAGRAPH * 9)),
    ]
    for rules in (DocumentRules(), DocumentRules(script="convert:hans"), DocumentRules(clean=None)):
        (batch,) = all_batches(records, rules)
        assert batch.measures.drop(["id"]).equals(measure(batch.documents["text"]))


def test_the_original_of_a_converted_text_holds_no_personal_data():
    records = [response_record("https://mill.example/", html(HANT * 6 + "<p>來信請寄 li.si@example.org 謝謝。</p>"))]
    (row,) = documents(records, DocumentRules(script="convert:hans"))
    assert "li.si" not in row["text"] and "li.si" not in row["original_text"]


def test_a_wanted_language_is_kept_and_an_unwanted_one_is_seen_before_extraction(monkeypatch):
    records = [
        response_record("https://mill.example/en", html(PARAGRAPH * 9)),
        response_record("https://mill.example/zh", html(HANT * 6)),
    ]
    zh = frozenset({"zh"})
    looks = DocumentRules(languages=zh, page=PageRules(sniff=SniffRules(languages=zh)))
    seen: list[bytes] = []
    real = pages_module.extract_html
    monkeypatch.setattr(pages_module, "extract_html", lambda body, **given: seen.append(body) or real(body, **given))
    assert [row["language"] for row in documents(records, looks)] == ["zh"]
    assert len(seen) == 1
    assert [row["reason"] for row in ledger(records, looks)] == ["sniffed_language"]
    full = DocumentRules(languages=zh)
    assert [row["reason"] for row in ledger(records, full)] == ["language"]
    assert documents(records, full) == documents(records, looks)


def test_a_text_of_which_nothing_is_left_is_empty_and_books_no_character(monkeypatch):
    def nothing(texts, languages, *, source_type, rules):
        from pipelines.filters.clean import CHANGE_SCHEMA, Cleaned

        change = {"reason": "line_share", "count": 1, "characters": 9, "detail": "0-9"}
        told = [{"row": n, **change} for n in range(len(texts))]
        changes = pa.Table.from_pylist(told, schema=CHANGE_SCHEMA)
        return Cleaned(texts=pa.array([""] * len(texts)), changes=changes, facts=None)

    monkeypatch.setattr("pipelines.crawl.batches.clean", nothing)
    (batch,) = all_batches([response_record("https://mill.example/", html(PARAGRAPH * 9))])
    (row,) = batch.ledger.to_pylist()
    assert (row["verdict"], row["reason"]) == ("rejected", "empty") and "line_share" in row["detail"]
    assert batch.characters == {} and batch.documents.num_rows == 0


def test_texts_that_are_not_cleaned_stay_as_they_are():
    records = [response_record("https://mill.example/", html(PARAGRAPH * 9 + "<p>write to li.si@example.org now.</p>"))]
    (row,) = documents(records, DocumentRules(clean=None))
    assert "li.si@example.org" in row["text"]
    (lines_only,) = documents(records, DocumentRules(clean=CleanRules(pii=())))
    assert "li.si@example.org" in lines_only["text"]


def test_a_page_that_a_blocklist_names_is_not_looked_at(tmp_path):
    (tmp_path / "adult").mkdir()
    (tmp_path / "adult" / "domains").write_text("bad.example\n")
    records = [
        response_record("https://www.bad.example/1", html(PARAGRAPH * 9)),
        response_record("https://mill.example/1", html(PARAGRAPH * 9)),
    ]
    rules = DocumentRules(blocklists=load_blocklists(tmp_path))
    assert [row["domain"] for row in documents(records, rules)] == ["mill.example"]
    (row,) = ledger(records, rules)
    assert (row["reason"], row["verdict"], row["detail"]) == ("blocked_url", "rejected", "adult")


def test_an_extractor_that_cannot_judge_a_page_says_which_bound_it_broke():
    rules = PageRules(isolate_bytes=0)
    extractor = PageExtractor(replace(rules, seconds=0.25))
    from pipelines.crawl.sandbox import RaisedError, StuckError

    assert extractor._judged(StuckError("page_time", "x")) == Found(reason="page_time", threshold=0.25, detail="x")
    assert extractor._judged(RaisedError("KeyError", "")) == Found(reason="engine_error", detail="KeyError")
