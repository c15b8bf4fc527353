"""One pass over a page's UTF-8: text cut into blocks, and the elements that hold them.

No tree is built. A stack of open block-level elements follows the HTML Standard where text depends on it (implied
ends of p, li, dt, dd, tr, td; raw-text elements; end tags never reach out of a table cell), inline elements are
flags. Everything is linear in the page and bounded by `Limits`; the pass allocates a few arrays as long as the page
has tags.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from pipelines.crawl.html.tables import BLOCK, BREAK, RAW, TAG, Tables, tables
from pipelines.kernels import kernel, subkernel

# Fields of a block, columns of `Scan.blocks`.
TEXT_START, TEXT_END, NODE, LINKED, LINKS, BOLD, FLAGS, SOURCE = range(8)
# Bits of FLAGS.
AFTER_BREAK, HAS_TIME, HAS_CODE, HAS_IMAGE, FORMULA = 1, 2, 4, 8, 16
# Fields of an element, columns of `Scan.nodes`.
PARENT, TAG_ID, DEPTH, FIRST_BLOCK, END_BLOCK = range(5)
OK, TOO_MANY_TAGS, TOO_DEEP, TOO_MANY_ATTRIBUTES = range(4)
REASONS = (None, "too_many_tags", "too_deep", "too_many_attributes")


class Limits(NamedTuple):
    """Upper bounds, each inclusive."""

    tags: int = 100_000
    depth: int = 500
    attributes: int = 1_000


class Scan(NamedTuple):
    """What one page holds.

    `text` is UTF-8 with white space folded (but in `pre`), blocks one after another.  `masks` are bits of words.yaml's
    attribute categories, of each element's own attributes; `signatures` hash tag and class letters.
    """

    text: np.ndarray  # (bytes,) uint8
    blocks: np.ndarray  # (n, 8) int32
    nodes: np.ndarray  # (m, 5) int32; node 0 is the page
    masks: np.ndarray  # (m,) uint32
    signatures: np.ndarray  # (m,) uint64
    title: tuple[int, int]  # in `text`
    page_type: int  # attribute bits of og:type and of JSON-LD types
    status: int
    value: int  # what broke the bound that `status` tells


def scan(markup: bytes, limits: Limits | None = None) -> Scan:
    """Blocks and elements of `markup` (UTF-8).  Never raises on page bytes; over a bound `status` is not OK."""
    limits = limits or Limits()
    page = np.frombuffer(markup, np.uint8)
    found = Scan(*_scan(page, limits.tags, limits.depth, limits.attributes, tables()))
    if found.status == OK and _text_bytes(found) < _NEARLY_EMPTY and b"<noscript" in markup:
        opened = Scan(*_scan(page, limits.tags, limits.depth, limits.attributes, _scriptless()))
        if opened.status == OK and _text_bytes(opened) > 2 * _NEARLY_EMPTY:
            return opened
    return found


def _text_bytes(page: Scan) -> int:
    return int((page.blocks[:, TEXT_END] - page.blocks[:, TEXT_START]).sum())


@functools.cache
def _scriptless() -> Tables:
    """The tables of a reader without scripts, for whom what stands in noscript is the page."""
    kinds = tables().kinds.copy()
    kinds[TAG["noscript"]] = BLOCK
    return tables()._replace(kinds=kinds)


_T_A, _T_B, _T_STRONG, _T_TIME, _T_CODE, _T_IMG = (TAG[n] for n in ("a", "b", "strong", "time", "code", "img"))
_T_P, _T_LI, _T_DT, _T_DD, _T_TR, _T_TD, _T_TH = (TAG[n] for n in ("p", "li", "dt", "dd", "tr", "td", "th"))
_T_UL, _T_OL, _T_MENU, _T_DIR, _T_DL = (TAG[n] for n in ("ul", "ol", "menu", "dir", "dl"))
_T_TABLE, _T_TBODY, _T_THEAD, _T_TFOOT, _T_CAPTION = (TAG[n] for n in ("table", "tbody", "thead", "tfoot", "caption"))
_T_H1, _T_H6, _T_PRE, _T_HTML, _T_BODY, _T_HEAD = (TAG[n] for n in ("h1", "h6", "pre", "html", "body", "head"))
_T_TITLE, _T_SCRIPT, _T_META, _T_MATH, _T_BR = (TAG[n] for n in ("title", "script", "meta", "math", "br"))
_T_BUTTON = TAG["button"]


def _packed(name: str) -> int:
    value = 0
    for byte in name.encode():
        value = (value << 8) | byte
    return value


# Attribute names of at most 8 letters, packed big-endian.
_N_CLASS, _N_ID, _N_STYLE, _N_HIDDEN, _N_ROLE = (_packed(n) for n in ("class", "id", "style", "hidden", "role"))
_N_ITEMPROP, _N_ITEMTYPE, _N_PROPERTY = (_packed(n) for n in ("itemprop", "itemtype", "property"))
_N_NAME, _N_CONTENT, _N_TYPE, _N_HREF = (_packed(n) for n in ("name", "content", "type", "href"))
# Bytes of text below which a page shows its text by scripts only; some keep a copy for readers without them.
_NEARLY_EMPTY = 300
# A link that holds more text is one that the page forgot to end.
_LONGEST_LINK = 600
_FNV_START, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_SPACE, _LT, _GT, _AMP, _SLASH, _QUOTE, _APOSTROPHE, _EQUALS = 32, 60, 62, 38, 47, 34, 39, 61


@subkernel
def _is_space(c):
    return c == 32 or (9 <= c <= 13)


@subkernel
def _lower(c):
    return c + 32 if 65 <= c <= 90 else c


@subkernel
def _matches_at(page, at, name):
    """Whether lower-case `name` stands at `at`, in either case."""
    if at + len(name) > len(page):
        return False
    for j in range(len(name)):
        if _lower(page[at + j]) != name[j]:
            return False
    return True


@subkernel
def _find(page, at, a, b, c):
    """Start of the three bytes a b c from `at`, or the page's length."""
    n = len(page)
    while at + 2 < n:
        if page[at] == a and page[at + 1] == b and page[at + 2] == c:
            return at
        at += 1
    return n


@subkernel
def _raw_end(page, at, start, stop):
    """Where the end tag of the raw element whose name is page[start:stop] begins, from `at`."""
    n = len(page)
    size = stop - start
    while at < n:
        if page[at] == _LT and at + 1 < n and page[at + 1] == _SLASH and at + 2 + size <= n:
            equal = True
            for j in range(size):
                if _lower(page[at + 2 + j]) != _lower(page[start + j]):
                    equal = False
                    break
            if equal and (at + 2 + size == n or not _is_letter(page[at + 2 + size])):
                return at
        at += 1
    return n


@subkernel
def _is_letter(c):
    return 65 <= c <= 90 or 97 <= c <= 122


@subkernel
def _words(page, at, stop, machine):
    """Bits of the words in page[at:stop]; what is no letter is a border, and so is a capital after a small letter."""
    classes, step, found = machine
    border = classes[95]
    state = step[0, border]
    bits = found[state]
    previous_small = False
    was_border = True
    for i in range(at, stop):
        c = page[i]
        if _is_letter(c):
            if c <= 90 and previous_small:
                state = step[state, border]
                bits |= found[state]
            state = step[state, classes[_lower(c)]]
            bits |= found[state]
            previous_small = c >= 97
            was_border = False
        elif not was_border:
            state = step[state, border]
            bits |= found[state]
            was_border = True
            previous_small = False
    if not was_border:
        bits |= found[step[state, border]]
    return bits


@subkernel
def _put_code_point(out, at, code):
    if code < 0x80:
        out[at] = code
        return at + 1
    if code < 0x800:
        out[at] = 0xC0 | (code >> 6)
        out[at + 1] = 0x80 | (code & 63)
        return at + 2
    if code < 0x10000:
        out[at] = 0xE0 | (code >> 12)
        out[at + 1] = 0x80 | ((code >> 6) & 63)
        out[at + 2] = 0x80 | (code & 63)
        return at + 3
    out[at] = 0xF0 | (code >> 18)
    out[at + 1] = 0x80 | ((code >> 12) & 63)
    out[at + 2] = 0x80 | ((code >> 6) & 63)
    out[at + 3] = 0x80 | (code & 63)
    return at + 4


@subkernel
def _character(page, at, out, place, t):
    """Decode the reference at page[at] == '&' into out[place:]; (bytes read, new place), 0 read where it is none."""
    n = len(page)
    i = at + 1
    if i < n and page[i] == 35:
        i += 1
        code = 0
        digits = 0
        if i < n and (page[i] | 32) == 120:
            i += 1
            while i < n and digits < 10:
                c = page[i]
                if 48 <= c <= 57:
                    code = code * 16 + (c - 48)
                elif 97 <= (c | 32) <= 102:
                    code = code * 16 + ((c | 32) - 87)
                else:
                    break
                i += 1
                digits += 1
        else:
            while i < n and digits < 10 and 48 <= page[i] <= 57:
                code = code * 10 + (page[i] - 48)
                i += 1
                digits += 1
        if digits == 0:
            return 0, place
        if i < n and page[i] == 59:
            i += 1
        if 128 <= code < 160:
            code = np.int64(t.cp1252[code - 128])
        if code < 32 or code == 127 or 0xD800 <= code < 0xE000 or code > 0x10FFFF or (code & 0xFFFE) == 0xFFFE:
            code = 32
        return i - at, _put_code_point(out, place, code)
    value = _FNV_START
    best = 0
    best_slot = 0
    size = len(t.entity_keys) - 1
    while i < n and i - at <= 32:
        c = page[i]
        if not (_is_letter(c) or 48 <= c <= 57):
            break
        value = (value ^ np.uint64(c)) * _FNV_PRIME
        i += 1
        slot = np.int64(value & np.uint64(size))
        while t.entity_keys[slot] != 0:
            if t.entity_keys[slot] == value:
                best = i
                best_slot = slot
                break
            slot = (slot + 1) & size
    if best == 0 or (best != i and (best >= n or page[best] != 59) and best - at < 3):
        return 0, place
    # A name without its semicolon counts only where the whole word is the name (`&copy 2020`, not `&notice`).
    if best != i:
        return 0, place
    start = t.entity_at[best_slot]
    for j in range(t.entity_size[best_slot]):
        out[place] = t.entity_bytes[start + j]
        place += 1
    if best < n and page[best] == 59:
        best += 1
    return best - at, place


@kernel
def _scan(page, max_tags, max_depth, max_attributes, t):
    n = len(page)
    marks = 2
    for i in range(n):
        if page[i] == _LT:
            marks += 1
    room = min(marks, max_tags + 2) + 2
    out = np.empty(n + n // 4 + 64, np.uint8)
    blocks = np.empty((2 * room, 8), np.int32)
    nodes = np.empty((room, 5), np.int32)
    masks = np.zeros(room, np.uint32)
    signatures = np.zeros(room, np.uint64)
    stack = np.zeros(max_depth + 2, np.int32)
    open_count = np.zeros(256, np.int32)
    nodes[0, 0] = -1
    nodes[0, 1] = 0
    nodes[0, 2] = 0
    nodes[0, 3] = 0
    top = 0
    node_count = 1
    block_count = 0
    place = 0
    block_start = 0
    visible = 0
    linked = 0
    links = 0
    bold_bytes = 0
    flags = 0
    source = 0
    link_depth = -1
    link_bytes = 0
    bold = 0
    inline_depth = 0
    pre_depth = -1
    title_start = 0
    title_end = 0
    page_type = np.uint32(0)
    tags = 0
    status = OK
    value = 0
    pending_space = False
    i = 0
    while i < n:
        c = page[i]
        if c != _LT:
            # ---- text
            if c == _AMP:
                used, after = _character(page, i, out, place + 1, t)
                if used == 0:
                    used = 1
                    out[place + 1] = 38
                    after = place + 2
                i += used
                is_blank = (after - place == 2 and _is_space(out[place + 1])) or (
                    after - place == 3 and out[place + 1] == 0xC2 and out[place + 2] == 0xA0
                )
                if is_blank:
                    pending_space = True
                    continue
                size = after - place - 1
                if pending_space and visible > 0:
                    out[place] = _SPACE
                    place += 1
                else:
                    for j in range(size):
                        out[place + j] = out[place + j + 1]
                pending_space = False
                place += size
            elif c <= 32 or c == 127:
                i += 1
                if pre_depth >= 0 and (c == 10 or c == 9 or c == 32):
                    if visible > 0 or c != 10:
                        out[place] = c
                        place += 1
                elif _is_space(c):
                    pending_space = True
                continue
            else:
                if c == 0xC2 and i + 1 < n and page[i + 1] == 0xA0:
                    i += 2
                    pending_space = True
                    continue
                if c == 0xE3 and i + 2 < n and page[i + 1] == 0x80 and page[i + 2] == 0x80:
                    i += 3
                    pending_space = True
                    continue
                if (
                    c == 0xE2
                    and i + 2 < n
                    and page[i + 1] == 0x80
                    and (0x8B <= page[i + 2] <= 0x8F or 0xAA <= page[i + 2] <= 0xAE)
                ):
                    i += 3
                    continue
                if c == 0xEF and i + 2 < n and page[i + 1] == 0xBB and page[i + 2] == 0xBF:
                    i += 3
                    continue
                if pending_space:
                    if visible > 0:
                        out[place] = _SPACE
                        place += 1
                    pending_space = False
                out[place] = c
                place += 1
                i += 1
                size = 1
                # The rest of a run of plain bytes.
                while i < n:
                    c = page[i]
                    if c <= 32 or c == _LT or c == _AMP or c == 127 or c == 0xC2 or c == 0xE3 or c == 0xE2 or c == 0xEF:
                        break
                    out[place] = c
                    place += 1
                    size += 1
                    i += 1
            if visible == 0:
                source = i
            visible += size
            if link_depth >= 0:
                linked += size
                link_bytes += size
                if link_bytes > _LONGEST_LINK:
                    link_depth = -1
            if bold > 0:
                bold_bytes += size
            continue
        # ---- markup
        if i + 1 >= n:
            break
        c = page[i + 1]
        if c == 33 or c == 63:
            if c == 33 and i + 3 < n and page[i + 2] == 45 and page[i + 3] == 45:
                if i + 4 < n and page[i + 4] == _GT:
                    i += 5
                else:
                    i = _find(page, i + 4, 45, 45, _GT) + 3
            else:
                while i < n and page[i] != _GT:
                    i += 1
                i += 1
            continue
        closing = c == _SLASH
        start = i + 2 if closing else i + 1
        if start >= n or not _is_letter(page[start]):
            if closing:
                while i < n and page[i] != _GT:
                    i += 1
                i += 1
            else:
                if pending_space and visible > 0:
                    out[place] = _SPACE
                    place += 1
                pending_space = False
                out[place] = _LT
                place += 1
                visible += 1
                i += 1
            continue
        tags += 1
        if tags > max_tags:
            status = TOO_MANY_TAGS
            value = tags
            break
        stop = start
        hashed = _FNV_START
        while stop < n and not _is_space(page[stop]) and page[stop] != _SLASH and page[stop] != _GT:
            hashed = (hashed ^ np.uint64(_lower(page[stop]))) * _FNV_PRIME
            stop += 1
        tag = 0
        slot = np.int64(hashed & np.uint64(511))
        while t.tag_keys[slot] != 0:
            if t.tag_keys[slot] == hashed:
                tag = np.int64(t.tag_ids[slot])
                break
            slot = (slot + 1) & 511
        kind = t.kinds[tag]
        # ---- attributes
        i = stop
        mask = np.uint32(0)
        signature = hashed
        attributes = 0
        content_start = 0
        content_end = 0
        is_link = False
        is_type_meta = False
        is_json = False
        is_tex = False
        while i < n:
            while i < n and (_is_space(page[i]) or page[i] == _SLASH):
                i += 1
            if i >= n:
                break
            if page[i] == _GT:
                i += 1
                break
            attributes += 1
            packed = np.uint64(0)
            size = 0
            while (
                i < n
                and not _is_space(page[i])
                and page[i] != _SLASH
                and page[i] != _GT
                and (page[i] != _EQUALS or size == 0)
            ):
                if size < 9:
                    packed = (packed << np.uint64(8)) | np.uint64(_lower(page[i]))
                size += 1
                i += 1
            if size > 8:
                packed = np.uint64(0)
            j = i
            while j < n and _is_space(page[j]):
                j += 1
            value_start = 0
            value_end = 0
            if j < n and page[j] == _EQUALS:
                j += 1
                while j < n and _is_space(page[j]):
                    j += 1
                if j < n and (page[j] == _QUOTE or page[j] == _APOSTROPHE):
                    quote = page[j]
                    value_start = j + 1
                    j += 1
                    while j < n and page[j] != quote:
                        j += 1
                    value_end = j
                    i = j + 1
                else:
                    value_start = j
                    while j < n and not _is_space(page[j]) and page[j] != _GT:
                        j += 1
                    value_end = j
                    i = j
            if closing or packed == 0:
                continue
            if packed == _N_CLASS:
                mask |= _words(page, value_start, value_end, t.attributes)
                for k in range(value_start, value_end):
                    if _is_letter(page[k]):
                        signature = (signature ^ np.uint64(page[k])) * _FNV_PRIME
            elif packed == _N_ID or packed == _N_ROLE or packed == _N_ITEMPROP or packed == _N_ITEMTYPE:
                mask |= _words(page, value_start, value_end, t.attributes)
            elif packed == _N_STYLE:
                mask |= _words(page, value_start, value_end, t.attributes) & np.uint32(_HIDDEN_BIT)
            elif packed == _N_HIDDEN:
                mask |= np.uint32(_HIDDEN_BIT)
            elif packed == _N_HREF:
                is_link = True
            elif packed == _N_CONTENT:
                content_start = value_start
                content_end = value_end
            elif (packed == _N_PROPERTY or packed == _N_NAME) and tag == _T_META:
                size = value_end - value_start
                is_type_meta = (
                    size == 7
                    and _lower(page[value_start]) == 111
                    and page[value_start + 2] == 58
                    and _lower(page[value_start + 3]) == 116
                    and _lower(page[value_start + 4]) == 121
                )
                is_type_meta = is_type_meta or (
                    size == 9
                    and _lower(page[value_start]) == 103
                    and _lower(page[value_start + 3]) == 101
                    and _lower(page[value_start + 8]) == 114
                )
            elif packed == _N_TYPE and tag == _T_SCRIPT:
                for k in range(value_start, value_end - 3):
                    if (
                        _lower(page[k]) == 106
                        and _lower(page[k + 1]) == 115
                        and _lower(page[k + 2]) == 111
                        and _lower(page[k + 3]) == 110
                    ):
                        is_json = True
                    if (
                        page[k] == 47
                        and _lower(page[k + 1]) == 116
                        and _lower(page[k + 2]) == 101
                        and _lower(page[k + 3]) == 120
                    ):
                        is_tex = True
        if attributes > max_attributes:
            status = TOO_MANY_ATTRIBUTES
            value = attributes
            break
        if is_type_meta:
            page_type |= _words(page, content_start, content_end, t.attributes)
        # ---- raw elements
        if kind == RAW:
            if closing:
                continue
            end = _raw_end(page, i, start, stop)
            if tag == _T_TITLE and title_end == 0 and visible == 0:
                # Kept at the front of the text, outside every block.
                place = block_start
                space = False
                begun = place
                k = i
                while k < end and place - begun < 600:
                    c = page[k]
                    if c == _AMP:
                        if space:
                            out[place] = _SPACE
                        used, after = _character(page, k, out, place + space, t)
                        if used > 0:
                            k += used
                            place = after
                            space = False
                            continue
                    if c <= 32:
                        space = place > begun
                    else:
                        if space:
                            out[place] = _SPACE
                            place += 1
                            space = False
                        out[place] = c
                        place += 1
                    k += 1
                title_start = begun
                title_end = place
                block_start = place
            elif tag == _T_SCRIPT and is_json:
                k = i
                limit = min(end, i + 65536)
                while k + 8 < limit:
                    if (
                        page[k] == 64
                        and page[k + 1] == 116
                        and page[k + 2] == 121
                        and page[k + 3] == 112
                        and page[k + 4] == 101
                    ):
                        j = k + 5
                        while j < limit and j < k + 60 and page[j] != 44 and page[j] != 125:
                            j += 1
                        page_type |= _words(page, k + 5, j, t.attributes)
                        k = j
                    k += 1
            elif (tag == _T_SCRIPT and is_tex) or tag == _T_MATH:
                # A formula: TeX where the page carries it, else the letters of the markup.
                k = i
                stop_at = end
                if tag == _T_MATH:
                    k, stop_at = _tex_of_math(page, i, end)
                if stop_at > k and stop_at - k < 4096:
                    if visible > 0 and pending_space:
                        out[place] = _SPACE
                        place += 1
                    pending_space = False
                    out[place] = 36
                    place += 1
                    while k < stop_at:
                        c = page[k]
                        if c == _AMP:
                            used, after = _character(page, k, out, place, t)
                            if used > 0:
                                k += used
                                place = after
                                continue
                        out[place] = c if c > 32 else 32
                        place += 1
                        k += 1
                    out[place] = 36
                    place += 1
                    visible += 2
                    flags |= FORMULA
            else:
                pending_space = True
            i = end
            while i < n and page[i] != _GT:
                i += 1
            i += 1
            continue
        # ---- inline elements
        if kind != BLOCK and kind != BREAK:
            if tag == _T_A:
                # An anchor without href is a place, not a link; either ends a link before it.
                if closing or not is_link:
                    link_depth = -1
                else:
                    link_depth = top
                    link_bytes = 0
                    links += 1
            elif tag == _T_B or tag == _T_STRONG:
                bold += -1 if closing else 1
                bold = max(bold, 0)
            elif not closing:
                if tag == _T_TIME:
                    flags |= HAS_TIME
                elif tag == _T_CODE:
                    flags |= HAS_CODE
                elif tag == _T_IMG:
                    flags |= HAS_IMAGE
            if kind == 0:
                if not closing:
                    inline_depth += 1
                elif inline_depth > 0:
                    inline_depth -= 1
            continue
        # ---- the end of a block
        if pre_depth >= 0 and kind == BREAK:
            if visible > 0:
                out[place] = 10
                place += 1
            continue
        if visible > 0:
            while place > block_start and _is_space(out[place - 1]):
                place -= 1
            blocks[block_count, TEXT_START] = block_start
            blocks[block_count, TEXT_END] = place
            blocks[block_count, NODE] = stack[top]
            blocks[block_count, LINKED] = min(linked, place - block_start)
            blocks[block_count, LINKS] = links
            blocks[block_count, BOLD] = min(bold_bytes, place - block_start)
            blocks[block_count, FLAGS] = flags
            blocks[block_count, SOURCE] = source
            block_count += 1
        else:
            place = block_start
        block_start = place
        visible = 0
        linked = 0
        bold_bytes = 0
        links = 1 if link_depth >= 0 else 0
        flags = AFTER_BREAK if kind == BREAK else 0
        pending_space = False
        if kind == BREAK or tag == _T_HTML or tag == _T_HEAD:
            continue
        # ---- open and close block elements
        if closing:
            if open_count[tag] == 0:
                continue
            k = top
            is_cell_tag = (
                tag == _T_TD
                or tag == _T_TH
                or tag == _T_TR
                or tag == _T_TABLE
                or tag == _T_TBODY
                or tag == _T_THEAD
                or tag == _T_TFOOT
                or tag == _T_BODY
            )
            while k > 0:
                other = nodes[stack[k], TAG_ID]
                if other == tag or (other >= _T_H1 and other <= _T_H6 and tag >= _T_H1 and tag <= _T_H6):
                    break
                if not is_cell_tag and (other == _T_TD or other == _T_TH or other == _T_TABLE or other == _T_CAPTION):
                    k = 0
                    break
                k -= 1
            if k > 0:
                while top >= k:
                    nodes[stack[top], END_BLOCK] = block_count
                    open_count[nodes[stack[top], TAG_ID]] -= 1
                    top -= 1
                if link_depth > top:
                    link_depth = -1
                if pre_depth > top:
                    pre_depth = -1
                bold = 0
            continue
        k = 0
        if tag == _T_LI or tag == _T_DT or tag == _T_DD:
            j = top
            while j > 0:
                other = nodes[stack[j], TAG_ID]
                if other == tag or (tag != _T_LI and (other == _T_DT or other == _T_DD)):
                    k = j
                    break
                if (
                    other == _T_UL
                    or other == _T_OL
                    or other == _T_MENU
                    or other == _T_DIR
                    or other == _T_DL
                    or other == _T_TD
                    or other == _T_TH
                    or other == _T_TABLE
                ):
                    break
                j -= 1
        elif tag == _T_TR or tag == _T_TD or tag == _T_TH or tag == _T_TBODY or tag == _T_THEAD or tag == _T_TFOOT:
            j = top
            while j > 0:
                other = nodes[stack[j], TAG_ID]
                if other == _T_TABLE or other == _T_CAPTION:
                    break
                if tag == _T_TD or tag == _T_TH:
                    if other == _T_TR:
                        break
                    if other == _T_TD or other == _T_TH:
                        k = j
                        break
                elif tag == _T_TR:
                    if other == _T_TBODY or other == _T_THEAD or other == _T_TFOOT:
                        break
                    if other == _T_TR:
                        k = j
                        break
                    if other == _T_TD or other == _T_TH:
                        k = j
                else:
                    k = j
                j -= 1
        elif tag >= _T_H1 and tag <= _T_H6 and top > 0:
            other = nodes[stack[top], TAG_ID]
            if other >= _T_H1 and other <= _T_H6:
                k = top
        elif tag == _T_BODY and open_count[tag] > 0:
            continue
        if k == 0 and top > 0 and nodes[stack[top], TAG_ID] == _T_P and tag != _T_BUTTON:
            k = top
        if k > 0:
            while top >= k:
                nodes[stack[top], END_BLOCK] = block_count
                open_count[nodes[stack[top], TAG_ID]] -= 1
                top -= 1
            if link_depth > top:
                link_depth = -1
            if pre_depth > top:
                pre_depth = -1
        if top + 1 > max_depth:
            status = TOO_DEEP
            value = top + 1
            break
        nodes[node_count, PARENT] = stack[top]
        nodes[node_count, TAG_ID] = tag
        nodes[node_count, DEPTH] = top + 1
        nodes[node_count, FIRST_BLOCK] = block_count
        nodes[node_count, END_BLOCK] = block_count
        masks[node_count] = mask
        signatures[node_count] = signature
        top += 1
        stack[top] = node_count
        node_count += 1
        open_count[tag] += 1
        bold = 0
        if tag == _T_PRE:
            pre_depth = top
    if status == OK and visible > 0:
        while place > block_start and _is_space(out[place - 1]):
            place -= 1
        blocks[block_count, TEXT_START] = block_start
        blocks[block_count, TEXT_END] = place
        blocks[block_count, NODE] = stack[top]
        blocks[block_count, LINKED] = min(linked, place - block_start)
        blocks[block_count, LINKS] = links
        blocks[block_count, BOLD] = min(bold_bytes, place - block_start)
        blocks[block_count, FLAGS] = flags
        blocks[block_count, SOURCE] = source
        block_count += 1
    while top >= 0:
        nodes[stack[top], END_BLOCK] = block_count
        top -= 1
    return (
        out[:place].copy(),
        blocks[:block_count].copy(),
        nodes[:node_count].copy(),
        masks[:node_count].copy(),
        signatures[:node_count].copy(),
        (title_start, title_end),
        page_type,
        status,
        value,
    )


_TEX = np.frombuffer(b"application/x-tex", np.uint8)


@subkernel
def _tex_of_math(page, at, end):
    """(start, stop) of the TeX annotation of a math element, or an empty span."""
    k = at
    while k + len(_TEX) < end:
        if page[k] == _TEX[0] and _matches_at(page, k, _TEX):
            start = k
            while start < end and page[start] != _GT:
                start += 1
            stop = start + 1
            while stop < end and page[stop] != _LT:
                stop += 1
            return start + 1, stop
        k += 1
    return at, at


def _hidden_bit() -> int:
    from pipelines.crawl.html.tables import categories

    return 1 << categories("attributes").index("hidden")


_HIDDEN_BIT = _hidden_bit()
