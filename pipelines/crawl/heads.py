"""Header lines of WARC records and HTTP responses, read when they are asked for.

A crawl's records carry twenty headers and their reader looks at six, so a head is kept as it came and searched.
Only what a search could get wrong (folded lines, blanks around a name) makes it read the head line by line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.crawl.members import BrokenError

_BLANKS = b" \t\r\n\v\f"

_LINES: dict[bytes, bytes] = {}
_NAMES: dict[str, bytes] = {}
_LINES_KEPT = 256


class Headers(Mapping[str, str]):
    """Headers by lower-case name; the first of a repeated name wins.  Folded lines are joined by a space.

    A name with blanks around it counts where the plain name is absent.
    """

    __slots__ = ("_all", "_charset", "_lower", "_raw")

    def __init__(self, raw: bytes, *, charset: str) -> None:
        """`raw` is the first line (not a header), the header lines and the empty line."""
        self._raw = raw
        self._charset = charset
        self._lower = raw.lower()
        self._all: dict[str, bytes] | None = None

    def value(self, name: bytes) -> bytes | None:
        """The value as raw bytes, without blanks around it."""
        if self._all is None:
            lower = self._lower
            line = _LINES.get(name) or _line(name)
            at = lower.find(line)
            if at >= 0:
                at += len(line)
                stop = lower.find(b"\n", at)
                if stop >= 0 and lower[stop + 1 : stop + 2] not in b" \t":
                    return self._raw[at:stop].strip()
            elif not self._may_hide(name):
                return None
        return self._whole().get(name.decode("latin-1"))

    def _may_hide(self, name: bytes) -> bool:
        """Whether the name stands behind a blank or an odd line end: no line begins with it."""
        at = self._lower.find(name)
        while at > 0:
            if self._lower[at - 1] in _BLANKS:
                return True
            at = self._lower.find(name, at + 1)
        return False

    def replaced(self, value: bytes, other: bytes) -> Headers:
        """The same headers with the first occurrence of a value spelled otherwise."""
        return Headers(self._raw.replace(value, other, 1), charset=self._charset)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a lower-case name."""
        found = self.value(_NAMES.get(key) or _name(key))
        return default if found is None else found.decode(self._charset, "replace")

    def __getitem__(self, key: str) -> str:
        """The value of a lower-case name; KeyError where there is none."""
        found = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def __contains__(self, key: object) -> bool:
        """Whether the head has the lower-case name."""
        return isinstance(key, str) and self.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        """Lower-case names in the order of their first lines."""
        return iter(self._whole())

    def __len__(self) -> int:
        """The number of different names."""
        return len(self._whole())

    def __eq__(self, other: object) -> bool:
        """By names and values, with any mapping."""
        return isinstance(other, Mapping) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """As a dict."""
        return repr(dict(self))

    def _whole(self) -> dict[str, bytes]:
        if self._all is None:
            lines = [(name.strip(_BLANKS), name, value) for name, value in _fields(self._raw)]
            lines.sort(key=lambda line: line[0] != line[1])
            self._all = {}
            for name, _, value in lines:
                self._all.setdefault(name.decode("latin-1"), value)
        return self._all


def _line(name: bytes) -> bytes:
    """How the line of a header begins; names come from our code, so few are ever kept."""
    line = b"\n" + name + b":"
    if len(_LINES) < _LINES_KEPT:
        _LINES[name] = line
    return line


def _name(key: str) -> bytes:
    name = key.encode("latin-1", "replace")
    if len(_NAMES) < _LINES_KEPT:
        _NAMES[key] = name
    return name


NO_HEADERS = Headers(b"", charset="ascii")


def with_target_uri(headers: Headers) -> tuple[Headers, bytes]:
    """The target URI, and the headers, both without the angle brackets that WARC 1.0 allowed around it."""
    uri = headers.value(b"warc-target-uri") or b""
    if uri[:1] == b"<" and uri[-1:] == b">":
        return headers.replaced(uri, uri[1:-1]), uri[1:-1]
    return headers, uri


def parse_warc_head(head: bytes) -> tuple[Headers, bytes]:
    """Headers and the target URI."""
    return with_target_uri(Headers(head, charset="utf-8"))


def parse_http_head(head: bytes) -> tuple[int | None, Headers]:
    """Status and headers of an HTTP response; status None where the first line is none."""
    parts = head[: head.find(b"\n")].split(None, 2)
    status = None
    if len(parts) >= 2 and parts[0][:5].upper() == b"HTTP/":
        status = int(parts[1]) if len(parts[1]) == 3 and parts[1].isdigit() else None
    return status, Headers(head, charset="latin-1")


def content_length(headers: Headers) -> int:
    """The record's claim; `BrokenError` where it is none."""
    text = headers.get("content-length", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BrokenError("bad_content_length", f"Content-Length is {text[:40]!r}")
    return int(text)


def _fields(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(lower-case name with the blanks around it, value) of each header line after the first."""
    pending: tuple[bytes, list[bytes]] | None = None
    for line in head.split(b"\n")[1:]:
        stripped = line.rstrip(b"\r")
        if stripped[:1] in (b" ", b"\t"):
            if pending is not None:
                pending[1].append(stripped.strip())
            continue
        name, colon, value = stripped.partition(b":")
        if not colon:
            continue
        if pending is not None:
            yield pending[0], b" ".join(pending[1])
        pending = (name.lower(), [value.strip()])
    if pending is not None:
        yield pending[0], b" ".join(pending[1])
