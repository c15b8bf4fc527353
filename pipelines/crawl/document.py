"""One crawl record -> one row of documents, or one row of the ledger that says why not.

Verdicts: `failed` is what could not be read, `rejected` is what a rule refused.  A row of documents and a
ledger row are dicts by column name; the job turns them into Arrow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from pipelines.crawl.decode import decode_text
from pipelines.crawl.domain import host_of, registered_domain
from pipelines.crawl.entity import UndecodableError, entity_body
from pipelines.crawl.extract import Page, clean_text, extract_html, extractor_name
from pipelines.crawl.shape import PageBounds
from pipelines.crawl.warc import Damage, Record
from pipelines.datasets.schemas import document_id
from pipelines.language.identify import identify
from pipelines.language.script import script_of

STAGE = "extract_crawl"
# Verdict of each reason that this stage can give; the meanings are in pipelines/datasets/reasons.py.
VERDICTS = {
    "truncated_record": "failed", "corrupt_member": "failed", "garbage_between_records": "failed",
    "bad_content_length": "failed", "header_over_bound": "failed", "record_over_bound": "failed",
    "not_a_record": "failed", "not_a_warc": "failed", "no_target_uri": "failed", "bad_http_head": "failed",
    "bad_encoding": "failed", "engine_error": "failed",
    "http_status": "rejected", "not_html": "rejected", "bad_url": "rejected", "too_long": "rejected",
    "too_deep": "rejected", "too_many_tags": "rejected", "too_many_attributes": "rejected",
    "empty": "rejected", "language": "rejected",
}  # fmt: skip
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_MARKUP_START = re.compile(rb"\s*(?:<!doctype\s+html|<html|<head|<body|<!--)", re.IGNORECASE)
_NOT_TEXT_START = (b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"%PDF", b"PK\x03\x04", b"RIFF", b"\x1f\x8b")
_MAX_URL_BYTES = 8_192
_CAPTURED = re.compile(r"\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?Z?)?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRules:
    """What extraction refuses by itself.  `languages` None keeps every language."""

    source: str = "crawl"
    source_type: str = "web"
    languages: frozenset[str] | None = None
    page: PageBounds = field(default_factory=PageBounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Exactly one of `document` and `ledger` is set."""

    document: dict[str, Any] | None = None
    ledger: dict[str, Any] | None = None


def record_key(file: str, offset: int, index: int) -> bytes:
    """What the books count a record by."""
    return b"%s\0%d\0%d" % (file.encode("utf-8", "surrogateescape"), offset, index)


def outcome_of(item: Record | Damage, file: str, rules: DocumentRules) -> Outcome:
    """The fate of one record or damaged region."""
    if isinstance(item, Damage):
        return _refuse(file, item, item.reason, detail=item.detail or None)
    url = item.target_uri.decode("utf-8", "replace")
    date = item.headers.get("warc-date", "")
    known = {"id": document_id(item.target_uri, date.encode(), item.body), "url": url or None}
    refused = _refuse_record(item, url)
    if refused is not None:
        return _refuse(file, item, refused[0], value=refused[1], detail=refused[2], **known)
    page = _page(item, url, date, rules)
    if page.reason is not None:
        return _refuse(file, item, page.reason, value=page.value, threshold=page.threshold, detail=page.detail, **known)
    language, score = identify(page.text)
    if rules.languages is not None and language not in rules.languages:
        return _refuse(file, item, "language", value=score, detail=language, **known)
    return Outcome(
        document={
            **known,
            "text": page.text,
            "date": date if _CAPTURED.match(date) else None,
            "published": page.date,
            "title": page.title,
            "language": language,
            "language_score": score,
            "script": script_of(page.text, language),
            "charset": page.charset,
            "source": rules.source,
            "source_type": rules.source_type,
            "domain": registered_domain(host_of(url) or ""),
            "file": file,
            "offset": item.offset,
            "length": item.length,
            "extractor": "none" if item.record_type == "conversion" else extractor_name(),
        }
    )


def _refuse_record(record: Record, url: str) -> tuple[str, float | None, str | None] | None:
    """(reason, value, detail) of the first rule before the payload that the record breaks."""
    if not record.target_uri:
        return "no_target_uri", None, None
    if record.over_bound:
        return "too_long", None, "the stored record"
    is_http = record.headers.get("content-type", "").lower().startswith("application/http")
    if record.http_status is None and is_http:
        return "bad_http_head", None, None
    if record.http_status not in (None, 200):
        return "http_status", float(record.http_status or 0), None
    if len(record.target_uri) > _MAX_URL_BYTES or host_of(url) is None:
        return "bad_url", None, None
    return None


def _page(record: Record, url: str, date: str, rules: DocumentRules) -> Page:
    """The page of a record, or a Page with the reason why there is none."""
    is_http = record.http_status is not None
    content_type = (record.http_headers if is_http else record.headers).get("content-type", "")
    plain_type = content_type.split(";")[0].strip().lower()
    try:
        body = entity_body(record.body, record.http_headers, max_bytes=3 * rules.page.html_bytes)
    except UndecodableError as error:
        return Page(reason=error.args[0], detail=error.args[1])
    if record.record_type == "conversion" and plain_type in ("text/plain", ""):
        if len(body) > rules.page.html_bytes:
            return Page(reason="too_long", value=len(body), threshold=rules.page.html_bytes)
        text, charset = decode_text(body, content_type)
        text = clean_text(text)
        return Page(text=text, charset=charset, reason=None if text else "empty")
    if not _is_html(body, plain_type):
        return Page(reason="not_html", detail=plain_type[:80] or None)
    captured = date[:10] if _CAPTURED.match(date) else None
    return extract_html(body, url=url, content_type=content_type, captured=captured, bounds=rules.page)


def _is_html(body: bytes, plain_type: str) -> bool:
    """By the declared type, unless the bytes are plainly other; by the bytes where none is declared."""
    if body.startswith(_NOT_TEXT_START):
        return False
    if plain_type in _HTML_TYPES:
        return True
    undeclared = plain_type in ("", "application/octet-stream", "unknown")
    return undeclared and _MARKUP_START.match(body[:1024]) is not None


def _refuse(
    file: str,
    item: Record | Damage,
    reason: str,
    *,
    id: str | None = None,
    url: str | None = None,
    value: float | None = None,
    threshold: float | None = None,
    detail: str | None = None,
) -> Outcome:
    return Outcome(
        ledger={
            "id": id,
            "url": url,
            "file": file,
            "offset": item.offset,
            "length": item.length,
            "stage": STAGE,
            "verdict": VERDICTS[reason],
            "reason": reason,
            "value": value,
            "threshold": threshold,
            "match": None,
            "detail": detail,
            "excerpt": None,
        }
    )
