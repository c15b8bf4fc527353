"""Kept blocks -> text: paragraphs by line, list items, table rows and code so that they stay readable; Markdown as an
option.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipelines.crawl.html.scan import END_BLOCK, FIRST_BLOCK, PARENT, TAG_ID, Scan
from pipelines.crawl.html.tables import TAG

PARAGRAPH, HEADING, ITEM, CELL, CODE, QUOTE, INSIDE_ITEM = range(7)
_MAX_INDENT = 6
_MAX_CELL_BYTES = 400  # a longer cell, or one with blocks in it, is layout
_T_H1, _T_H6, _T_LI, _T_UL, _T_OL, _T_TR, _T_TD, _T_TH, _T_TABLE, _T_PRE, _T_QUOTE = (
    TAG[n] for n in ("h1", "h6", "li", "ul", "ol", "tr", "td", "th", "table", "pre", "blockquote")
)


def render(page: Scan, keep: np.ndarray, *, markdown: bool = False) -> str:
    """Text of the blocks where `keep` (n,) is true, in page order."""
    kept = np.flatnonzero(keep)
    shapes = _shapes(page.blocks, page.nodes, kept)
    raw = page.text.tobytes()
    spans = page.blocks[kept, :2].tolist()
    lines: list[str] = []
    at = 0
    while at < len(spans):
        kind, level, row, count = shapes[at]
        text = raw[spans[at][0] : spans[at][1]].decode("utf-8", "replace")
        if kind == CELL:
            last = at
            while last + 1 < len(spans) and shapes[last + 1][0] == CELL and shapes[last + 1][2] == row:
                last += 1
            cells = [raw[a:b].decode("utf-8", "replace").replace("\n", " ") for a, b in spans[at : last + 1]]
            is_first = at == 0 or shapes[at - 1][0] != CELL or shapes[at - 1][1] != level
            lines.extend(_row(cells, markdown=markdown, is_first=is_first))
            at = last + 1
            continue
        if kind == CODE and markdown:
            opens = at == 0 or shapes[at - 1][0] != CODE or shapes[at - 1][2] != row
            closes = at + 1 == len(spans) or shapes[at + 1][0] != CODE or shapes[at + 1][2] != row
            lines.extend([*(["```"] if opens else []), text.strip("\n"), *(["```"] if closes else [])])
        elif kind == ITEM:
            lines.append(f"{'  ' * (level - 1)}{f'{count}.' if count else '-'} {text}")
        elif kind == HEADING and markdown:
            lines.extend(["", f"{'#' * level} {text}"])
        elif kind == QUOTE and markdown:
            lines.append(f"> {text}")
        elif kind == INSIDE_ITEM and markdown:
            lines.append(f"{'  ' * level}{text}")
        else:
            lines.append(text if kind == CODE else text.replace("\n", " "))
        at += 1
    return "\n".join(lines)


def _row(cells: list[str], *, markdown: bool, is_first: bool) -> list[str]:
    if not markdown:
        return [" | ".join(cells)]
    row = "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    return [row, "|" + " --- |" * len(cells)] if is_first else [row]


class _Place(NamedTuple):
    """What an element's text is written as, by the element itself and those around it."""

    kind: int = PARAGRAPH
    level: int = 0
    element: int = -1  # the heading or pre
    item: int = -1
    lists: int = 0
    list: int = -1  # of `item`
    is_ordered: bool = False
    cell: int = -1
    row: int = -1
    table: int = -1


def _inside(around: _Place, element: int, tag: int) -> _Place:
    """The place within `element` of `tag`, whose own place is `around`."""
    if around.kind in (CODE, HEADING):
        return around
    if tag == _T_PRE:
        return around._replace(kind=CODE, element=element)
    if _T_H1 <= tag <= _T_H6:
        return around._replace(kind=HEADING, level=tag - _T_H1 + 1, element=element)
    if tag == _T_QUOTE:
        return around._replace(kind=QUOTE)
    if tag in (_T_UL, _T_OL):
        return around._replace(lists=around.lists + 1, list=element, is_ordered=tag == _T_OL, cell=-1)
    if tag == _T_LI and around.list >= 0:
        return around._replace(item=element, cell=-1)
    if tag in (_T_TD, _T_TH):
        return around._replace(cell=element, item=-1, lists=0, list=-1)
    if tag == _T_TR:
        return around._replace(row=element)
    if tag == _T_TABLE:
        return around._replace(table=element, row=-1, cell=-1)
    return around


def _shapes(blocks: np.ndarray, nodes: np.ndarray, kept: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Of each kept block: kind, level (heading, list depth, table), row or element, number in an ordered list."""
    parents, tags, firsts, ends = (nodes[:, k].tolist() for k in (PARENT, TAG_ID, FIRST_BLOCK, END_BLOCK))
    places: dict[int, _Place] = {0: _Place()}
    numbers: dict[int, int] = {}
    shapes = []
    item_before = -1
    for start, stop, node in blocks[kept, :3].tolist():
        path = []
        while node not in places:
            path.append(node)
            node = parents[node]
        place = places[node]
        for node in reversed(path):
            place = places[node] = _inside(place, node, tags[node])
        if place.kind in (CODE, HEADING):
            shapes.append((place.kind, place.level, place.element, 0))
        elif place.item >= 0:
            number = 0
            if place.item != item_before and place.is_ordered:
                number = numbers[place.list] = numbers.get(place.list, 0) + 1
            kind = INSIDE_ITEM if place.item == item_before else ITEM
            shapes.append((kind, min(place.lists, _MAX_INDENT), place.item, number))
            item_before = place.item
        elif (
            place.cell >= 0
            and place.row >= 0
            and ends[place.cell] - firsts[place.cell] == 1
            and stop - start <= _MAX_CELL_BYTES
        ):
            shapes.append((CELL, place.table, place.row, 0))
        else:
            shapes.append((place.kind, place.level, -1, 0))
    return shapes
