"""One HTML page -> its main text, title and date.

The engine stands behind one function, `_run_engine`; today it is trafilatura.  Bounds are held before any
parser runs, because parsers are not safe on hostile pages; a page over a bound gives empty text and a reason.
"""

from __future__ import annotations

import functools
import logging
import re
import unicodedata
from dataclasses import dataclass
from importlib.metadata import version

from pipelines.crawl.decode import decode_text
from pipelines.crawl.shape import PageBounds, first_broken_bound, without_large_scripts

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
_LATEST_DATE = "2100-01-01"


@dataclass(frozen=True, slots=True, kw_only=True)
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


def extract_html(
    html: bytes,
    *,
    url: str | None = None,
    content_type: str | None = None,
    captured: str | None = None,
    bounds: PageBounds | None = None,
) -> Page:
    """Main text of one page.  Never raises on page bytes.

    `captured` (YYYY-MM-DD) is the latest date a page can have been published on; without it the result must
    still not depend on today, so a fixed far day is used.
    """
    bounds = bounds or PageBounds()
    if len(html) > bounds.html_bytes:
        return Page(reason="too_long", value=len(html), threshold=bounds.html_bytes)
    markup, charset = decode_text(html, content_type)
    markup = _CONTROL.sub("", markup)
    if (broken := first_broken_bound(markup, bounds)) is not None:
        return Page(charset=charset, reason=broken[0], value=broken[1], threshold=broken[2])
    markup = without_large_scripts(markup, bounds.script_characters)
    if not markup.strip():
        return Page(charset=charset, reason="empty")
    try:
        text, title, date = _run_engine(markup, url, captured or _LATEST_DATE)
    except Exception as error:  # noqa: BLE001 - the engine may raise anything on a hostile page; it is recorded
        return Page(charset=charset, reason="engine_error", detail=type(error).__name__)
    text = clean_text(text or "")
    return Page(
        text=text,
        title=clean_text(title or "").replace("\n", " ")[:1000] or None,
        date=date if date and _DATE.match(date) else None,
        charset=charset,
        reason=None if text else "empty",
    )


def clean_text(text: str) -> str:
    """NFC, no control characters or lone surrogates, no space at line ends, no two empty lines in a row."""
    text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = "\n".join(line.rstrip() for line in unicodedata.normalize("NFC", text).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


@functools.cache
def extractor_name() -> str:
    """Engine and version, as the documents' `extractor` column has it."""
    return f"trafilatura/{version('trafilatura')}"


def _run_engine(markup: str, url: str | None, latest: str) -> tuple[str | None, str | None, str | None]:
    """(text, title, date) of a page within bounds."""
    import trafilatura

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    logging.getLogger("htmldate").setLevel(logging.CRITICAL)
    found = trafilatura.bare_extraction(
        markup,
        url=url,
        with_metadata=True,
        date_extraction_params={"original_date": True, "extensive_search": False, "max_date": latest},
    )
    if found is None:
        return None, None, None
    return found.text, found.title, found.date
