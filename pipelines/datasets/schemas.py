"""Columns of documents and ledger (format 1), and the id of a document.

Columns are only ever added, nullable; never renamed or retyped. Names follow FineWeb and SkyPile where they have one.
"""

from __future__ import annotations

import struct

import pyarrow as pa
import xxhash

_S, _F, _I = pa.string(), pa.float64(), pa.int64()


def _field(name: str, kind: pa.DataType, doc: str) -> pa.Field:
    return pa.field(name, kind, metadata={"doc": doc})


DOCUMENTS = pa.schema(
    [
        _field("id", _S, "32 hex: xxh3-128 of raw target URI, WARC-Date and digest of the stored payload"),
        _field("text", _S, "main text, paragraphs separated by a newline"),
        _field("url", _S, "target URI as crawled"),
        _field("date", _S, "date of capture, ISO 8601"),
        _field("published", _S, "date of publication, where the page tells"),
        _field("title", _S, "title"),
        _field("language", _S, "ISO 639-1 where there is one"),
        _field("language_score", _F, "share of the language model, 0 to 1"),
        _field("script", _S, "Hans, Hant, mixed; null outside Chinese"),
        _field("charset", _S, "charset that decoded the page"),
        _field("source", _S, "name of the source, from the job's settings"),
        _field("source_type", _S, "web, code, book, qa"),
        _field("domain", _S, "registered domain"),
        _field("file", _S, "crawl file, relative to the crawl root"),
        _field("offset", _I, "byte offset of the record in the file"),
        _field("length", _I, "bytes of the record in the file"),
        _field("extractor", _S, "engine and version that made the text"),
        _field("opt_out", _S, "signals against use by machines: noai, tdm-reservation, ..., joined by commas"),
        _field("license", _S, "licence that the page declares: SPDX name, else its URL"),
        _field("original_text", _S, "text before its script was converted; null where nothing was"),
        _field("route", _S, "name to route by: zh-hans, zh-hant, zh-mixed, yue, en; null unless the job routes"),
    ]
)

LEDGER = pa.schema(
    [
        _field("id", _S, "document id, where it is known"),
        _field("url", _S, "target URI"),
        _field("file", _S, "crawl file"),
        _field("offset", _I, "byte offset of the record"),
        _field("length", _I, "bytes of the record"),
        _field("stage", _S, "job that decided"),
        _field("verdict", _S, "rejected, failed, changed"),
        _field("reason", _S, "closed vocabulary: pipelines/datasets/reasons.py"),
        _field("value", _F, "measured value"),
        _field("threshold", _F, "bound that it broke"),
        _field("match", _S, "id of the document that was kept instead"),
        _field("detail", _S, "what a person needs beyond the reason"),
        _field("excerpt", _S, "first characters, for a hashed sample"),
    ]
)


_size = struct.Struct("<Q").pack
_DIGEST_BYTES = _size(16)


def document_id(raw_target_uri: bytes, warc_date: bytes, payload: bytes) -> str:
    """The id of DESIGN 4: of what was crawled, never of where it is stored. May repeat when a crawl repeats."""
    digest = xxhash.xxh3_128_digest(payload)
    uri_bytes, date_bytes = _size(len(raw_target_uri)), _size(len(warc_date))
    return xxhash.xxh3_128_hexdigest(uri_bytes + raw_target_uri + date_bytes + warc_date + _DIGEST_BYTES + digest)
