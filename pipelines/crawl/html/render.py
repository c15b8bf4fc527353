"""Kept blocks -> text: paragraphs by line, list items, table rows and code so that they stay readable; Markdown as an option."""

from __future__ import annotations

import numpy as np

from pipelines.crawl.html.scan import Scan
from pipelines.crawl.html.tables import TAG
from pipelines.kernels import kernel

PARAGRAPH, HEADING, ITEM, CELL, CODE, QUOTE, INSIDE_ITEM = range(7)
_MAX_CELL_BYTES = 400  # a longer cell, or one with blocks in it, is layout
_T_H1, _T_H6, _T_LI, _T_DT, _T_DD, _T_UL, _T_OL, _T_TR, _T_TD, _T_TH, _T_TABLE, _T_PRE, _T_QUOTE = (
    TAG[n] for n in ("h1", "h6", "li", "dt", "dd", "ul", "ol", "tr", "td", "th", "table", "pre", "blockquote")
)


def render(page: Scan, keep: np.ndarray, *, markdown: bool = False) -> str:
    """Text of the blocks where `keep` (n,) is true, in page order."""
    kept = np.flatnonzero(keep)
    shapes = _shapes(page.blocks, page.nodes, kept).tolist()
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


@kernel
def _shapes(blocks, nodes, kept):
    """(k, 4) int32 of each kept block: kind, level (heading, list depth, table), row (or element), number in an ordered list."""
    out = np.zeros((len(kept), 4), np.int32)
    numbers = np.zeros(len(nodes), np.int32)
    seen_item = -1
    for i in range(len(kept)):
        b = kept[i]
        u = blocks[b, 2]
        depth = 0
        item = -1
        listed = -1
        row = -1
        cell = -1
        table = -1
        while u > 0:
            tag = nodes[u, 1]
            if out[i, 0] == 0:
                if tag == _T_PRE:
                    out[i, 0] = CODE
                    out[i, 2] = u
                elif tag >= _T_H1 and tag <= _T_H6 and item < 0:
                    out[i, 0] = HEADING
                    out[i, 1] = tag - _T_H1 + 1
                    out[i, 2] = u
                elif tag == _T_QUOTE:
                    out[i, 0] = QUOTE
            if (tag == _T_LI or tag == _T_DD or tag == _T_DT) and item < 0 and cell < 0:
                item = u
            if tag == _T_UL or tag == _T_OL:
                depth += 1
                if listed < 0 and item >= 0:
                    listed = u
            if (tag == _T_TD or tag == _T_TH) and cell < 0 and item < 0:
                cell = u
            if tag == _T_TR and row < 0 and cell >= 0:
                row = u
            if tag == _T_TABLE and table < 0:
                table = u
            u = nodes[u, 0]
        if out[i, 0] == CODE or out[i, 0] == HEADING:
            continue
        if item >= 0 and listed >= 0:
            if item != seen_item:
                out[i, 0] = ITEM
                if nodes[listed, 1] == _T_OL:
                    numbers[listed] += 1
                    out[i, 3] = numbers[listed]
            else:
                out[i, 0] = INSIDE_ITEM
            out[i, 1] = min(depth, 6)
            seen_item = item
        elif cell >= 0 and row >= 0 and nodes[cell, 4] - nodes[cell, 3] == 1 and blocks[b, 1] - blocks[b, 0] <= _MAX_CELL_BYTES:
            out[i, 0] = CELL
            out[i, 1] = table
            out[i, 2] = row
    return out
