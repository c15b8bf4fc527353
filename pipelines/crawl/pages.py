"""Entity bytes -> what a page holds, in this process or in a child that can be ended.

A small page cannot take long whatever it holds; a larger one is extracted in a child with bounds on CPU, time and
memory (sandbox.py).  Both ways run the same function and give the same result.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.crawl.decode import decode_text
from pipelines.crawl.extract import clean_text, extract_html, extractor_name
from pipelines.crawl.sandbox import RaisedError, Sandbox, StuckError
from pipelines.crawl.shape import PageBounds

ISOLATE_BYTES = 32 << 10
_WARM_UP = (
    f"<html><body><article>{'<p>The stones turn slowly and the grain becomes flour.</p>' * 20}</article></body></html>"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRules:
    """How pages are extracted.  `seconds` (CPU) and `memory_bytes` end a page that the bounds did not stop."""

    bounds: PageBounds = field(default_factory=PageBounds)
    isolate_bytes: int | None = ISOLATE_BYTES  # pages from this size on go to a child; None: none does
    seconds: float = 5.0
    memory_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class PageInput:
    """A body with its transfer and content encodings undone, and what is known of it."""

    body: bytes
    plain: bool  # text already: a conversion record
    url: str | None = None
    content_type: str | None = None
    captured: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a page holds; `reason` is None, or why there is no text.  Plain values, which travel between processes."""

    text: str = ""
    title: str | None = None
    date: str | None = None
    charset: str = "utf-8"
    extractor: str = "none"
    broken: int = 0
    repaired: bool = False
    reason: str | None = None
    value: float | None = None
    threshold: float | None = None
    detail: str | None = None


class PageExtractor:
    """Extraction of pages by one set of rules; one a worker process."""

    def __init__(self, rules: PageRules) -> None:
        """The child starts with the first page that needs it."""
        self._rules = rules
        self._bounds = asdict(rules.bounds)

    def extract(self, pages: Sequence[PageInput]) -> list[Found]:
        """What each page holds, in order; never raises on what they hold."""
        found: list[Found | None] = [None] * len(pages)
        isolate = self._rules.isolate_bytes
        apart = [n for n, page in enumerate(pages) if isolate is not None and len(page.body) >= isolate]
        for n, page in enumerate(pages):
            if isolate is None or len(page.body) < isolate:
                found[n] = Found(**extract_page(*self._arguments(page)))
        if apart:
            box = _sandbox(self._rules.seconds, self._rules.memory_bytes)
            answers = box.map(self._arguments(pages[n]) for n in apart)
            for n, answer in zip(apart, answers, strict=True):
                found[n] = self._judged(answer)
        return [page for page in found if page is not None]

    def _arguments(self, page: PageInput) -> tuple[Any, ...]:
        return page.body, page.plain, page.url, page.content_type, page.captured, self._bounds

    def _judged(self, answer: Any) -> Found:
        if isinstance(answer, StuckError):
            bound = {"page_time": self._rules.seconds, "page_memory": float(self._rules.memory_bytes)}
            return Found(reason=answer.reason, threshold=bound.get(answer.reason), detail=answer.detail)
        if isinstance(answer, RaisedError):
            return Found(reason="engine_error", detail=answer.kind)
        return Found(**answer)


def extract_page(
    body: bytes, plain: bool, url: str | None, content_type: str | None, captured: str | None, bounds: dict[str, int]
) -> dict[str, Any]:
    """The fields of `Found` that differ from their defaults."""
    limits = PageBounds(**bounds)
    if plain:
        if len(body) > limits.html_bytes:
            return {"reason": "too_long", "value": len(body), "threshold": limits.html_bytes}
        text, charset = decode_text(body, content_type)
        text = clean_text(text)
        return {"text": text, "charset": charset} if text else {"charset": charset, "reason": "empty"}
    page = extract_html(body, url=url, content_type=content_type, captured=captured, bounds=limits)
    if page.reason is not None:
        return {
            "charset": page.charset,
            "reason": page.reason,
            "value": page.value,
            "threshold": page.threshold,
            "detail": page.detail,
        }
    return {
        "text": page.text,
        "title": page.title,
        "date": page.date,
        "charset": page.charset,
        "extractor": extractor_name(),
    }


def warm_up() -> None:
    """What a child does before its first page, outside the bounds: imports, models, compilation."""
    extract_page(_WARM_UP.encode(), False, None, None, None, asdict(PageBounds()))


def isolated_seconds() -> float:
    """CPU seconds that this process's children spent in extraction."""
    return sum(box.target_seconds for box in _boxes)


_boxes: list[Sandbox] = []


@functools.cache
def _sandbox(seconds: float, memory_bytes: int) -> Sandbox:
    """One child a process, whatever the number of stages that it opens."""
    box = Sandbox(
        f"{__name__}:extract_page",
        prepare=f"{__name__}:warm_up",
        seconds=seconds,
        memory_bytes=memory_bytes,
        patience=10.0,
    )
    _boxes.append(box)
    return box
