"""Lists of domains and URLs in UT1's layout: FOLDER/CATEGORY/domains and FOLDER/CATEGORY/urls, one entry a line.

Entries become sorted 64-bit hashes: a list of four million domains takes 40 MB, and no Python object an entry stays. A
host is looked up with each of its parent domains, a URL with each of its leading paths. Two different entries share a
hash with a chance of about 1 in 10^12 for a list of millions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import xxhash

from pipelines.errors import InputError

_MOST_LABELS, _MOST_SEGMENTS = 12, 8
_CHUNK_BYTES = 1 << 22
_LONGEST_ENTRY = 2_000


@dataclass(frozen=True, slots=True)
class _Category:
    name: str
    domains: np.ndarray
    urls: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocklists:
    """Categories in the order of their names; `digest` changes with any entry."""

    categories: tuple[_Category, ...]
    digest: str

    def category(self, url: str) -> str | None:
        """The first category that lists the URL, its host or a parent domain; None for a URL that cannot be read."""
        split = _split(url)
        if split is None:
            return None
        host, path = split
        domains = _hashes(_parents(host))
        urls = _hashes(_leading(host, path))
        for each in self.categories:
            if _holds(each.domains, domains) or _holds(each.urls, urls):
                return each.name
        return None

    @property
    def sizes(self) -> Mapping[str, tuple[int, int]]:
        """(domains, URLs) by category."""
        return {each.name: (len(each.domains), len(each.urls)) for each in self.categories}


def load_blocklists(folder: str | Path) -> Blocklists:
    """Every category below `folder`; InputError where there is none."""
    root = Path(folder)
    found = []
    for place in sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else ():
        domains, urls = place / "domains", place / "urls"
        if domains.is_file() or urls.is_file():
            found.append(_Category(place.name, _sorted_hashes(domains), _sorted_hashes(urls)))
    if not found:
        raise InputError(
            f"No blocklist lies in {root}.",
            mend="It holds a folder for each category, with a file `domains` or `urls`.",
        )
    digest = xxhash.xxh3_128()
    for each in found:
        digest.update(each.name.encode() + b"\0" + each.domains.tobytes() + b"\0" + each.urls.tobytes())
    return Blocklists(categories=tuple(found), digest=digest.hexdigest())


def _sorted_hashes(path: Path) -> np.ndarray:
    """(n,) uint64, sorted, each once; a file that is absent gives none. Reads a few megabytes at a time."""
    parts = [np.zeros(0, np.uint64)]
    if path.is_file():
        for lines in _chunks(path):
            entries = [e for line in lines if (e := _entry(line))]
            parts.append(np.unique(_hashes(entries)))
    return np.unique(np.concatenate(parts))


def _chunks(path: Path) -> Iterator[list[bytes]]:
    with path.open("rb") as file:
        while lines := file.readlines(_CHUNK_BYTES):
            yield lines


def _entry(line: bytes) -> str:
    """`Example.COM/path/` -> `example.com/path`, as URLs are looked up; comments and endless lines give nothing."""
    text = line.decode("utf-8", "replace").strip()
    if not text or text.startswith("#") or len(text) > _LONGEST_ENTRY:
        return ""
    split = _split(text if "://" in text else f"http://{text}")
    if split is None:
        return ""
    host, path = split
    return host + path


def _split(url: str) -> tuple[str, str] | None:
    """(host in ASCII without www and port, path without the last slash) or None."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".").lower()
    except ValueError:
        return None
    if not host:
        return None
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            return None
    return host.removeprefix("www."), unquote(parts.path).rstrip("/")


def _parents(host: str) -> list[str]:
    labels = host.split(".")[-_MOST_LABELS:]
    if host.replace(".", "").isdigit() or ":" in host:
        return [host]
    return [".".join(labels[at:]) for at in range(max(1, len(labels) - 1))]


def _leading(host: str, path: str) -> list[str]:
    segments = path.split("/")[1 : _MOST_SEGMENTS + 1]
    return [host, *(f"{host}/" + "/".join(segments[:at]) for at in range(1, len(segments) + 1))]


def _hashes(entries: list[str]) -> np.ndarray:
    return np.fromiter(
        (xxhash.xxh3_64_intdigest(e.encode("utf-8", "replace")) for e in entries), np.uint64, len(entries)
    )


def _holds(sorted_hashes: np.ndarray, wanted: np.ndarray) -> bool:
    at = np.searchsorted(sorted_hashes, wanted)
    inside = at < len(sorted_hashes)
    return bool((sorted_hashes[at[inside]] == wanted[inside]).any())
