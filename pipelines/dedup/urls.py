"""Canonical URLs: which addresses name one page, and which capture of a page stays.

The canonical form drops what does not choose the page: scheme, user, `www`, the default port, the fragment,
parameters of campaigns and sessions (`url_parameters.txt`), an index page's name, the slash at the end. It settles
what can be written in several ways: the case of the host, international names, percent-encoding, dot segments, the
order of parameters. The case of a path stays, and so does every parameter that might choose the content.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from urllib.parse import quote, urlsplit

import numpy as np
import pyarrow as pa

from pipelines.crawl.domain import host_of
from pipelines.dedup.order import minutes_of
from pipelines.errors import ConfigError

CAPTURE = 16  # in `dedup.state`: another capture of its URL stays
URL = "url_digest"  # column of a signatures dataset
POLICIES = ("latest", "first")
LONGEST_URL = 8192  # characters; what is longer has no canonical form

_LAST = (1 << 25) - 1  # minute of what has no date
_ODD = np.int64(0x1E3779B97F4A7C15)
_DEFAULT_PORTS = (None, 80, 443)  # of either scheme, since the form has none

_LABEL = "[a-z0-9]++(?:-++[a-z0-9]++)*+"
# Most URLs of a crawl: a path with nothing to be settled in it but its end.
_PLAIN = re.compile(rf"https?://({_LABEL}(?:\.{_LABEL})++)((?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*+)*+)(/?)\Z")
_BARE_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_KEPT_IN_PATH = "%/:@!$&'()*+,;=~|[]"
_KEPT_IN_QUERY = "%/:@!$'()*+,;=~?|[]"
# Settled already: what may stand as it is, and escapes in upper case of what is not ASCII.
_SETTLED = re.compile(r"(?:[A-Za-z0-9._~/:@!$&'()*+,;=?|\[\]-]|%[89A-F][0-9A-F])*+\Z")
_WWW = re.compile(r"(?:www[0-9]{0,2}\.)++(?=[^.]++\.)")
_WWW_OR_MOBILE = re.compile(r"(?:(?:www[0-9]{0,2}|m|mobile|wap|3g|touch)\.)++(?=[^.]++\.)")
_PATH_SESSION = re.compile(r";(?:jsessionid|phpsessid|sid|cfid|cftoken)=[^/;]*+|\(S\([0-9a-z]{24}\)\)/", re.IGNORECASE)
_INDEX = re.compile(
    r"(?:index\.(?:[sx]?html?|php[345]?|aspx?|jspx?|cfm|cgi|pl|do)|default\.(?:html?|aspx?))\Z", re.IGNORECASE
)
_HEX = re.compile("[0-9a-f]{16,}", re.IGNORECASE)


def canonical_url(url: str, *, mobile_hosts: bool = False) -> str | None:
    """`host[:port]/path[?query]`, or None where no host can be read, or past LONGEST_URL; never an error.

    `https://www.Example.com:443/a/../b/index.html?utm_source=x&z=1&a=%41#top` -> `example.com/b?a=A&z=1`. With
    `mobile_hosts` the hosts `m.`, `mobile.`, `wap.`, `3g.` and `touch.` of a site are that site.
    """
    if len(url) > LONGEST_URL:
        return None
    if (plain := _PLAIN.match(url)) is not None:
        host, path, _ = plain.groups()
        if len(host) > 253:
            return None
        path = _without_index(path)
        return f"{_site(host, mobile_hosts)}{path or '/'}"
    url = url.strip().replace("\t", "").replace("\n", "").replace("\r", "").replace("\\", "/")
    host = host_of(url)
    if host is None:
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
        if not host.isascii():
            host = host.encode("idna").decode("ascii")
    except ValueError:  # UnicodeError is one
        return None
    host = f"[{host}]" if ":" in host else _site(host, mobile_hosts)
    if port not in _DEFAULT_PORTS:
        host = f"{host}:{port}"
    path = _canonical_path(parts.path)
    query = _canonical_query(parts.query)
    return f"{host}{path or '/'}?{query}" if query else f"{host}{path or '/'}"


def url_digests(urls: pa.Array | pa.ChunkedArray, *, mobile_hosts: bool = False) -> pa.Array:
    """(n,) binary of 16 bytes: the BLAKE2b-128 of each canonical URL; null where there is none."""
    blake2b = hashlib.blake2b
    digests: list[bytes | None] = []
    for url in urls.to_pylist():
        form = canonical_url(url, mobile_hosts=mobile_hosts) if url else None
        digests.append(None if form is None else blake2b(form.encode("ascii"), digest_size=16).digest())
    return pa.array(digests, pa.binary(16))


def url_places(place: np.ndarray, policy: str) -> np.ndarray:
    """(n,) int64 that sorts the captures of a URL, the one that stays first; `place` as the survivor order has it.

    `latest` puts the newest capture first, `first` the oldest, to the minute; one without a date comes last.
    ConfigError for another policy.
    """
    if policy not in POLICIES:
        raise ConfigError(f"no policy {policy!r} for captures of one URL", mend=f"one of {', '.join(POLICIES)}")
    minutes = minutes_of(place)
    return minutes if policy == "first" else np.where(minutes == _LAST, _LAST, _LAST - 1 - minutes)


def url_rows(
    signatures: pa.Table, first_node: int, generation: int, *, policy: str, apart: bool = False
) -> np.ndarray:
    """(m, 6) int64 of a part: both halves of the digest, `url_places`, tie, node, and the place in the survivor order.

    `signatures` has URL, place and tie. The centre of an edge (`buckets.copy_edges`) is the capture that stays. The
    earliest generation comes first whatever the policy, so that an appended crawl changes no earlier decision; `apart`:
    a capture leaves only for one of its own generation.
    """
    from pipelines.dedup.signed import fixed_numbers  # compiled: a canonical form must not need that

    digests, known = fixed_numbers(signatures[URL], np.int64)
    rows = np.flatnonzero(known)
    digests = digests[rows]
    if apart:
        digests = digests ^ (np.array([generation + 1]) * _ODD)
    place, tie = (signatures[name].to_numpy()[rows] for name in ("place", "tie"))
    return np.column_stack([digests, url_places(place, policy), tie, first_node + rows, place])


def _site(host: str, mobile_hosts: bool) -> str:
    found = (_WWW_OR_MOBILE if mobile_hosts else _WWW).match(host)
    return host[found.end() :] if found else host


def _settle(text: str, safe: str) -> str:
    """Percent-encoding as RFC 3986 6.2.2 has it: encoded is what must be, in upper case; the rest as UTF-8."""
    if _SETTLED.match(text):
        return text
    if "%" in text:
        text = _BARE_ESCAPE.sub("%25", text)
        text = _ESCAPE.sub(_settle_escape, text)
    return quote(text, safe=safe, errors="replace")


def _settle_escape(found: re.Match[str]) -> str:
    character = chr(int(found.group()[1:], 16))
    return character if character in _UNRESERVED else found.group().upper()


def _canonical_path(path: str) -> str:
    path = _settle(path, _KEPT_IN_PATH)
    if ";" in path or "(" in path:
        path = _PATH_SESSION.sub("", path)
    if "/." in path:
        kept: list[str] = []
        for segment in path.split("/")[1:]:
            if segment == "..":
                del kept[-1:]
            elif segment != ".":
                kept.append(segment)
        path = "/" + "/".join(kept)
    return _without_index(path)


def _without_index(path: str) -> str:
    """The path without slashes at its end and without the name of an index page, however often they come."""
    while True:
        path = path.rstrip("/")
        at = path.rfind("/") + 1
        if not at or _INDEX.match(path, at) is None:
            return path
        path = path[:at]


def _canonical_query(query: str) -> str:
    if not query:
        return ""
    kept = []
    names, beginnings, digests = _dropped_parameters()
    for pair in query.split("&"):
        if not pair:
            continue
        settled = _settle(pair, _KEPT_IN_QUERY).replace("%20", "+")
        name, _, value = settled.partition("=")
        low = name.lower()
        if low in names or low.startswith(beginnings) or (low in digests and _HEX.fullmatch(value)):
            continue
        kept.append((name, settled))
    kept.sort(key=lambda item: item[0])  # stable: the order of parameters of one name may mean something
    return "&".join(settled for _, settled in kept)


@cache
def _dropped_parameters() -> tuple[frozenset[str], tuple[str, ...], frozenset[str]]:
    """(names, beginnings, names that are dropped where their value is a digest)."""
    lines = files("pipelines.dedup").joinpath("url_parameters.txt").read_text("utf-8").splitlines()
    entries = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return (
        frozenset(e for e in entries if not e.endswith(("*", "=hex"))),
        tuple(e[:-1] for e in entries if e.endswith("*")),
        frozenset(e.removesuffix("=hex") for e in entries if e.endswith("=hex")),
    )
