"""Registered domain of a URL by the public suffix list that tldextract bundles; never the network."""

from __future__ import annotations

import functools
import re
from urllib.parse import urlsplit

# What nearly every URL of a crawl looks like, where all rules below give the first group.
_LABEL = "[a-z0-9]++(?:-++[a-z0-9]++)*+"
_PLAIN = re.compile(rf"https?://({_LABEL}(?:\.{_LABEL})++)(?=[/?#]|\Z)[!-Z^-~]*+\Z")
_HOST = re.compile(r"[^\s/?#@\[\]\\<>\"'\x00-\x20]+\Z")


def host_of(url: str) -> str | None:
    """Lower-case host of an http(s) URL, or None where there is none that can be read."""
    if (plain := _PLAIN.match(url)) is not None and len(plain.group(1)) <= 253:
        return plain.group(1)
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host or len(host) > 253:
        return None
    host = host.rstrip(".")
    return host if host and (_HOST.match(host) or ":" in host) else None


@functools.lru_cache(maxsize=8_192)
def registered_domain(host: str) -> str:
    """Domain below the public suffix, private suffixes counted (`a.github.io`); the host where none is."""
    found = _extract()(host)
    return f"{found.domain}.{found.suffix}" if found.domain and found.suffix else host


def is_registered(host: str) -> bool:
    """Whether the name ends in a public suffix and has a label before it."""
    found = _extract()(host)
    return bool(found.domain and found.suffix)


@functools.cache
def _extract():
    import tldextract

    return tldextract.TLDExtract(suffix_list_urls=(), include_psl_private_domains=True, cache_dir=None)
