"""Labelled pages with stories of other pages spliced in, for fitting only.

What goes wrong whole are pages that hold other articles beside their own: stories loaded below, teasers with long
texts. Few labelled pages do. Behind the main text of a page come stories or teasers made of other pages' texts, in
containers with untelling names; what makes them strangers is all that a model can learn from them.
"""

from __future__ import annotations

import html
import random
import re
from dataclasses import dataclass

_CLOSING = re.compile(rb"</(?:div|article|section|main|td)\s*>", re.IGNORECASE)
_CLASSES = ("", "c1", "box", "item", "block", "wrap", "col", "cell", "row", "inner", "card", "list", "story", "post")


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A title and the paragraphs of another page."""

    title: str
    paragraphs: list[str]


def spliced(markup: bytes, behind: int, stories: list[Story], draw: random.Random) -> bytes | None:
    """`markup` (UTF-8) with the stories behind a container that ends after byte `behind`; None where none does."""
    ends = [match.end() for _, match in zip(range(3), _CLOSING.finditer(markup, behind), strict=False)]
    if not ends or not stories:
        return None
    place = draw.choice(ends)
    shape = draw.choice((_whole, _teasers, _linked_teasers))
    return markup[:place] + shape(stories, draw).encode("utf-8", "replace") + markup[place:]


def _class(draw: random.Random) -> str:
    name = draw.choice(_CLASSES)
    return f' class="{name}"' if name else ""


def _whole(stories: list[Story], draw: random.Random) -> str:
    tag, heading, name = (
        draw.choice(("div", "article", "section")),
        draw.choice(("h1", "h2", "h2", "h3", "p")),
        _class(draw),
    )
    return "".join(
        f"<{tag}{name}><{heading}>{html.escape(story.title)}</{heading}>"
        + "".join(f"<p>{html.escape(text)}</p>" for text in story.paragraphs[:12])
        + f"</{tag}>"
        for story in stories[: draw.randint(1, 3)]
    )


def _teasers(stories: list[Story], draw: random.Random) -> str:
    outer, inner = draw.choice((("div", "div"), ("ul", "li"), ("section", "article")))
    heading, name = draw.choice(("h2", "h3", "h4", "p", "div")), _class(draw)
    return (
        f"<{outer}{_class(draw)}>"
        + "".join(
            f'<{inner}{name}><{heading}><a href="/{number}">{html.escape(story.title)}</a></{heading}>'
            f"<p>{html.escape(story.paragraphs[0])}</p></{inner}>"
            for number, story in enumerate(stories)
        )
        + f"</{outer}>"
    )


def _linked_teasers(stories: list[Story], draw: random.Random) -> str:
    name = _class(draw)
    return "".join(
        f'<div{name}><a href="/{number}">{html.escape(story.title)}<br>{html.escape(story.paragraphs[0])}</a></div>'
        for number, story in enumerate(stories)
    )
