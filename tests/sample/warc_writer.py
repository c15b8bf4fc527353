"""WARC records as a crawler writes them, deterministically; for the sample crawl and for tests."""

from __future__ import annotations

import gzip
import hashlib
import io
import uuid

CRAWLED = "2026-06-01T08:00:00Z"


def warc_record(
    record_type: str,
    block: bytes,
    *,
    url: str | None = None,
    content_type: str = "application/http;msgtype=response",
    date: str = CRAWLED,
    content_length: int | str | None = None,
    version: str = "WARC/1.1",
    extra: tuple[tuple[str, str], ...] = (),
) -> bytes:
    """One record, uncompressed, with its two closing line ends."""
    identity = uuid.uuid5(uuid.NAMESPACE_URL, f"{record_type} {url} {date} {hashlib.sha256(block).hexdigest()}")
    head = [
        version,
        f"WARC-Type: {record_type}",
        f"WARC-Record-ID: <urn:uuid:{identity}>",
        f"WARC-Date: {date}",
    ]
    if url is not None:
        head.append(f"WARC-Target-URI: {url}")
    head += [f"{name}: {value}" for name, value in extra]
    head += [
        f"Content-Type: {content_type}",
        f"Content-Length: {len(block) if content_length is None else content_length}",
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"


def http_response(
    body: bytes,
    *,
    status: str = "200 OK",
    content_type: str | None = "text/html; charset=utf-8",
    headers: tuple[tuple[str, str], ...] = (),
) -> bytes:
    """The block of a response record."""
    lines = [f"HTTP/1.1 {status}", "Server: mill.example"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    lines += [f"{name}: {value}" for name, value in headers]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def response_record(url: str, body: bytes, *, date: str = CRAWLED, **http) -> bytes:
    """A response record of a page."""
    return warc_record("response", http_response(body, **http), url=url, date=date)


def member(record: bytes, *, level: int = 9) -> bytes:
    """The record as one gzip member without time or name, so that the same record gives the same bytes."""
    out = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=level, mtime=0) as stream:
        stream.write(record)
    return out.getvalue()


def crawl_file(*records: bytes) -> bytes:
    """Records as one `.warc.gz`, a member each."""
    return b"".join(member(record) for record in records)
