"""How large an HTML page will be as a tree, told before any parser sees it.

Parsers are quadratic in attributes and recurse in depth, so bounds must hold before parsing.  One pass of the
HTML tokenizer's rules (comments, raw-text elements, quoted values) by possessive regular expressions: linear
in the page, no backtracking.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

_ATTRIBUTE = r"[\s/]*+[^\s/>][^\s/>=]*+(?:\s*+=\s*+(?:\"[^\"]*+\"|'[^']*+'|[^\s>\"'][^\s>]*+|))?+"
_MARKUP = re.compile(
    r"<!--(?:-?>|.*?(?:--!?>|\Z))|<[!?][^>]*+>?|<(?P<close>/?)(?P<name>[a-zA-Z][^\s/>]*+)(?P<attributes>(?:"
    + _ATTRIBUTE
    + r")*+)[\s/]*+>?",
    re.DOTALL,
)
_SCRIPT = re.compile(r"<script(?=[\s/>])", re.IGNORECASE)
_ONE_ATTRIBUTE = re.compile(_ATTRIBUTE)
_RAW_TEXT = {"script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes"}
_RAW_END = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE) for name in _RAW_TEXT}
_VOID = "area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr"
_IMPLIED_END = "p|li|dt|dd|option|optgroup|tr|td|th|thead|tbody|tfoot|colgroup|rt|rp|html|head|body"
_NOT_NESTING = frozenset(f"{_VOID}|{_IMPLIED_END}".split("|"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PageBounds:
    """Upper bounds, each inclusive.  Depth counts elements that have to be closed by hand."""

    html_bytes: int = 5 << 20
    tags: int = 100_000
    depth: int = 500
    attributes: int = 1_000
    script_characters: int = 64 << 10  # a longer script is emptied, the page stays


def first_broken_bound(html: str, bounds: PageBounds) -> tuple[str, int, int] | None:
    """(reason, value, bound) of the first bound that the page exceeds on the way through, or None."""
    open_names: Counter[str] = Counter()
    depth = tags = at = 0
    while (match := _MARKUP.search(html, at)) is not None:
        at = max(match.end(), match.start() + 1)
        name = match.group("name")
        if name is None:
            continue
        tags += 1
        if tags > bounds.tags:
            return "too_many_tags", tags, bounds.tags
        name = name.lower()
        if match.group("close"):
            if open_names[name] > 0:
                open_names[name] -= 1
                depth -= 1
            continue
        attributes = _attribute_count(match.group("attributes"), bounds.attributes)
        if attributes > bounds.attributes:
            return "too_many_attributes", attributes, bounds.attributes
        if name in _RAW_TEXT:
            at = _raw_text_end(html, at, name)
        if name not in _NOT_NESTING:
            open_names[name] += 1
            depth += 1
            if depth > bounds.depth:
                return "too_deep", depth, bounds.depth
    return None


def without_large_scripts(html: str, max_characters: int) -> str:
    """The page with the inside of longer scripts taken out.

    An engine looks into scripts for titles and dates with expressions that are quadratic: one megabyte of
    JSON-LD made of `"author":"` cost 13 seconds.
    """
    kept, at, start = [], 0, 0
    while (match := _SCRIPT.search(html, at)) is not None:
        inside = html.find(">", match.end()) + 1
        if not inside:
            break
        end = _raw_text_end(html, inside, "script")
        if end - inside > max_characters:
            kept.append(html[start:inside])
            start = end
        at = end
    return "".join([*kept, html[start:]]) if kept else html


def _attribute_count(written: str, bound: int) -> int:
    """Attributes of one start tag; 0 where the text is too short to break the bound."""
    return 0 if len(written) <= 2 * bound else sum(1 for _ in _ONE_ATTRIBUTE.finditer(written))


def _raw_text_end(html: str, at: int, name: str) -> int:
    end = _RAW_END[name].search(html, at)
    return end.start() if end else len(html)
