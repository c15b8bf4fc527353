"""What a page says of itself beside its text: title, date, language, robots rules, reservation, licence.

One pass over the tags of the head, and a few bounded looks into the body by plain string search.  Everything is
linear in the bytes looked at, which are bounded, so a hostile page costs what a large one does.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from pipelines.crawl.dates import date_in_url, read_date
from pipelines.crawl.licences import licence_name

_HEAD_CHARACTERS = 1 << 17
_BODY_CHARACTERS = 1 << 18
_MAX_TAGS = 500
_MAX_ATTRIBUTES = 20
_MAX_VALUE = 2_000
_TITLE_CHARACTERS = 300
# Case is ignored behind the "<" only, so that the search leaps from tag to tag.
_OPEN = re.compile(r"<(?:(!--)|(?i:(html|title|meta|link|script|style|body|/head|h1|article|main)(?=[\s/>])))")
_H1 = re.compile(r"<(?i:h1)(?=[\s/>])")
_TAG_NAME = re.compile(r"<[a-zA-Z]{1,20}")
# A day with an hour, as news pages print it under the headline.
_PRINTED = re.compile(
    r"20\d\d(?:-\d{1,2}-|/\d{1,2}/|年\d{1,2}月)\d{1,2}日?(?:\s|&nbsp;|<[^>]{0,99}>){0,4}\d{1,2}[:：时]\d"
)
_PRINTED_CHARACTERS = 1 << 14
_ATTRIBUTE = re.compile(r"([^\s/>=\"']++)\s*+(?:=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s>\"']*+)))?+[\s/\"']*+")
_RAW_END = {name: re.compile(f"</(?i:{name})") for name in ("title", "script", "style", "h1")}
_TAG = re.compile(r"<[^>]*+>?")
_SPACE = re.compile(r"\s+")
_SEPARATORS = " \t-–—|_·•»«:：丨｜/\\~<>→,，"
_LD_DATE = re.compile(r'"datePublished"\s{0,8}:\s{0,8}"([^"]{4,40})"')
_TIME = re.compile(r"<(?i:time)(?=[\s/>])([^>]{0,500})>?")
_DATES = """
    article:published_time og:article:published_time og:published_time og:release_date datepublished
    bytedance:published_time article:create_at article.published pubdate publishdate publish-date publish_date
    publishtime publish_time publish-time publication_date publicationdate citation_publication_date
    citation_date dc.date.issued dcterms.issued dc.date dcterms.date dcterms.created dc.date.created dc.issued
    article_date_original parsely-pub-date sailthru.date weibo:article:create_at apub:time firstpublishedtime
    shareaholic:article_published_time rnews:datepublished originalpublicationdate cxenseparse:recs:publishtime
    createtime date_published date
"""
_DATE_RANK = {name: rank for rank, name in enumerate(_DATES.split())}
_AGENTS = frozenset(
    {"googlebot", "googlebot-news", "google-extended", "bingbot", "slurp", "baiduspider", "gptbot", "ccbot",
     "claudebot", "anthropic-ai", "applebot-extended", "bytespider", "perplexitybot", "yandex"}
)  # fmt: skip
_LICENCE_METAS = frozenset({"dcterms.license", "dcterms.rights", "dc.rights", "dc.rights.license", "license", "rights"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a page declares.

    `date` is YYYY-MM-DD; `robots` the lower-case rules of robots metas, those for one agent as `agent:rule`; `tdm`
    whether text and data mining is reserved (None: not said); `license` an SPDX name where there is one, else the
    address; `language_tag` as written.
    """

    title: str | None = None
    date: str | None = None
    robots: tuple[str, ...] = ()
    tdm: bool | None = None
    license: str | None = None
    language_tag: str | None = None


def read_head(markup: str, *, url: str | None = None, latest: str = "2100-01-01") -> Head:
    """What the page declares.  Never raises.  No date after `latest` (YYYY-MM-DD) is believed."""
    seen = _Seen()
    body_at = _walk(markup, seen)
    body = markup[body_at : body_at + _BODY_CHARACTERS]
    return Head(
        title=_title(seen, body),
        date=_date(seen, markup, body, url, latest),
        robots=tuple(sorted(seen.robots)),
        tdm=seen.tdm,
        license=seen.license or _licence_in(body),
        language_tag=seen.language or None,
    )


class _Seen:
    """What the walk over the head collects."""

    __slots__ = ("dates", "h1", "language", "ld_date", "license", "og_title", "robots", "tdm", "title")

    def __init__(self) -> None:
        self.title = self.og_title = self.h1 = self.language = ""
        self.dates: list[tuple[int, str]] = []
        self.ld_date: str | None = None
        self.robots: set[str] = set()
        self.tdm: bool | None = None
        self.license: str | None = None


def _walk(markup: str, seen: _Seen) -> int:
    """Collect from the head's tags; where the body begins."""
    bound = min(len(markup), _HEAD_CHARACTERS)
    at = 0
    for _ in range(_MAX_TAGS):
        match = _OPEN.search(markup, at, bound)
        if match is None:
            return min(at, bound)
        at = match.end()
        name = (match.group(2) or "").lower()
        if match.group(1):
            end = markup.find("-->", at, bound)
            at = end + 3 if end >= 0 else bound
        elif name in ("body", "/head", "h1", "article", "main"):
            return match.start()
        elif name == "link" and "icense" not in markup[at : at + _MAX_VALUE].partition(">")[0]:
            continue  # style sheets and icons, the bulk of many heads
        elif name in ("meta", "link", "html"):
            attributes, at = _attributes(markup, at)
            _take(name, attributes, seen)
        elif name in ("title", "script", "style"):
            at = _take_raw(markup, at, bound, name, seen)
    return at


def _take_raw(markup: str, at: int, bound: int, name: str, seen: _Seen) -> int:
    inside = markup.find(">", at, bound) + 1
    end = _RAW_END[name].search(markup, inside, bound) if inside else None
    if end is None:
        return bound
    if name == "title" and not seen.title:
        seen.title = _plain(markup[inside : min(end.start(), inside + _MAX_VALUE)])
    elif name == "script" and seen.ld_date is None and "ld+json" in markup[at:inside].lower():
        found = _LD_DATE.search(markup, inside, end.start())
        seen.ld_date = found.group(1) if found else None
    return end.end()


def _attributes(markup: str, at: int) -> tuple[dict[str, str], int]:
    """(attributes of the start tag whose name ends at `at`, where it ends); bounded in number and length."""
    found: dict[str, str] = {}
    end = at
    while end < len(markup) and markup[end] in " \t\r\n\f/":
        end += 1
    for _ in range(_MAX_ATTRIBUTES):
        if (match := _ATTRIBUTE.match(markup, end, end + 8 * _MAX_VALUE)) is None:
            break
        name = match.group(1).lower()
        value = match.group(2) or match.group(3) or match.group(4) or ""
        found.setdefault(name[:100], value[:_MAX_VALUE])
        end = match.end()
    return found, end


def _take(name: str, attributes: dict[str, str], seen: _Seen) -> None:
    if name == "html":
        seen.language = (attributes.get("lang") or attributes.get("xml:lang") or "").strip()[:40]
        return
    if name == "link":
        if "license" in attributes.get("rel", "").lower().split() and seen.license is None:
            seen.license = licence_name(attributes.get("href", ""), any_address=True)
        return
    key = (attributes.get("property") or attributes.get("name") or attributes.get("itemprop") or "").strip().lower()
    content = attributes.get("content", "")
    if key == "og:title":
        seen.og_title = seen.og_title or _plain(content)
    elif key in _DATE_RANK:
        seen.dates.append((_DATE_RANK[key], content))
    elif key == "robots" or key in _AGENTS:
        prefix = "" if key == "robots" else f"{key}:"
        rules = [rule for rule in re.split(r"[,\s]+", content[:500].lower()) if rule]
        seen.robots.update(f"{prefix}{rule[:40]}" for rule in rules[:20])
    elif key == "tdm-reservation":
        seen.tdm = content.strip() == "1" if content.strip() in ("0", "1") else seen.tdm
    elif key in _LICENCE_METAS:
        seen.license = seen.license or licence_name(content)
    elif not seen.language and attributes.get("http-equiv", "").lower() == "content-language":
        seen.language = content.split(",")[0].strip()[:40]


def _title(seen: _Seen, body: str) -> str | None:
    """The title element; without the site's name where the heading or og:title is the title without it."""
    h1 = _heading(body)
    if not seen.title:
        return seen.og_title or h1 or None
    for shorter in (seen.og_title, h1):
        if len(shorter) > 1 and len(shorter) < len(seen.title) and _is_title_within(shorter, seen.title):
            return shorter
    return seen.title


def _is_title_within(shorter: str, title: str) -> bool:
    """The title is this text and, behind or before it, a separator and more."""
    if title.startswith(shorter):
        return title[len(shorter)] in _SEPARATORS
    # What stands last and is short is the site's name, whatever the page says.
    return title.endswith(shorter) and title[-len(shorter) - 1] in _SEPARATORS and 2 * len(shorter) > len(title)


def _heading(body: str) -> str:
    match = _H1.search(body)
    if match is None:
        return ""
    inside = body.find(">", match.end()) + 1
    end = _RAW_END["h1"].search(body, inside, inside + 4 * _MAX_VALUE) if inside else None
    return _plain(body[inside : end.start()]) if end else ""


def _date(seen: _Seen, markup: str, body: str, url: str | None, latest: str) -> str | None:
    """The first believable date: metas by rank, JSON-LD, time elements, the address."""
    for _, written in sorted(seen.dates, key=lambda item: item[0]):
        if (found := read_date(written, latest)) is not None:
            return found
    if seen.ld_date is None and '"datePublished"' in body:
        match = _LD_DATE.search(body, body.find('"datePublished"'))
        seen.ld_date = match.group(1) if match else None
    if seen.ld_date is not None and (found := read_date(seen.ld_date, latest)) is not None:
        return found
    if (found := _marked_date(body, latest)) is not None:
        return found
    match = _PRINTED.search(body, 0, _PRINTED_CHARACTERS)
    printed = read_date(match.group(), latest) if match else None
    return printed or (date_in_url(url, latest) if url else None)


def _marked_date(body: str, latest: str) -> str | None:
    """The date of a time element or of itemprop=datePublished; those that say they are the publication first."""
    at = body.find("datePublished")
    if at >= 0:
        start = body.rfind("<", max(0, at - 500), at)
        if start >= 0:
            name = _TAG_NAME.match(body, start)
            attributes, end = _attributes(body, name.end()) if name else ({}, start)
            written = attributes.get("datetime") or attributes.get("content") or _plain(body[end : end + 60])
            if (found := read_date(written, latest)) is not None:
                return found
    match = _TIME.search(body)
    if match is None:
        return None
    attributes, _ = _attributes(match.group(1), 0)
    return read_date(attributes.get("datetime", ""), latest)


def _licence_in(body: str) -> str | None:
    """The target of a rel=license link, else of the first Creative Commons link."""
    at = -1
    for _ in range(20):
        at = body.find("license", at + 1)
        if at < 0:
            break
        start = body.rfind("<", max(0, at - 500), at)
        if body[start : start + 2] in ("<a", "<A", "<l", "<L") and body.rfind(">", start, at) < 0:
            name = _TAG_NAME.match(body, start)
            attributes, _ = _attributes(body, name.end()) if name else ({}, start)
            if "license" in attributes.get("rel", "").lower().split():
                return licence_name(attributes.get("href", ""), any_address=True)
    at = body.find("creativecommons.org/")
    return licence_name(body[at : at + 120]) if at >= 0 else None


def _plain(text: str) -> str:
    text = html.unescape(_TAG.sub(" ", text)) if "<" in text else html.unescape(text)
    return _SPACE.sub(" ", text).strip()[:_TITLE_CHARACTERS]
