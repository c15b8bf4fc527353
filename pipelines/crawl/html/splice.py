"""Labelled pages with stories of other pages spliced in, for fitting only.

What goes wrong whole are pages that hold other articles beside their own: stories loaded below, teasers with long
texts, replies, notices at the end. Few labelled pages do. Behind the main text of a page come texts of other pages, in
containers with untelling names; what makes them strangers is all that a model can learn from them.
"""

from __future__ import annotations

import html
import random
import re
from dataclasses import dataclass

_CLOSING = re.compile(rb"</(?:div|article|section|main|td)\s*>", re.IGNORECASE)
_ENDING = re.compile(rb"</(?:p|div|td|section|article|li|ul)\s*>|<br\s*/?>", re.IGNORECASE)
_CLASSES = ("", "c1", "box", "item", "block", "wrap", "col", "cell", "row", "inner", "card", "list", "story", "post")


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A title and the paragraphs of another page."""

    title: str
    paragraphs: list[str]


def spliced(markup: bytes, behind: int, added: str, draw: random.Random) -> bytes | None:
    """`markup` (UTF-8) with `added` behind a container that ends after byte `behind`; None where none does."""
    ends = [match.end() for _, match in zip(range(3), _CLOSING.finditer(markup, behind), strict=False)]
    if not ends:
        return None
    place = draw.choice(ends)
    return markup[:place] + added.encode("utf-8", "replace") + markup[place:]


def with_notices(markup: bytes, behind: int, notices: list[str], draw: random.Random) -> bytes:
    """`markup` with notices (terms, invitations) as paragraphs right behind the text that begins at `behind`."""
    end = _ENDING.search(markup, behind)
    if end is None:
        return markup
    tag = draw.choice(("p", "div", "span", "p"))
    added = "".join(f"<br><{tag}>{html.escape(notice)}</{tag}>" for notice in notices)
    return markup[: end.end()] + added.encode("utf-8", "replace") + markup[end.end() :]


def stories_in_full(stories: list[Story], draw: random.Random) -> str:
    """Whole articles, as pages have them that go on when they are scrolled down."""
    tag, heading = draw.choice(("div", "article", "section")), draw.choice(("h1", "h2", "h2", "h3", "p"))
    name = _class(draw)
    return "".join(
        f"<{tag}{name}><{heading}>{html.escape(story.title)}</{heading}>"
        + "".join(f"<p>{html.escape(text)}</p>" for text in story.paragraphs[:12])
        + f"</{tag}>"
        for story in stories[: draw.randint(1, 3)]
    )


def teasers(stories: list[Story], draw: random.Random) -> str:
    """Titles with their first paragraphs."""
    outer, inner = draw.choice((("div", "div"), ("ul", "li"), ("section", "article")))
    heading, name, is_all_link = draw.choice(("h2", "h3", "h4", "p", "div")), _class(draw), draw.random() < 0.4
    parts = []
    for number, story in enumerate(stories):
        title, text = html.escape(story.title), html.escape(story.paragraphs[0])
        parts.append(
            f'<{inner}{name}><a href="/{number}">{title}<br>{text}</a></{inner}>'
            if is_all_link
            else f'<{inner}{name}><{heading}><a href="/{number}">{title}</a></{heading}><p>{text}</p></{inner}>'
        )
    return f"<{outer}{_class(draw)}>{''.join(parts)}</{outer}>"


def replies(posts: list[str], draw: random.Random) -> str:
    """What readers have written, with names and dates."""
    outer, inner = draw.choice((("div", "div"), ("ul", "li"), ("ol", "li"), ("section", "article")))
    name, tag = _class(draw), draw.choice(("b", "span", "h4", "a href=#", "div"))
    day = draw.choice(("2011-{:02d}-{:02d}", "{:02d}.{:02d}.2014 11:40", "{}/{}/2019"))
    is_numbered = draw.random() < 0.3
    action = draw.choice(("", "", "<a href=#>Reply</a>", "<span>0</span>", "<p><a href=#>OK</a> <a href=#>+1</a></p>"))
    parts = []
    for number, post in enumerate(posts, 1):
        user = "".join(draw.choices("abcdefghiklmnoprstuvz", k=draw.randint(4, 9)))
        date = day.format(draw.randint(1, 12), draw.randint(1, 28)) + (f" #{number}" if is_numbered else "")
        parts.append(
            f"<{inner}{name}><{tag}>{user}</{tag.split()[0]}> <span>{date}</span>"
            f"<p>{html.escape(post)}</p>{action}</{inner}>"
        )
    return f"<{outer}{_class(draw)}>{''.join(parts)}</{outer}>"


def _class(draw: random.Random) -> str:
    name = draw.choice(_CLASSES)
    return f' class="{name}"' if name else ""
