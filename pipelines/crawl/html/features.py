"""Numbers that tell main text from the rest, one row a block, all from one page's `Scan`.

A row holds the block itself, its elements (nearest ancestor with each word category or tag, sizes and link density of
the containers around it), repeated structures (siblings of one kind, blocks with one path), a readability-like score
of its containers, its place on the page, and a few numbers of its neighbours. What a block weighs is counted in
tokens: a Han character or kana, or a run of other letters and digits.
"""

from __future__ import annotations

import numpy as np

from pipelines.crawl.html.scan import (
    Scan,
)
from pipelines.crawl.html.tables import TAG, automaton_of, categories
from pipelines.kernels import kernel, subkernel

_CATEGORIES = len(categories("attributes"))
_PHRASES = len(categories("phrases"))
_ANCESTOR_TAGS = [
    "article",
    "main",
    "aside",
    "nav",
    "footer",
    "header",
    "form",
    "table",
    "tr",
    "ul",
    "ol",
    "li",
    "section",
    "figure",
    "blockquote",
    "dl",
    "h1",
    "h2",
    "h3",
    "h4",
    "p",
    "pre",
    "body",
    "button",
    "td",
    "div",
]
_TAG_SLOT = np.full(256, -1, np.int16)
for _slot, _name in enumerate(_ANCESTOR_TAGS):
    _TAG_SLOT[TAG[_name]] = _slot
for _name, _like in (
    ("th", "td"),
    ("h5", "h4"),
    ("h6", "h4"),
    ("figcaption", "figure"),
    ("dt", "dl"),
    ("dd", "dl"),
    ("menu", "ul"),
):
    _TAG_SLOT[TAG[_name]] = _TAG_SLOT[TAG[_like]]
_FAR = 20.0

_OWN = [
    "tokens",
    "log_tokens",
    "letters_per_token",
    "han",
    "digit",
    "upper",
    "comma",
    "sentence_end",
    "colon",
    "bullet",
    "ends_sentence",
    "ends_other",
    "starts_lower",
    "starts_digit",
    "linked",
    "links",
    "links_per_token",
    "bold",
    "after_break",
    "time",
    "code",
    "image",
    "formula",
    "same_text",
    "in_title",
    "is_title",
    "phrase_bits",
    "tag",
    "depth",
    "markup_per_token",
    *(f"phrase.{name}" for name in categories("phrases")),
]
_AROUND = [
    *(f"near.{name}" for name in categories("attributes")),
    *(f"in.{name}" for name in _ANCESTOR_TAGS),
    *(
        f"{name}{level}"
        for level in range(5)
        for name in ("box_tokens", "box_linked", "box_blocks", "box_sentences", "box_place", "box_score")
    ),
    "path_blocks",
    "path_share",
    "path_linked",
    "path_sentences",
    "repeat_count",
    "repeat_share",
    "repeat_linked",
    "repeat_tokens",
    "repeat_index",
    "repeat_up",
    "repeat_times",
    "repeat_talk",
    "repeat_full",
    "repeat_story",
    "repeat_after",
    "best_inside",
    "best_up",
    "best_share",
    "best_linked",
    "score_share",
    "same_box_before",
    "same_box_after",
    "depth_before",
    "depth_after",
]
_SINCE = ("copyright", "editor", "share", "nav", "comment", "related", "disclaimer", "tag")
_TERMS = [
    "terms_own",
    "terms_near",
    "terms_box0",
    "terms_box1",
    "terms_box2",
    "terms_item",
    "terms_best",
    "terms_found",
]
_STORY = [
    "title_up",
    "title_down",
    "title_shared",
    "article_count",
    "article_index",
    "article_share",
    "article_titled",
    "heading_level",
    "heading_linked",
    *(f"heading.{name}" for name in ("related", "comment", "nav", "ad", "share", "login")),
    "headings_after_title",
    "heading_rank",
    *(f"since.{name}" for name in _SINCE),
    "long_since_title",
    "links_since_long",
    "repeat_links",
    "repeat_heads",
    "own_repeat_linked",
    "first_long",
    "long_rank",
    "read_inside",
    "read_joined",
    "read_up",
    "read_share",
    "read_margin",
    "read_score",
    "read_titled",
]
_PLACE = [
    "block_place",
    "token_place",
    "blocks_from_title",
    "after_title",
    "blocks_from_heading",
    "tokens_before",
    "tokens_after",
    "page_tokens",
    "page_blocks",
    "page_linked",
    "page_sentences",
    "page_han",
    "page_lists",
    "page_long",
    "page_longest",
    "page_forms",
    "page_headings",
    "page_time",
    "page_titled",
    "page_thread",
    *(f"page.{name}" for name in ("article", "forum", "product", "list", "comment", "content", "code")),
]
_NEAR = ("log_tokens", "linked", "sentence_end", "ends_sentence", "phrase_bits", "tag", "han", "comma")
_OFFSETS = (-3, -2, -1, 1, 2, 3)
FEATURES: tuple[str, ...] = (
    *_OWN,
    *_AROUND,
    *_STORY,
    *_TERMS,
    *_PLACE,
    *(f"{name}@{offset:+d}" for offset in _OFFSETS for name in _NEAR),
)
_AT = {name: number for number, name in enumerate(FEATURES)}
_NEAR_COLUMNS = np.array([_AT[name] for name in _NEAR], np.int64)
_PAGE_BITS = np.array(
    [categories("attributes").index(n) for n in ("article", "forum", "product", "list", "comment", "content", "code")],
    np.int64,
)
_A_PHRASE, _A_NEAR, _A_IN, _A_BOX = _AT["phrase.copyright"], _AT["near.nav"], _AT["in.article"], _AT["box_tokens0"]
_A_PATH, _A_PLACE, _A_PAGE, _A_AROUND = (
    _AT["path_blocks"],
    _AT["block_place"],
    _AT["page.article"],
    _AT["log_tokens@-3"],
)
_A_STORY = _AT["title_up"]
_A_TERMS = _AT["terms_own"]
_A_REPEAT, _A_BEST, _A_THREAD = _AT["repeat_count"], _AT["best_inside"], _AT["page_thread"]
_P_COMMENT, _P_COUNT = _AT["phrase.comment"], _AT["phrase.count"]
_P_TIME = _AT["phrase.time"]
_SINCE_PHRASES = np.array([categories("phrases").index(name) for name in _SINCE], np.int64)
_HEADING_PHRASES = np.array(
    [categories("phrases").index(n) for n in ("related", "comment", "nav", "ad", "share", "login")], np.int64
)
_GOOD_BITS = np.uint32(sum(1 << categories("attributes").index(name) for name in ("article", "content", "post")))
_BAD_BITS = np.uint32(
    sum(
        1 << categories("attributes").index(n)
        for n in ["comment", "footer", "sidebar", "related", "share", "ad", "form", "nav", "hidden", "tag", "header"]
    )
)
_A_READ = _AT["read_inside"]
_BASE_SCORES = np.zeros(256, np.float64)
for _names, _score in (
    ("div article section main", 5),
    ("pre td blockquote", 3),
    ("address ol ul dl dd dt li form", -3),
    ("h1 h2 h3 h4 h5 h6 th", -5),
):
    for _name in _names.split():
        _BASE_SCORES[TAG[_name]] = _score
_T_ARTICLE = TAG["article"]
_T_LI, _T_H1, _T_H6, _T_P, _T_PRE, _T_TD = (TAG[n] for n in ("li", "h1", "h6", "p", "pre", "td"))


def features(page: Scan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, len(FEATURES)) float32, (n,) float32 tokens, and (n, 4) int32 groups for context.

    The groups number each block's container, the one above it, its path and its repeated structure.
    """
    return _features(
        page.text,
        page.blocks,
        page.nodes,
        page.masks,
        page.signatures,
        page.title[0],
        page.title[1],
        np.uint32(page.page_type),
        automaton_of("phrases"),
        _TAG_SLOT,
        _NEAR_COLUMNS,
        _PAGE_BITS,
        _GOOD_BITS,
        _BAD_BITS,
        len(FEATURES),
    )


@subkernel
def _lower(c):
    return c + 32 if 65 <= c <= 90 else c


@subkernel
def _contains(text, start, stop, a, b):
    """Whether text[a:b] occurs in text[start:stop], case folded; both are short."""
    size = b - a
    for i in range(start, stop - size + 1):
        equal = True
        for j in range(size):
            if _lower(text[i + j]) != _lower(text[a + j]):
                equal = False
                break
        if equal:
            return True
    return False


@subkernel
def _slot_of(keys, key):
    size = len(keys) - 1
    slot = np.int64((key ^ (key >> np.uint64(29))) & np.uint64(size))
    while keys[slot] != 0 and keys[slot] != key:
        slot = (slot + 1) & size
    keys[slot] = key
    return slot


@subkernel
def _block_numbers(text, blocks, machine, out, tokens, sentences, same, hashes):
    """The block's own text: counts by character kind, ends, phrases."""
    classes, step, found = machine
    for b in range(len(blocks)):
        at = blocks[b, 0]
        stop = blocks[b, 1]
        letters = 0
        words = 0
        han = 0
        digits = 0
        upper = 0
        commas = 0
        ends = 0
        colons = 0
        bullets = 0
        in_word = False
        last_end = 0
        last = 0
        first = 0
        state = 0
        bits = np.uint32(0)
        hashed = np.uint64(0xCBF29CE484222325)
        i = at
        while i < stop:
            c = np.int64(text[i])
            if c < 128:
                state = step[state, classes[_lower(c)]]
                bits |= found[state]
                i += 1
                if c <= 32:
                    in_word = False
                    continue
                hashed = (hashed ^ np.uint64(_lower(c))) * np.uint64(0x100000001B3)
                code = c
            else:
                size = 2 if c < 0xE0 else 3 if c < 0xF0 else 4
                code = c & (0x1F if size == 2 else 0x0F if size == 3 else 0x07)
                state = step[state, classes[c]]
                bits |= found[state]
                hashed = (hashed ^ np.uint64(c)) * np.uint64(0x100000001B3)
                for j in range(1, min(size, stop - i)):
                    d = np.int64(text[i + j])
                    state = step[state, classes[d]]
                    bits |= found[state]
                    hashed = (hashed ^ np.uint64(d)) * np.uint64(0x100000001B3)
                    code = (code << 6) | (d & 63)
                i += size
            if first == 0:
                first = code
            letters += 1
            last = code
            last_end = 0
            if code < 128:
                if 97 <= code <= 122:
                    words += not in_word
                    in_word = True
                elif 65 <= code <= 90:
                    upper += 1
                    words += not in_word
                    in_word = True
                elif 48 <= code <= 57:
                    digits += 1
                    words += not in_word
                    in_word = True
                elif code == 39 or code == 45 or code == 95:
                    pass
                else:
                    if code == 44 or code == 59:
                        commas += 1
                    elif code == 33 or code == 63:
                        ends += 1
                        last_end = 1
                    elif code == 46:
                        if in_word and (i >= stop or text[i] <= 32 or text[i] == 34):
                            ends += 1
                            last_end = 1
                    elif code == 58:
                        colons += 1
                    elif code == 124 or code == 62 or code == 47 or code == 42:
                        bullets += 1
                    elif code == 34 or code == 41:
                        last_end = 2
                    in_word = False
            elif 0x3400 <= code <= 0x9FFF or 0x3040 <= code <= 0x30FF or 0xF900 <= code <= 0xFAFF or code >= 0x20000:
                han += 1
                words += 1
                in_word = False
            elif code == 0xFF0C or code == 0x3001 or code == 0xFF1B:
                commas += 1
                in_word = False
            elif code == 0x3002 or code == 0xFF01 or code == 0xFF1F or code == 0x2026:
                ends += 1
                last_end = 1
                in_word = False
            elif code == 0x201D or code == 0x300D or code == 0x2019 or code == 0xFF09:
                last_end = 2
                in_word = False
            elif code == 0xFF1A:
                colons += 1
                in_word = False
            elif (
                code == 0x00BB
                or code == 0x00B7
                or code == 0x2022
                or code == 0xFF5C
                or code == 0x203A
                or code == 0x25A0
                or code == 0x25CF
            ):
                bullets += 1
                in_word = False
            elif (
                (code >= 0x2000 and code <= 0x206F)
                or (code >= 0x3000 and code <= 0x303F)
                or (code >= 0xFF00 and code <= 0xFF0F)
            ):
                in_word = False
            else:
                words += not in_word
                in_word = True
        bytes_ = max(stop - at, 1)
        weight = max(words, 1)
        tokens[b] = words
        sentences[b] = ends + 0.5 * commas if words >= 5 else 0.0
        hashes[b] = hashed | np.uint64(1)
        row = out[b]
        row[0] = words
        row[1] = np.log(1.0 + words)
        row[2] = letters / weight
        row[3] = han / weight
        row[4] = digits / max(letters, 1)
        row[5] = upper / max(letters, 1)
        row[6] = commas / weight
        row[7] = ends / weight
        row[8] = colons / weight
        row[9] = bullets / weight
        row[10] = last_end
        row[11] = (
            1.0
            if last == 58 or last == 0xFF1A
            else 2.0
            if last == 44 or last == 0xFF0C
            else 3.0
            if 48 <= last <= 57
            else 0.0
        )
        row[12] = 97 <= first <= 122
        row[13] = 48 <= first <= 57
        row[14] = blocks[b, 3] / bytes_
        row[15] = blocks[b, 4]
        row[16] = blocks[b, 4] / weight
        row[17] = blocks[b, 5] / bytes_
        flags = blocks[b, 6]
        row[18] = flags & 1
        row[19] = (flags >> 1) & 1
        row[20] = (flags >> 2) & 1
        row[21] = (flags >> 3) & 1
        row[22] = (flags >> 4) & 1
        count = 0
        for p in range(_PHRASES):
            hit = (bits >> np.uint32(p)) & np.uint32(1)
            row[_A_PHRASE + p] = hit
            if hit and p < _PHRASES - 2:
                count += 1
        row[26] = count


@kernel
def _features(
    text,
    blocks,
    nodes,
    masks,
    signatures,
    title_start,
    title_end,
    page_type,
    machine,
    tag_slot,
    near,
    page_bits,
    good_bits,
    bad_bits,
    width,
):
    n = len(blocks)
    m = len(nodes)
    out = np.zeros((n, width), np.float32)
    tokens = np.zeros(n, np.float32)
    groups = np.zeros((n, 4), np.int32)
    if n == 0:
        return out, tokens, groups
    sentences = np.zeros(n, np.float32)
    hashes = np.zeros(n, np.uint64)
    same = np.zeros(n, np.int32)
    _block_numbers(text, blocks, machine, out, tokens, sentences, same, hashes)
    # ---- sums over blocks, so that a container's are differences
    sum_tokens = np.zeros(n + 1, np.float64)
    sum_linked = np.zeros(n + 1, np.float64)
    sum_sentences = np.zeros(n + 1, np.float64)
    sum_plain = np.zeros(n + 1, np.float64)
    sum_long = np.zeros(n + 1, np.float64)
    dated = np.zeros(n + 1, np.int32)
    talking = np.zeros(n + 1, np.int32)
    for b in range(n):
        linked = tokens[b] * out[b, 14]
        plain = tokens[b] - linked
        sum_plain[b + 1] = sum_plain[b] + plain
        sum_long[b + 1] = sum_long[b] + (plain if plain >= 15 else 0.0)
        dated[b + 1] = dated[b] + (out[b, 19] > 0 or (out[b, _P_TIME] > 0 and out[b, 4] > 0.08 and tokens[b] <= 30))
        talking[b + 1] = talking[b] + ((out[b, _P_COMMENT] > 0 or out[b, _P_COUNT] > 0) and tokens[b] <= 30)
        sum_tokens[b + 1] = sum_tokens[b] + tokens[b]
        sum_linked[b + 1] = sum_linked[b] + linked
        sum_sentences[b + 1] = sum_sentences[b] + sentences[b] * (1.0 - out[b, 14])
    whole = max(sum_tokens[n], 1.0)
    # ---- equal texts
    room = 4
    while room < 2 * max(n, m):
        room *= 2
    keys = np.zeros(room, np.uint64)
    counts = np.zeros(room, np.int32)
    for b in range(n):
        counts[_slot_of(keys, hashes[b])] += 1
    for b in range(n):
        out[b, 23] = min(counts[_slot_of(keys, hashes[b])] - 1, 5)
    # ---- the title
    title_size = title_end - title_start
    first_title = -1
    for b in range(n):
        size = blocks[b, 1] - blocks[b, 0]
        if 6 <= size <= 400 and title_size >= 6:
            if size <= title_size and _contains(text, title_start, title_end, blocks[b, 0], blocks[b, 1]):
                share = size / title_size
                out[b, 24] = share
                if (share > 0.35 and first_title < 0) or (
                    share > 0.35 and nodes[blocks[b, 2], 1] == _T_H1 and out[first_title, 28] == 0
                ):
                    first_title = b
                    out[b, 28] = nodes[blocks[b, 2], 1] == _T_H1
                out[b, 25] = share > 0.35
    # ---- elements, from the page down
    depth_of = np.full((m, _CATEGORIES), -100, np.int16)
    slots = 26
    tag_depth = np.full((m, slots), -100, np.int16)
    paths = np.zeros(m, np.uint64)
    siblings = np.zeros(m, np.uint64)
    score = np.zeros(m, np.float64)
    for v in range(m):
        parent = nodes[v, 0]
        if parent >= 0:
            for k in range(_CATEGORIES):
                depth_of[v, k] = depth_of[parent, k]
            for k in range(slots):
                tag_depth[v, k] = tag_depth[parent, k]
            above = nodes[parent, 0]
            paths[v] = (signatures[v] * np.uint64(0x9E3779B97F4A7C15)) ^ (
                signatures[parent] * np.uint64(0xC2B2AE3D27D4EB4F)
            ) ^ (signatures[above] if above >= 0 else np.uint64(0)) | np.uint64(1)
            siblings[v] = (signatures[v] ^ (np.uint64(parent + 1) * np.uint64(0x9E3779B97F4A7C15))) | np.uint64(1)
        else:
            paths[v] = 1
            siblings[v] = 1
        mask = masks[v]
        for k in range(_CATEGORIES):
            if (mask >> np.uint32(k)) & np.uint32(1):
                depth_of[v, k] = nodes[v, 2]
        slot = tag_slot[nodes[v, 1]]
        if slot >= 0:
            tag_depth[v, slot] = nodes[v, 2]
    # ---- readability-like scores, and paths
    path_keys = np.zeros(room, np.uint64)
    path_stats = np.zeros((room, 4), np.float64)
    path_slot = np.zeros(n, np.int32)
    for b in range(n):
        v = blocks[b, 2]
        good = sentences[b] * (1.0 - out[b, 14])
        u = v
        share = 1.0
        for _ in range(4):
            if u < 0:
                break
            score[u] += good * share
            share *= 0.5
            u = nodes[u, 0]
        slot = _slot_of(path_keys, paths[v])
        path_slot[b] = slot
        path_stats[slot, 0] += 1
        path_stats[slot, 1] += tokens[b]
        path_stats[slot, 2] += tokens[b] * out[b, 14]
        path_stats[slot, 3] += good
    best = 0
    for v in range(1, m):
        if score[v] > score[best] or best == 0:
            best = v
    best_score = max(score[best], 1e-6)
    # ---- repeated siblings
    sibling_keys = np.zeros(room, np.uint64)
    sibling_stats = np.zeros((room, 3), np.float64)
    # Of each repeated structure: items with a date, with talk of replies, with text, and its first block.
    thread = np.zeros((room, 4), np.float64)
    sibling_slot = np.zeros(m, np.int32)
    sibling_index = np.zeros(m, np.int32)
    for v in range(1, m):
        slot = _slot_of(sibling_keys, siblings[v])
        sibling_slot[v] = slot
        sibling_index[v] = np.int32(sibling_stats[slot, 0])
        first = nodes[v, 3]
        end = nodes[v, 4]
        sibling_stats[slot, 0] += 1
        sibling_stats[slot, 1] += sum_tokens[end] - sum_tokens[first]
        sibling_stats[slot, 2] += sum_linked[end] - sum_linked[first]
        thread[slot, 0] += dated[end] > dated[first]
        thread[slot, 1] += talking[end] > talking[first]
        thread[slot, 2] += sum_plain[end] - sum_plain[first] >= 10
        if sibling_stats[slot, 0] == 1:
            thread[slot, 3] = first
    page_thread = 0.0
    for slot in range(room):
        count = sibling_stats[slot, 0]
        if count >= 2 and thread[slot, 2] >= 0.5 * count and thread[slot, 0] + thread[slot, 1] >= 0.7 * count:
            page_thread = max(page_thread, (sibling_stats[slot, 1] - sibling_stats[slot, 2]) / max(sum_plain[n], 1.0))
    # ---- the page
    lists = 0.0
    long_tokens = 0.0
    longest = 0.0
    han = 0.0
    headings = 0
    times = 0
    in_form = 0.0
    page_counts = np.zeros(7, np.float64)
    for b in range(n):
        if tag_depth[blocks[b, 2], 11] >= 0:
            lists += tokens[b]
        if tokens[b] >= 40 and out[b, 14] < 0.3:
            long_tokens += tokens[b]
        longest = max(longest, tokens[b])
        han += tokens[b] * out[b, 3]
        tag = nodes[blocks[b, 2], 1]
        headings += tag >= _T_H1 and tag <= _T_H6
        times += out[b, 19] > 0
        if tag_depth[blocks[b, 2], 6] >= 0:
            in_form += tokens[b]
    for v in range(m):
        for k in range(7):
            if (masks[v] >> np.uint32(page_bits[k])) & np.uint32(1):
                page_counts[k] += 1
    # ---- rows
    since_heading = 99
    for b in range(n):
        row = out[b]
        v = blocks[b, 2]
        depth = nodes[v, 2]
        tag = nodes[v, 1]
        row[27] = tag
        row[28] = depth
        row[29] = min((blocks[b, 7] - (blocks[b - 1, 7] if b else 0)) / max(tokens[b], 1.0), 2000.0)
        for k in range(_CATEGORIES):
            row[_A_NEAR + k] = depth - depth_of[v, k] if depth_of[v, k] >= 0 else _FAR
        for k in range(slots):
            row[_A_IN + k] = depth - tag_depth[v, k] if tag_depth[v, k] >= 0 else _FAR
        u = v
        column = _A_BOX
        for _ in range(5):
            first = nodes[u, 3]
            end = nodes[u, 4]
            held = sum_tokens[end] - sum_tokens[first]
            row[column] = np.log(1.0 + held)
            row[column + 1] = (sum_linked[end] - sum_linked[first]) / max(held, 1.0)
            row[column + 2] = end - first
            row[column + 3] = (sum_sentences[end] - sum_sentences[first]) / max(held, 1.0)
            row[column + 4] = (b - first) / max(end - first, 1)
            row[column + 5] = score[u] / best_score
            column += 6
            if nodes[u, 0] >= 0:
                u = nodes[u, 0]
        column = _A_PATH
        stats = path_stats[path_slot[b]]
        row[column] = stats[0]
        row[column + 1] = stats[1] / whole
        row[column + 2] = stats[2] / max(stats[1], 1.0)
        row[column + 3] = stats[3] / max(stats[1], 1.0)
        groups[b, 0] = v
        groups[b, 1] = nodes[v, 0] if nodes[v, 0] >= 0 else v
        groups[b, 2] = path_slot[b]
        u = v
        up = 0
        chosen = -1
        chosen_tokens = 0.0
        chosen_up = 0
        while u > 0 and up < 12:
            slot = sibling_slot[u]
            if sibling_stats[slot, 0] >= 3 and sibling_stats[slot, 1] > 1.5 * chosen_tokens:
                chosen = u
                chosen_tokens = sibling_stats[slot, 1]
                chosen_up = up
            u = nodes[u, 0]
            up += 1
        groups[b, 3] = chosen if chosen >= 0 else v
        if chosen >= 0:
            slot = sibling_slot[chosen]
            row[column + 4] = sibling_stats[slot, 0]
            row[column + 5] = sibling_stats[slot, 1] / whole
            row[column + 6] = sibling_stats[slot, 2] / max(sibling_stats[slot, 1], 1.0)
            row[column + 7] = np.log(1.0 + sibling_stats[slot, 1] / sibling_stats[slot, 0])
            row[column + 8] = sibling_index[chosen] / sibling_stats[slot, 0]
            row[column + 9] = chosen_up
            for k in range(3):
                row[column + 10 + k] = thread[slot, k] / sibling_stats[slot, 0]
            start = np.int64(thread[slot, 3])
            row[column + 13] = np.log(1.0 + max(sum_long[start] - sum_long[max(first_title, 0)], 0.0))
            row[column + 14] = min(max(start - first_title, -50), 100) if first_title >= 0 else -99
        else:
            row[column + 9] = -1
        # The best container: inside it, or how far up the two meet.
        column = _A_BEST
        u = best
        up = 0
        while u > 0 and not (nodes[u, 3] <= b and b < nodes[u, 4]):
            u = nodes[u, 0]
            up += 1
        row[column] = up == 0
        row[column + 1] = up
        first = nodes[best, 3]
        end = nodes[best, 4]
        held = sum_tokens[end] - sum_tokens[first]
        row[column + 2] = held / whole
        row[column + 3] = (sum_linked[end] - sum_linked[first]) / max(held, 1.0)
        row[column + 4] = score[v] / best_score
        row[column + 5] = b > 0 and blocks[b - 1, 2] == v
        row[column + 6] = b + 1 < n and blocks[b + 1, 2] == v
        row[column + 7] = depth - nodes[blocks[b - 1, 2], 2] if b else 0
        row[column + 8] = depth - nodes[blocks[b + 1, 2], 2] if b + 1 < n else 0
        column = _A_PLACE
        row[column] = b / n
        row[column + 1] = sum_tokens[b] / whole
        row[column + 2] = min(max(b - first_title, -50), 200) if first_title >= 0 else -99
        row[column + 3] = 0 if first_title < 0 else 1 if b < first_title else 2
        if tag >= _T_H1 and tag <= _T_H6:
            since_heading = 0
        else:
            since_heading = min(since_heading + 1, 99)
        row[column + 4] = since_heading
        row[column + 5] = np.log(1.0 + sum_tokens[b])
        row[column + 6] = np.log(1.0 + sum_tokens[n] - sum_tokens[b + 1])
        row[column + 7] = np.log(whole)
        row[column + 8] = np.log(n)
        row[column + 9] = sum_linked[n] / whole
        row[column + 10] = sum_sentences[n] / whole
        row[column + 11] = han / whole
        row[column + 12] = lists / whole
        row[column + 13] = long_tokens / whole
        row[column + 14] = np.log(1.0 + longest)
        row[column + 15] = in_form / whole
        row[column + 16] = headings
        row[column + 17] = times
        row[column + 18] = first_title >= 0
        row[_A_THREAD] = page_thread
        for k in range(7):
            row[_A_PAGE + k] = min(page_counts[k], 50.0) + (
                100.0 if (page_type >> np.uint32(page_bits[k])) & np.uint32(1) else 0.0
            )
    _story(out, blocks, nodes, tokens, first_title, sum_tokens, sum_linked, sibling_slot, sibling_stats, groups)
    _title_terms(text, title_start, title_end, out, blocks, nodes, groups)
    _reading(out, blocks, nodes, masks, tokens, first_title, sum_tokens, sum_linked, good_bits, bad_bits)
    # ---- neighbours
    for b in range(n):
        column = _A_AROUND
        for offset in (-3, -2, -1, 1, 2, 3):
            other = b + offset
            for k in range(len(near)):
                out[b, column] = out[other, near[k]] if 0 <= other < n else -1.0
                column += 1
    return out, tokens, groups


@subkernel
def _story(out, blocks, nodes, tokens, first_title, sum_tokens, sum_linked, sibling_slot, sibling_stats, groups):
    """Where the block stands in what the headline begins: shared containers, headings and end marks passed."""
    n = len(blocks)
    m = len(nodes)
    whole = max(sum_tokens[n], 1.0)
    on_title = np.zeros(m, np.bool_)
    title_level = 9
    if first_title >= 0:
        u = blocks[first_title, 2]
        tag = nodes[u, 1]
        if tag >= _T_H1 and tag <= _T_H6:
            title_level = tag - _T_H1 + 1
        while u >= 0:
            on_title[u] = True
            u = nodes[u, 0]
    article = np.full(m, -1, np.int32)
    articles = 0
    for v in range(m):
        if nodes[v, 0] >= 0:
            article[v] = article[nodes[v, 0]]
        if nodes[v, 1] == _T_ARTICLE and article[v] < 0:
            article[v] = v
            articles += 1
    order = np.zeros(m, np.int32)
    count = 0
    for v in range(m):
        if article[v] == v:
            order[v] = count
            count += 1
    # Links and linked headings of each repeated structure.
    group_links = np.zeros(len(sibling_stats), np.float64)
    group_heads = np.zeros(len(sibling_stats), np.float64)
    for b in range(n):
        g = groups[b, 3]
        slot = sibling_slot[g]
        tag = nodes[blocks[b, 2], 1]
        group_links[slot] += blocks[b, 4]
        if out[b, 14] > 0.6 and ((tag >= _T_H1 and tag <= _T_H6) or 5 <= tokens[b] <= 60):
            group_heads[slot] += 1
    since = np.full(len(_SINCE_PHRASES), 60, np.int64)
    level = 0
    level_linked = 0.0
    heading_bits = np.zeros(len(_HEADING_PHRASES), np.float32)
    headings_after = 0
    rank = 9
    long_since_title = 0
    links_since_long = 0.0
    longs = 0
    longest = 0.0
    first_long = -1
    for b in range(n):
        longest = max(longest, tokens[b] * (1.0 - out[b, 14]))
    for b in range(n):
        row = out[b]
        v = blocks[b, 2]
        tag = nodes[v, 1]
        column = _A_STORY
        if first_title >= 0:
            u = v
            up = 0
            while not on_title[u]:
                u = nodes[u, 0]
                up += 1
            w = blocks[first_title, 2]
            row[column] = up
            row[column + 1] = nodes[w, 2] - nodes[u, 2]
            row[column + 2] = (sum_tokens[nodes[u, 4]] - sum_tokens[nodes[u, 3]]) / whole
        else:
            row[column] = -1
            row[column + 1] = -1
            row[column + 2] = -1
        row[column + 3] = articles
        a = article[v]
        if a >= 0:
            row[column + 4] = order[a]
            row[column + 5] = (sum_tokens[nodes[a, 4]] - sum_tokens[nodes[a, 3]]) / whole
            row[column + 6] = 2.0 if on_title[a] else 1.0
        else:
            row[column + 4] = -1
            row[column + 5] = -1
        if b == first_title:
            headings_after = 0
            rank = 9
            long_since_title = 0
            for k in range(len(since)):
                since[k] = 60
        elif tag >= _T_H1 and tag <= _T_H6:
            level = tag - _T_H1 + 1
            level_linked = out[b, 14]
            for k in range(len(_HEADING_PHRASES)):
                heading_bits[k] = out[b, _A_PHRASE + _HEADING_PHRASES[k]]
            headings_after += 1
            rank = min(rank, level - title_level)
        row[column + 7] = level
        row[column + 8] = level_linked
        for k in range(len(_HEADING_PHRASES)):
            row[column + 9 + k] = heading_bits[k]
        row[column + 15] = min(headings_after, 30)
        row[column + 16] = rank
        for k in range(len(since)):
            if out[b, _A_PHRASE + _SINCE_PHRASES[k]] > 0 and tokens[b] <= 80:
                since[k] = 0
            else:
                since[k] = min(since[k] + 1, 60)
            row[column + 17 + k] = since[k]
        is_long = tokens[b] >= 25 and out[b, 14] < 0.3
        row[column + 25] = min(long_since_title, 40)
        row[column + 26] = min(links_since_long, 100.0)
        if is_long:
            long_since_title += 1
            links_since_long = 0.0
            longs += 1
            if first_long < 0:
                first_long = b
        else:
            links_since_long += blocks[b, 4]
        g = groups[b, 3]
        slot = sibling_slot[g]
        size = max(sibling_stats[slot, 0], 1.0)
        row[column + 27] = group_links[slot] / size
        row[column + 28] = group_heads[slot] / size
        held = sum_tokens[nodes[g, 4]] - sum_tokens[nodes[g, 3]]
        row[column + 29] = (sum_linked[nodes[g, 4]] - sum_linked[nodes[g, 3]]) / max(held, 1.0)
        row[column + 30] = min(b - first_long, 60) if first_long >= 0 else -1
        row[column + 31] = tokens[b] / max(longest, 1.0)


@subkernel
def _take_term(term, keys, numbers, adding, count):
    """(bit of the term or 0, number of terms)."""
    term |= np.uint64(1)
    slot = np.int64((term ^ (term >> np.uint64(29))) & np.uint64(255))
    while keys[slot] != 0:
        if keys[slot] == term:
            return np.uint64(1) << np.uint64(numbers[slot]), count
        slot = (slot + 1) & 255
    if not adding or count >= 64:
        return np.uint64(0), count
    keys[slot] = term
    numbers[slot] = count
    return np.uint64(1) << np.uint64(count), count + 1


@subkernel
def _terms_of(text, start, stop, keys, numbers, adding, count):
    """Bits of the terms that stand in text[start:stop], and how many terms there are.

    Terms are beginnings of words (six letters, which joins most inflected forms) and pairs of Han characters or kana.
    """
    found = np.uint64(0)
    word = np.uint64(0xCBF29CE484222325)
    letters = 0
    wide = False
    before = 0
    i = start
    while i <= stop:
        code = 32
        size = 1
        if i < stop:
            c = np.int64(text[i])
            if c < 128:
                code = _lower(c)
            else:
                size = 2 if c < 0xE0 else 3 if c < 0xF0 else 4
                code = c & (0x1F if size == 2 else 0x0F if size == 3 else 0x07)
                for j in range(1, min(size, stop - i)):
                    code = (code << 6) | (np.int64(text[i + j]) & 63)
                if 0x0410 <= code <= 0x042F or 0x0391 <= code <= 0x03A9 or 0xC0 <= code <= 0xDE:
                    code += 32
        i += size
        if 0x3040 <= code <= 0x30FF or 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or code >= 0x20000:
            if before > 0:
                bit, count = _take_term(
                    (np.uint64(before) * np.uint64(0x9E3779B97F4A7C15)) ^ (np.uint64(code) << np.uint64(7)),
                    keys,
                    numbers,
                    adding,
                    count,
                )
                found |= bit
            before = code
        else:
            before = 0
            is_letter = (
                97 <= code <= 122
                or 48 <= code <= 57
                or (code >= 0xC0 and not 0x2000 <= code <= 0x303F and not 0xFF00 <= code <= 0xFF0F)
            )
            if is_letter:
                if letters < 6:
                    word = (word ^ np.uint64(code)) * np.uint64(0x100000001B3)
                letters += 1
                wide = code >= 0xAC00
                continue
        if letters >= 4 or (wide and letters >= 2):
            bit, count = _take_term(word, keys, numbers, adding, count)
            found |= bit
        letters = 0
        wide = False
        word = np.uint64(0xCBF29CE484222325)
    return found, count


@subkernel
def _weight_of(bits, weights):
    total = 0.0
    k = 0
    while bits != 0:
        if bits & np.uint64(1):
            total += weights[k]
        bits >>= np.uint64(1)
        k += 1
    return total


@subkernel
def _title_terms(text, title_start, title_end, out, blocks, nodes, groups):
    """How much of the title's words the block and what is around it share: other articles on the page share few."""
    n = len(blocks)
    m = len(nodes)
    keys = np.zeros(256, np.uint64)
    numbers = np.zeros(256, np.int64)
    _, count = _terms_of(text, title_start, title_end, keys, numbers, True, 0)
    if count == 0:
        for b in range(n):
            for k in range(8):
                out[b, _A_TERMS + k] = -1.0
        return
    own = np.zeros(n, np.uint64)
    held = np.zeros(m, np.uint64)
    uses = np.zeros(64, np.int64)
    for b in range(n):
        if out[b, 25] > 0:  # a headline shares all of them
            continue
        bits, _ = _terms_of(text, blocks[b, 0], blocks[b, 1], keys, numbers, False, count)
        own[b] = bits
        held[blocks[b, 2]] |= bits
        k = 0
        while bits != 0:
            if bits & np.uint64(1):
                uses[k] += 1
            bits >>= np.uint64(1)
            k += 1
    for v in range(m - 1, 0, -1):
        held[nodes[v, 0]] |= held[v]
    weights = np.zeros(64, np.float64)
    whole = 0.0
    found = 0
    for k in range(count):
        weights[k] = 1.0 / np.sqrt(max(uses[k], 1))  # what stands everywhere is the site's name
        whole += weights[k]
        found += uses[k] > 0
    best = 0.0
    for b in range(n):
        near = np.uint64(0)
        for k in range(max(b - 3, 0), min(b + 4, n)):
            near |= own[k]
        row = out[b]
        row[_A_TERMS] = _weight_of(own[b], weights) / whole
        row[_A_TERMS + 1] = _weight_of(near, weights) / whole
        best = max(best, row[_A_TERMS + 1])
        u = blocks[b, 2]
        for k in range(3):
            row[_A_TERMS + 2 + k] = _weight_of(held[u], weights) / whole
            if nodes[u, 0] >= 0:
                u = nodes[u, 0]
        row[_A_TERMS + 5] = _weight_of(held[groups[b, 3]], weights) / whole
    for b in range(n):
        out[b, _A_TERMS + 6] = best
        out[b, _A_TERMS + 7] = found / count


@subkernel
def _reading(out, blocks, nodes, masks, tokens, first_title, sum_tokens, sum_linked, good_bits, bad_bits):
    """The one container that reader modes would show: paragraphs score for their parent and half for the one above.

    After the published heuristics of reader modes (Arc90 Readability, 2009): commas and length, tag and class
    weights, link density.
    """
    n = len(blocks)
    m = len(nodes)
    scores = np.zeros(m, np.float64)
    seen = np.zeros(m, np.bool_)
    whole = max(sum_tokens[n], 1.0)
    for b in range(n):
        row = out[b]
        letters = row[0] * row[2]
        if letters < 25:
            continue
        v = blocks[b, 2]
        tag = nodes[v, 1]
        parent = nodes[v, 0] if (tag == _T_P or tag == _T_PRE or tag == _T_TD) and nodes[v, 0] >= 0 else v
        worth = 1.0 + row[6] * max(row[0], 1.0) + min(letters * (1.0 + 1.5 * row[3]) / 100.0, 3.0)
        share = 1.0
        for _ in range(2):
            if parent < 0:
                break
            if not seen[parent]:
                seen[parent] = True
                scores[parent] += _BASE_SCORES[nodes[parent, 1]]
                if masks[parent] & good_bits:
                    scores[parent] += 25
                if masks[parent] & bad_bits:
                    scores[parent] -= 25
            scores[parent] += worth * share
            share *= 0.5
            parent = nodes[parent, 0]
    top = 0
    for v in range(m):
        held = max(sum_tokens[nodes[v, 4]] - sum_tokens[nodes[v, 3]], 1.0)
        scores[v] *= 1.0 - (sum_linked[nodes[v, 4]] - sum_linked[nodes[v, 3]]) / held
        if (seen[v] and scores[v] > scores[top]) or not seen[top]:
            top = v
    best = max(scores[top], 1e-3)
    second = 0.0
    for v in range(m):
        if seen[v] and (nodes[v, 4] <= nodes[top, 3] or nodes[v, 3] >= nodes[top, 4]):
            second = max(second, scores[v])
    above = nodes[top, 0]
    line = max(10.0, 0.2 * best)
    titled = 0.0
    u = top
    up = 0
    while first_title >= 0 and u >= 0:
        if nodes[u, 3] <= first_title and first_title < nodes[u, 4]:
            titled = 1.0 / (1.0 + up)
            break
        u = nodes[u, 0]
        up += 1
    share = (sum_tokens[nodes[top, 4]] - sum_tokens[nodes[top, 3]]) / whole
    for b in range(n):
        row = out[b]
        v = blocks[b, 2]
        u = top
        up = 0
        while u > 0 and not (nodes[u, 3] <= b and b < nodes[u, 4]):
            u = nodes[u, 0]
            up += 1
        row[_A_READ] = up == 0
        row[_A_READ + 2] = up
        if up == 1:
            w = v
            while w > 0 and nodes[w, 0] != above:
                w = nodes[w, 0]
            if w > 0:
                held = max(sum_tokens[nodes[w, 4]] - sum_tokens[nodes[w, 3]], 1.0)
                link_share = (sum_linked[nodes[w, 4]] - sum_linked[nodes[w, 3]]) / held
                row[_A_READ + 1] = scores[w] >= line or (nodes[w, 1] == _T_P and held > 20 and link_share < 0.25)
        elif up == 0:
            row[_A_READ + 1] = 1.0
        row[_A_READ + 3] = share
        row[_A_READ + 4] = second / best
        row[_A_READ + 5] = scores[v] / best
        row[_A_READ + 6] = titled
