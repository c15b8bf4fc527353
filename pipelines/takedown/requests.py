"""What was asked to be taken down, as hashes: nobody who reads the list learns an address or a word from it.

A target is a URL (in its canonical form), a domain with all below it, a text (the digest of its normal form), or a
document (its id). The list is the dataset `takedowns`, which only grows. `apply` adds the ids of what it found, so
that whatever dies later, what is left to do can be known from the list alone.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.crawl.domain import host_of
from pipelines.dedup.urls import canonical_url
from pipelines.errors import InputError

KINDS = ("url", "domain", "text", "id")

TAKEDOWNS = pa.schema(
    [
        pa.field("request", pa.string(), metadata={"doc": "16 hex: what was asked for together"}),
        pa.field("kind", pa.string(), metadata={"doc": "url, domain, text or id"}),
        pa.field("target", pa.string(), metadata={"doc": "32 hex: BLAKE2b-128 of the URL, domain or text; or the id"}),
        pa.field("host", pa.string(), metadata={"doc": "of a URL: 32 hex of its host, so that others need no look"}),
        pa.field("found_by", pa.string(), metadata={"doc": "of an id: the kind that found it, or twin"}),
        pa.field("input", pa.string(), metadata={"doc": "of an id: the piece of input that its part was made of"}),
        pa.field("asked_at", pa.string(), metadata={"doc": "UTC, ISO 8601"}),
        pa.field("reason", pa.string(), metadata={"doc": "what was given as the reason; no text of a page"}),
    ]
)
_HEX = re.compile(r"[0-9a-f]{32}")


def digest_of(value: str | bytes) -> str:
    """32 hex of a canonical URL, a host or domain, or a normal form: BLAKE2b-128, as signatures hold it."""
    body = value.encode("utf-8", "replace") if isinstance(value, str) else value
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def text_digests(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """(n,) 32 hex of each text's normal form; null where that is empty."""
    from pipelines.dedup.normalize import normal_forms, utf8_of  # compiled: looking a page up must not need that

    utf8, offsets = utf8_of(normal_forms(texts))
    body, bounds = utf8.tobytes(), offsets.tolist()
    found = []
    for start, end in itertools.pairwise(bounds):
        found.append(digest_of(body[start:end]) if end > start else None)
    return pa.array(found, pa.string())


def targets(kind: str, lines: Iterable[str], *, source: str) -> list[dict[str, str | None]]:
    """Rows of TAKEDOWNS (kind, target, host) from lines; empty ones and those that begin with `#` are left out.

    InputError names the first line that is no URL, domain, digest or id, and nothing of the file is taken.
    """
    rows: dict[str, dict[str, str | None]] = {}
    for number, line in enumerate(lines, 1):
        value = line.strip().removeprefix("\ufeff")
        if not value or value.startswith("#"):
            continue
        row = _target(kind, value)
        if row is None:
            raise InputError(
                f"{source}, line {number}: {value[:80]!r} is no {_EXPECTED[kind]}",
                mend="mend the line; nothing was added",
            )
        rows[str(row["target"])] = row
    return list(rows.values())


_EXPECTED = {
    "url": "http or https URL",
    "domain": "domain (example.org, without scheme and path)",
    "text": "text digest (32 hex; `gristmill takedown digest FILE` prints it)",
    "id": "document id (32 hex)",
}


def _target(kind: str, value: str) -> dict[str, str | None] | None:
    if kind == "url":
        form, host = canonical_url(value), host_of(value)
        if form is None or host is None:
            return None
        return {"kind": kind, "target": digest_of(form), "host": digest_of(_plain(host))}
    if kind == "domain":
        name = value.lower().removeprefix("*.").rstrip(".")
        host = host_of(f"http://{name}/")
        if host != name and not (host and not name.isascii()):
            return None
        return {"kind": kind, "target": digest_of(_plain(host)), "host": None}
    return {"kind": kind, "target": value.lower(), "host": None} if _HEX.fullmatch(value.lower()) else None


def _plain(host: str) -> str:
    """International names by their ASCII form, `www` and `m` kept: domains are told by their ends."""
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


@dataclass(frozen=True)
class Listed:
    """All targets, to look pages up in; about 100 bytes a target."""

    table: pa.Table

    def of(self, kind: str) -> pa.Array:
        """The targets of a kind."""
        return self.table.filter(pc.equal(self.table["kind"], kind))["target"].combine_chunks()

    @cached_property
    def ids(self) -> pa.Array:
        """Ids of documents that are to be, or have been, taken down."""
        return self.of("id")

    @cached_property
    def texts(self) -> pa.Array:
        """Digests of normal forms."""
        return self.of("text")

    @cached_property
    def _hosts(self) -> frozenset[str]:
        return frozenset(pc.unique(self.table.filter(pc.equal(self.table["kind"], "url"))["host"]).to_pylist())

    @cached_property
    def _urls(self) -> frozenset[str]:
        return frozenset(self.of("url").to_pylist())

    @cached_property
    def _domains(self) -> frozenset[str]:
        return frozenset(self.of("domain").to_pylist())

    @cached_property
    def names_pages(self) -> bool:
        """Whether any URL or domain is listed: else addresses need no look."""
        return bool(self._urls or self._domains)

    def kind_of(self, url: str | None) -> str | None:
        """`domain` or `url` where the address is listed."""
        if not url or not self.names_pages:
            return None
        host = host_of(url)
        if host is None:
            return None
        host = _plain(host)
        if self._domains and any(digest_of(name) in self._domains for name in _ends(host)):
            return "domain"
        if digest_of(host) in self._hosts or self._same_site(host):
            form = canonical_url(url)
            if form is not None and digest_of(form) in self._urls:
                return "url"
        return None

    def _same_site(self, host: str) -> bool:
        """Whether the host with or without `www` is listed: the canonical form knows no `www`."""
        other = host.removeprefix("www.") if host.startswith("www.") else f"www.{host}"
        return digest_of(other) in self._hosts


def _ends(host: str) -> list[str]:
    """`a.b.c` -> `a.b.c`, `b.c`, `c`."""
    labels = host.split(".")
    return [".".join(labels[n:]) for n in range(len(labels))]
