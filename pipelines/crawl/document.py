"""One crawl record -> a page to extract, or one row of the ledger that says why not.

Verdicts: `failed` is what could not be read, `rejected` is what a rule refused, `changed` is a kept document of which
something was masked or taken out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.crawl.domain import host_of
from pipelines.crawl.entity import UndecodableError, entity_body
from pipelines.crawl.items import Damage, Record
from pipelines.crawl.pages import SIGNAL_HEADERS, PageInput, PageRules
from pipelines.datasets.schemas import document_id
from pipelines.filters.blocklist import Blocklists
from pipelines.filters.clean import CleanRules

if TYPE_CHECKING:
    from pipelines.takedown.requests import Listed

STAGE = "extract_crawl"
# Verdict of each reason that this stage can give; the meanings are in pipelines/datasets/reasons.py.
VERDICTS = {
    "truncated_record": "failed", "corrupt_member": "failed", "garbage_between_records": "failed",
    "bad_content_length": "failed", "header_over_bound": "failed", "record_over_bound": "failed",
    "not_a_record": "failed", "not_a_warc": "failed", "no_target_uri": "failed", "bad_http_head": "failed",
    "bad_encoding": "failed", "engine_error": "failed",
    "page_time": "failed", "page_memory": "failed", "page_crash": "failed",
    "http_status": "rejected", "not_html": "rejected", "bad_url": "rejected", "too_long": "rejected",
    "too_deep": "rejected", "too_many_tags": "rejected", "too_many_attributes": "rejected",
    "empty": "rejected", "language": "rejected", "sniffed_language": "rejected", "sniffed_short": "rejected",
    "opt_out": "rejected", "blocked_url": "rejected", "takedown": "rejected",
}  # fmt: skip
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_MARKUP_START = re.compile(rb"\s*(?:<!doctype\s+html|<html|<head|<body|<!--)", re.IGNORECASE)
_NOT_TEXT_START = (b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"%PDF", b"PK\x03\x04", b"RIFF", b"\x1f\x8b")
_MAX_URL_BYTES = 8_192
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
_CAPTURED = re.compile(r"\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?Z?)?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRules:
    """What extraction refuses by itself, and what it does to a text that it keeps.

    `languages` None keeps every language; `zh` means Cantonese too.  `script` is a policy of
    pipelines/language/convert.py.  `opt_out`: keep (signals are not recorded), mark, or drop where a signal is one of
    `refused_signals`.  `clean` None leaves texts as they are.  A page that `blocklists` or
    `takedowns` name is not looked at.
    """

    source: str = "crawl"
    source_type: str = "web"
    languages: frozenset[str] | None = None
    script: str = "keep"
    opt_out: str = "mark"
    refused_signals: frozenset[str] = frozenset({"noai", "tdm-reservation"})
    clean: CleanRules | None = field(default_factory=CleanRules)
    blocklists: Blocklists | None = None
    takedowns: Listed | None = None
    page: PageRules = field(default_factory=PageRules)

    def wants(self, language: str) -> bool:
        """Whether documents in this language are kept."""
        return self.languages is None or language in self.languages or (language == "yue" and "zh" in self.languages)


@dataclass(slots=True, kw_only=True)  # one a page: a frozen one takes three times as long to make
class Candidate:
    """A record that may become a document: where it lies, what is known of it, its page."""

    key: bytes
    file: str
    offset: int
    length: int
    id: str
    url: str
    host: str | None
    date: str | None
    page: PageInput
    title: str | None = None  # where the input tells them: rows
    published: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Exactly one of `document` and `ledger` is set."""

    document: dict[str, Any] | None = None
    ledger: dict[str, Any] | None = None


def record_key(file: str, offset: int, index: int) -> bytes:
    """What the books count a record by."""
    return b"%s\0%d\0%d" % (file.encode("utf-8", "surrogateescape"), offset, index)


def candidate_id(record: Record, date: str | None = None) -> str:
    """The id of the document that the record would be; `date` is its WARC-Date, where it is at hand."""
    date = record.headers.get("warc-date", "") if date is None else date
    return document_id(record.target_uri, date.encode(), record.body)


def candidate_of(item: Record | Damage, file: str, rules: DocumentRules) -> Candidate | dict[str, Any]:
    """The page of a record, or the ledger row of what is none."""
    file = item.file or file
    if isinstance(item, Damage):
        return ledger_row(item, file, item.reason, detail=item.detail or None)
    url = item.target_uri.decode("utf-8", "replace")
    date = item.headers.get("warc-date", "")
    if rules.takedowns is not None and (kind := rules.takedowns.kind_of(url)) is not None:
        return ledger_row(item, file, "takedown", detail=kind, id=candidate_id(item, date))  # and not the address
    known = {"id": candidate_id(item, date), "url": url or None}
    host = host_of(url)
    refused = _refuse_record(item, host)
    if refused is not None:
        return ledger_row(item, file, refused[0], value=refused[1], detail=refused[2], **known)
    if rules.blocklists is not None and url and (category := rules.blocklists.category(url)) is not None:
        return ledger_row(item, file, "blocked_url", detail=category, **known)
    given = item.fields or {}
    is_http = item.http_status is not None
    content_type = (item.http_headers if is_http else item.headers).get("content-type", "")
    plain_type = content_type.split(";")[0].strip().lower()
    try:
        body = entity_body(item.body, item.http_headers, max_bytes=3 * rules.page.bounds.html_bytes)
    except UndecodableError as error:
        return ledger_row(item, file, error.args[0], detail=error.args[1], **known)
    plain = item.record_type == "conversion" and plain_type in ("text/plain", "")
    if not plain and not _is_html(body, plain_type):
        return ledger_row(item, file, "not_html", detail=plain_type[:80] or None, **known)
    captured = date if _CAPTURED.match(date) else None
    return Candidate(
        key=record_key(file, item.offset, item.index),
        file=file,
        offset=item.offset,
        length=item.length,
        id=known["id"],
        url=url,
        host=host,
        date=captured,
        page=PageInput(
            body=body,
            plain=plain,
            url=url or None,
            content_type=content_type,
            captured=captured[:10] if captured else None,
            signals={name: value for name in SIGNAL_HEADERS if (value := item.http_headers.get(name))},
        ),
        title=given.get("title"),
        published=published if (published := given.get("date")) and _DAY.match(published) else None,
    )


def ledger_row(
    item: Record | Damage | Candidate,
    file: str,
    reason: str,
    *,
    id: str | None = None,
    url: str | None = None,
    verdict: str | None = None,
    value: float | None = None,
    threshold: float | None = None,
    detail: str | None = None,
) -> dict[str, Any]:
    """A row of the ledger."""
    return {
        "id": id,
        "url": url,
        "file": file,
        "offset": item.offset,
        "length": item.length,
        "stage": STAGE,
        "verdict": verdict or VERDICTS[reason],
        "reason": reason,
        "value": value,
        "threshold": threshold,
        "match": None,
        "detail": detail,
        "excerpt": None,
    }


def outcome_of(item: Record | Damage, file: str, rules: DocumentRules) -> Outcome:
    """The fate of one record or damaged region: a batch of one."""
    from pipelines.crawl.batches import batches

    (batch,) = batches([item], file, rules)
    if batch.documents.num_rows:
        return Outcome(document=batch.documents.to_pylist()[0])
    return Outcome(ledger=next(_rejected(batch.ledger.to_pylist())))


def _rejected(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (row for row in rows if row["verdict"] != "changed")


def _refuse_record(record: Record, host: str | None) -> tuple[str, float | None, str | None] | None:
    """(reason, value, detail) of the first rule before the payload that the record breaks."""
    if not record.target_uri and record.fields is None:
        return "no_target_uri", None, None
    if record.over_bound:
        return "too_long", None, "the stored record"
    if record.http_status is None:
        if record.headers.get("content-type", "").lower().startswith("application/http"):
            return "bad_http_head", None, None
    elif record.http_status != 200:
        return "http_status", float(record.http_status or 0), None
    if len(record.target_uri) > _MAX_URL_BYTES or (host is None and record.fields is None):
        return "bad_url", None, None
    return None


def _is_html(body: bytes, plain_type: str) -> bool:
    """By the declared type, unless the bytes are plainly other; by the bytes where none is declared."""
    if body.startswith(_NOT_TEXT_START):
        return False
    if plain_type in _HTML_TYPES:
        return True
    undeclared = plain_type in ("", "application/octet-stream", "unknown")
    return undeclared and _MARKUP_START.match(body[:1024]) is not None
