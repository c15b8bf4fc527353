"""Pages that lie as files in folders, as a mirror tool or a browser saved them.

The URL of a page, first rule that holds: what a browser wrote into the page (`<!-- saved from url=...`); a path
whose first folder is a host name, as mirror tools lay them out, is that host's (`https://HOST/REST`); else
`file:///PATH` below the folder that was given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

from pipelines.crawl.domain import host_of, is_registered
from pipelines.crawl.items import Item, Record, WarcBounds
from pipelines.crawl.sources import PageSource

_SAVED = re.compile(rb"<!--\s{0,8}saved from url=\(\d{4}\)([!-~]{1,2048}?)\s{0,8}-->")
_LOOK_BYTES = 2048
_LEFT_AS_IT_IS = "/%:@!$&'()*+,;=~?"


def read_pages(source: PageSource, *, bounds: WarcBounds) -> Iterator[Item]:
    """A record a file, in order of their names, each with its `file`."""
    for key, size in source.pages:
        over = size > bounds.body_bytes
        body = b"" if over else source.page(key, size)
        yield Record(
            offset=0, length=size, index=0, record_type="resource", headers={"content-type": "text/html"},
            target_uri=page_url(key, body), http_status=None, http_headers={}, body=body, over_bound=over,
            fields={}, file=key,
        )  # fmt: skip


def page_url(key: str, body: bytes) -> bytes:
    """The URL of the page at the path `key`."""
    saved = _SAVED.search(body[:_LOOK_BYTES])
    if saved is not None and host_of(saved.group(1).decode("ascii")) is not None:
        return saved.group(1)
    first, slash, rest = key.partition("/")
    if slash and is_registered(first.partition(":")[0]):
        url = f"https://{first}/{quote(rest, safe=_LEFT_AS_IT_IS)}"
        if host_of(url) is not None:
            return url.encode()
    return f"file:///{quote(key, safe=_LEFT_AS_IT_IS)}".encode()
