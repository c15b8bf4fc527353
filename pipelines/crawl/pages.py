"""Entity bytes -> what a page holds, in this process or in a child that can be ended.

A small page cannot take long whatever it holds; a larger one is extracted in a child with bounds on CPU, time and
memory (sandbox.py).  Both ways run the same function and give the same result.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from pipelines.crawl.decode import decode
from pipelines.crawl.extract import clean_text, extract_html, extractor_name
from pipelines.crawl.sandbox import RaisedError, Sandbox, StuckError
from pipelines.crawl.shape import PageBounds
from pipelines.crawl.signals import opt_out
from pipelines.crawl.sniff import SniffRules, sniff
from pipelines.language.identify import open_identifier

# Pages from this size on go to a child.  Our own engine is linear, at worst 13 us and 350 bytes of memory a byte of
# page (32,000 blocks of one word; tests/benchmarks/stuck_pages.py --bytes 262143): below 256 KiB the child's bounds
# would never end a page.  trafilatura is quadratic in places.
ISOLATE_BYTES = {"gristmill": 256 << 10, "trafilatura": 32 << 10}
SIGNAL_HEADERS = ("x-robots-tag", "tdm-reservation")
_PARAGRAPH = "<p>The stones turn slowly and the grain becomes flour.</p>"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRules:
    """How pages are extracted.  `seconds` (CPU) and `memory_bytes` end a page that the bounds did not stop.

    `sniff` may drop pages before the dear work; `model` is (path, sha256) of another language model than the shipped.
    """

    bounds: PageBounds = field(default_factory=PageBounds)
    engine: str = "gristmill"
    markdown: bool = False
    sniff: SniffRules = field(default_factory=SniffRules)
    model: tuple[str | None, str | None] = (None, None)
    isolate_bytes: int | Literal["engine"] | None = "engine"  # pages from this size on go to a child; None: none does
    seconds: float = 5.0
    memory_bytes: int = 1 << 30

    def isolated(self, page: PageInput) -> bool:
        """Whether a page is extracted in a child."""
        bound = ISOLATE_BYTES[self.engine] if self.isolate_bytes == "engine" else self.isolate_bytes
        return bound is not None and len(page.body) >= bound

    def told(self) -> dict[str, Any]:
        """What a child is told: plain values."""
        looks = asdict(self.sniff)
        looks["languages"] = None if self.sniff.languages is None else sorted(self.sniff.languages)
        return {
            "bounds": asdict(self.bounds),
            "engine": self.engine,
            "markdown": self.markdown,
            "sniff": looks,
            "model": list(self.model),
        }


@dataclass(slots=True, kw_only=True)  # one a page: a frozen one takes three times as long to make
class PageInput:
    """A body with its transfer and content encodings undone, and what is known of it.

    `signals`: the HTTP headers that say something on use by machines.
    """

    body: bytes
    plain: bool  # text already: a conversion record
    url: str | None = None
    content_type: str | None = None
    captured: str | None = None
    signals: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)  # one a page, as PageInput
class Found:
    """What a page holds; `reason` is None, or why there is no text.  Plain values, which travel between processes."""

    text: str = ""
    title: str | None = None
    date: str | None = None
    charset: str = "utf-8"
    how: str = "utf8"
    extractor: str = "none"
    opt_out: str | None = None
    license: str | None = None
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
        self._told = rules.told()

    def extract(self, pages: Sequence[PageInput]) -> list[Found]:
        """What each page holds, in order; never raises on what they hold."""
        found: list[Found | None] = [None] * len(pages)
        apart = []
        for n, page in enumerate(pages):
            if self._rules.isolated(page):
                apart.append(n)
            else:
                found[n] = Found(**extract_page(*self._arguments(page)))
        if apart:
            box = _sandbox(self._rules.engine, self._rules.seconds, self._rules.memory_bytes)
            answers = box.map(self._arguments(pages[n]) for n in apart)
            for n, answer in zip(apart, answers, strict=True):
                found[n] = self._judged(answer)
        return [page for page in found if page is not None]

    def _arguments(self, page: PageInput) -> tuple[Any, ...]:
        return page.body, page.plain, page.url, page.content_type, page.captured, dict(page.signals), self._told

    def _judged(self, answer: Any) -> Found:
        if isinstance(answer, StuckError):
            bound = {"page_time": self._rules.seconds, "page_memory": float(self._rules.memory_bytes)}
            return Found(reason=answer.reason, threshold=bound.get(answer.reason), detail=answer.detail)
        if isinstance(answer, RaisedError):
            return Found(reason="engine_error", detail=answer.kind)
        return Found(**answer)


def extract_page(
    body: bytes,
    plain: bool,
    url: str | None,
    content_type: str | None,
    captured: str | None,
    signals: dict[str, str],
    rules: dict[str, Any],
) -> dict[str, Any]:
    """The fields of `Found` that are known; `rules` is `PageRules.told()`."""
    limits = PageBounds(**rules["bounds"])
    if plain:
        return _plain_page(body, content_type, signals, limits)
    if len(body) <= limits.html_bytes and (refused := _look(body, url, content_type, rules)) is not None:
        return refused
    page = extract_html(
        body,
        url=url,
        content_type=content_type,
        captured=captured,
        bounds=limits,
        engine=rules["engine"],
        markdown=rules["markdown"],
    )
    told: dict[str, Any] = {"charset": page.charset}
    if page.decoded is not None:
        told |= {"how": page.decoded.how, "broken": page.decoded.broken, "repaired": page.decoded.repaired}
    if page.reason is not None:
        return told | {
            "reason": page.reason, "value": page.value, "threshold": page.threshold, "detail": page.detail,
        }  # fmt: skip
    return told | {
        "text": page.text,
        "title": page.title,
        "date": page.date,
        "extractor": extractor_name(rules["engine"]),
        "opt_out": opt_out(page.head, signals),
        "license": page.head.license if page.head is not None else None,
    }


def _plain_page(body: bytes, content_type: str | None, signals: dict[str, str], limits: PageBounds) -> dict[str, Any]:
    if len(body) > limits.html_bytes:
        return {"reason": "too_long", "value": len(body), "threshold": limits.html_bytes}
    decoded = decode(body, content_type)
    text = clean_text(decoded.text)
    told = {
        "charset": decoded.charset, "how": decoded.how, "broken": decoded.broken, "repaired": decoded.repaired,
    }  # fmt: skip
    return told | ({"text": text, "opt_out": opt_out(None, signals)} if text else {"reason": "empty"})


def _look(body: bytes, url: str | None, content_type: str | None, rules: dict[str, Any]) -> dict[str, Any] | None:
    looks = _sniff_rules(*[tuple(v) if isinstance(v, list) else v for v in rules["sniff"].values()])
    if looks.languages is None and looks.min_letters <= 0:
        return None
    found = sniff(body, url=url, content_type=content_type, rules=looks, identifier=open_identifier(*rules["model"]))
    if found is None:
        return None
    return {"reason": found.reason, "value": found.value, "threshold": found.threshold, "detail": found.detail}


@functools.lru_cache(maxsize=8)
def _sniff_rules(*values: Any) -> SniffRules:
    """The rules that `told` told of, in the order of their fields."""
    given = dict(zip((f.name for f in fields(SniffRules)), values, strict=True))
    languages = given["languages"]
    return SniffRules(**{**given, "languages": None if languages is None else frozenset(languages)})


def warm_up_gristmill() -> None:
    """What a child does before its first page, outside the bounds: imports, models, compilation."""
    _warm_up("gristmill")


def warm_up_trafilatura() -> None:
    """The same for the other engine."""
    _warm_up("trafilatura")


def _warm_up(engine: str) -> None:
    page = f"<html><body><article>{_PARAGRAPH * 20}</article></body></html>".encode()
    extract_page(page, False, None, None, None, {}, PageRules(engine=engine).told())


def isolated_seconds() -> float:
    """CPU seconds that this process's children spent in extraction."""
    return sum(box.target_seconds for box in _boxes)


_boxes: list[Sandbox] = []


@functools.cache
def _sandbox(engine: str, seconds: float, memory_bytes: int) -> Sandbox:
    """One child a process, whatever the number of stages that it opens."""
    box = Sandbox(
        f"{__name__}:extract_page",
        prepare=f"{__name__}:warm_up_{engine}",
        seconds=seconds,
        memory_bytes=memory_bytes,
        patience=10.0,
    )
    _boxes.append(box)
    return box
