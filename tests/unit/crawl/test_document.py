"""Each record becomes exactly one row: of the documents, or of the ledger with its reason."""

from __future__ import annotations

import gzip

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.crawl.document import VERDICTS, DocumentRules, outcome_of
from pipelines.crawl.domain import host_of, registered_domain
from pipelines.crawl.sources import MemorySource
from pipelines.crawl.warc import Damage, read_warc
from pipelines.datasets.schemas import DOCUMENTS, LEDGER, document_id
from tests.sample.warc_writer import CRAWLED, http_response, member, response_record, warc_record

RULES = DocumentRules(source="tests")
TEXT = "The stones turn slowly and the grain becomes flour, as it always has. "
BODY = f"<article><h1>Mill</h1><p>{TEXT * 5}</p><p>{TEXT * 4}</p></article>"
HTML = f"<html><head><title>Mill</title></head><body>{BODY}</body></html>".encode()
CHINESE = ("<html><body><p>" + "磨盘缓缓转动，谷物变成面粉，这样的门店还有几家。" * 9 + "</p></body></html>").encode()


def _outcome(record: bytes, rules: DocumentRules = RULES):
    (item,) = read_warc(MemorySource(member(record)))
    return outcome_of(item, "a.warc.gz", rules)


def _reason(record: bytes, rules: DocumentRules = RULES) -> tuple[str, str]:
    ledger = _outcome(record, rules).ledger
    return ledger["reason"], ledger["verdict"]


def test_a_page_becomes_a_row_with_its_way_back():
    row = _outcome(response_record("https://www.mill.co.uk/a?b", HTML)).document
    assert set(row) == set(DOCUMENTS.names)
    assert row["id"] == document_id(b"https://www.mill.co.uk/a?b", CRAWLED.encode(), HTML)
    assert (row["file"], row["offset"], row["url"]) == ("a.warc.gz", 0, "https://www.mill.co.uk/a?b")
    assert (row["domain"], row["language"], row["script"]) == ("mill.co.uk", "en", None)
    assert (row["title"], row["date"], row["source"]) == ("Mill", CRAWLED, "tests")
    assert row["text"].count(TEXT.strip()) == 9
    assert pa.Table.from_pylist([row], schema=DOCUMENTS).num_rows == 1


def test_chinese_pages_carry_their_script():
    row = _outcome(response_record("https://磨坊.example/", CHINESE)).document
    assert (row["language"], row["script"]) == ("zh", "Hans")
    assert row["language_score"] == round(row["language_score"], 4)


@pytest.mark.parametrize(
    ("record", "reason", "verdict"),
    [
        (response_record("https://mill.example/", HTML, status="404 Not Found"), "http_status", "rejected"),
        (
            response_record("https://mill.example/", b"%PDF-1.4", content_type="application/pdf"),
            "not_html",
            "rejected",
        ),
        (
            response_record("https://mill.example/", b"\x89PNG....", content_type="text/html"),
            "not_html",
            "rejected",
        ),
        (response_record("https://mill.example/", b"{}", content_type=None), "not_html", "rejected"),
        (response_record("ftp://mill.example/", HTML), "bad_url", "rejected"),
        (response_record("https://[::1/", HTML), "bad_url", "rejected"),
        (response_record("https://mill.example/" + "x" * 9000, HTML), "bad_url", "rejected"),
        (response_record("https://mill.example/", b"<html><body></body></html>"), "empty", "rejected"),
        (response_record("https://mill.example/", b"<div>" * 999), "too_deep", "rejected"),
        (warc_record("response", http_response(HTML)), "no_target_uri", "failed"),
        (warc_record("response", HTML, url="https://mill.example/"), "bad_http_head", "failed"),
        (
            response_record("https://mill.example/", gzip.compress(HTML)[:-9], headers=(("Content-Encoding", "gzip"),)),
            "bad_encoding",
            "failed",
        ),
    ],
)
def test_what_is_no_page_is_named(record, reason, verdict):
    assert _reason(record) == (reason, verdict)


def test_a_page_without_a_declared_type_is_known_by_its_markup():
    assert _outcome(response_record("https://mill.example/", HTML, content_type=None)).document


def test_a_language_that_was_not_asked_for_is_rejected_with_its_score():
    ledger = _outcome(
        response_record("https://mill.example/", CHINESE), DocumentRules(languages=frozenset({"en"}))
    ).ledger
    assert (ledger["reason"], ledger["detail"]) == ("language", "zh")
    assert ledger["value"] > 0.5
    assert _outcome(
        response_record("https://mill.example/", CHINESE), DocumentRules(languages=frozenset({"zh"}))
    ).document


def test_a_conversion_record_is_text_already():
    record = warc_record("conversion", (TEXT * 5).encode(), url="https://mill.example/", content_type="text/plain")
    row = _outcome(record).document
    assert (row["text"], row["extractor"]) == ((TEXT * 5).strip(), "none")


def test_a_damaged_region_leads_back_to_its_bytes():
    ledger = outcome_of(Damage(offset=7, length=9, index=0, reason="corrupt_member", detail="crc"), "f", RULES).ledger
    assert (ledger["file"], ledger["offset"], ledger["length"], ledger["verdict"]) == ("f", 7, 9, "failed")
    assert set(ledger) == set(LEDGER.names)


def test_private_suffixes_count_and_no_network_is_asked():
    assert registered_domain("a.b.github.io") == "b.github.io"
    assert registered_domain("www.mill.com.cn") == "mill.com.cn"
    assert registered_domain("127.0.0.1") == "127.0.0.1"
    assert registered_domain("localhost") == "localhost"
    assert host_of("HTTPS://WWW.Mill.Example.:443/x") == "www.mill.example"
    assert host_of("javascript:alert(1)") is None


@given(st.binary(max_size=120), st.binary(max_size=60), st.sampled_from(["200 OK", "200", "999 x", "abc"]))
@settings(deadline=None, max_examples=80)
def test_any_record_has_exactly_one_fate(body, url, status):
    raw = url.replace(b"\r", b"").replace(b"\n", b"").decode("latin-1")
    for item in read_warc(MemorySource(member(response_record(raw, body, status=status)))):
        outcome = outcome_of(item, "f", RULES)
        assert (outcome.document is None) != (outcome.ledger is None)
        if outcome.ledger:
            assert outcome.ledger["verdict"] == VERDICTS[outcome.ledger["reason"]]


@given(st.text(max_size=60))
@settings(deadline=None, max_examples=300)
def test_any_host_has_a_domain_or_is_none(name):
    host = host_of(f"https://{name}/x")
    if host is not None:
        assert registered_domain(host)


def test_an_engine_that_raises_costs_one_page(monkeypatch):
    def broken(*_):
        raise RecursionError

    for engine in ("_by_blocks", "_by_trafilatura"):
        monkeypatch.setattr(f"pipelines.crawl.extract.{engine}", broken)
    ledger = _outcome(response_record("https://mill.example/", HTML)).ledger
    assert (ledger["reason"], ledger["verdict"], ledger["detail"]) == ("engine_error", "failed", "RecursionError")


def test_a_target_uri_that_is_no_utf8_keeps_its_own_id():
    ids = set()
    for raw in ("https://mill.example/\u00ff", "https://mill.example/\u00fe"):
        record = warc_record("response", http_response(HTML), url=raw).replace(raw.encode(), raw.encode("latin-1"))
        document = _outcome(record).document
        assert document["url"] == "https://mill.example/\ufffd"
        ids.add(document["id"])
    assert len(ids) == 2
