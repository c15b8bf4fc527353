"""One HTML page -> its main text, title and date.

Two engines stand behind one function.  `gristmill` reads the page in one compiled pass and lets a small model choose
its blocks (pipelines/crawl/html); `trafilatura` is slower and builds a tree.  Bounds are held before either runs; a
page over a bound gives empty text and a reason.
"""

from __future__ import annotations

import functools
import logging
import re
import unicodedata
from dataclasses import dataclass
from importlib.metadata import version

from pipelines.crawl.decode import Decoded, decode
from pipelines.crawl.head import Head, read_head
from pipelines.crawl.shape import PageBounds, first_broken_bound, without_large_scripts

ENGINES = ("gristmill", "trafilatura")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_LATEST_DATE = "2100-01-01"


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a page holds.  `reason` is None, or why `text` is empty; a bound adds `value` and `threshold`."""

    text: str = ""
    title: str | None = None
    date: str | None = None
    charset: str = "utf-8"
    reason: str | None = None
    value: float | None = None
    threshold: float | None = None
    detail: str | None = None
    head: Head | None = None
    decoded: Decoded | None = None

    @functools.cached_property
    def language(self) -> str:
        """ISO 639 code of the text, "und" where it has no letters; identified when it is first asked for."""
        from pipelines.language.identify import identify

        return identify(self.text)[0]


def extract_html(
    html: bytes,
    *,
    url: str | None = None,
    content_type: str | None = None,
    captured: str | None = None,
    bounds: PageBounds | None = None,
    engine: str = "gristmill",
    markdown: bool = False,
) -> Page:
    """Main text of one page.  Never raises on page bytes.

    `captured` (YYYY-MM-DD) is the latest date a page can have been published on; without it the result must
    still not depend on today, so a fixed far day is used.  `markdown` marks headings, tables, code and quotes.
    """
    bounds = bounds or PageBounds()
    if len(html) > bounds.html_bytes:
        return Page(reason="too_long", value=len(html), threshold=bounds.html_bytes)
    decoded = decode(html, content_type)
    known = {"charset": decoded.charset, "decoded": decoded}
    if not decoded.text.strip():
        return Page(reason="empty", **known)
    run = _by_trafilatura if engine == "trafilatura" else _by_blocks
    try:
        text, broken = run(decoded.text, url, bounds, markdown)
        if broken is not None:
            return Page(reason=broken[0], value=broken[1], threshold=broken[2], **known)
        head = read_head(decoded.text, url=url, latest=captured or _LATEST_DATE)
    except Exception as error:  # noqa: BLE001 - an engine may raise anything on a hostile page; it is recorded
        return Page(reason="engine_error", detail=type(error).__name__, **known)
    text = clean_text(text)
    return Page(
        text=text,
        title=clean_text(head.title or "").replace("\n", " ")[:1000] or None,
        date=head.date,
        reason=None if text else "empty",
        head=head,
        **known,
    )


def clean_text(text: str) -> str:
    """NFC, no control characters or lone surrogates, no space at line ends, no two empty lines in a row."""
    text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = "\n".join(line.rstrip() for line in unicodedata.normalize("NFC", text).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


@functools.cache
def extractor_name(engine: str = "gristmill") -> str:
    """Engine and version, as the documents' `extractor` column has it."""
    if engine == "trafilatura":
        return f"trafilatura/{version('trafilatura')}"
    from pipelines.crawl.html.model import model_sha256

    return f"gristmill/{model_sha256()[:12]}"


_Broken = tuple[str, int, int] | None


def _by_blocks(markup: str, _url: str | None, bounds: PageBounds, markdown: bool) -> tuple[str, _Broken]:
    """(text, broken bound) by one compiled pass and the block model."""
    from pipelines.crawl.html.model import main_blocks
    from pipelines.crawl.html.render import render
    from pipelines.crawl.html.scan import REASONS, Limits, scan

    limits = Limits(bounds.tags, bounds.depth, bounds.attributes)
    page = scan(markup.encode("utf-8", "replace"), limits)
    if (reason := REASONS[page.status]) is not None:
        return "", (reason, page.value, limits[page.status - 1])
    return render(page, main_blocks(page), markdown=markdown), None


def _by_trafilatura(markup: str, url: str | None, bounds: PageBounds, markdown: bool) -> tuple[str, _Broken]:
    """(text, broken bound) by trafilatura, whose tree must be bounded before it is built."""
    import trafilatura

    markup = _CONTROL.sub("", markup)
    if (broken := first_broken_bound(markup, bounds)) is not None:
        return "", broken
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    markup = without_large_scripts(markup, bounds.script_characters)
    return trafilatura.extract(markup, url=url, output_format="markdown" if markdown else "txt") or "", None
