"""Numbers that tell main text from the rest, one row a block, all from one page's `Scan`.

A row holds the block itself, its elements (nearest ancestor with each word category or tag, sizes and link density of
the containers around it), repeated structures (siblings of one kind, blocks with one path), a readability-like score
of its containers, its place on the page, and a few numbers of its neighbours. What a block weighs is counted in
tokens: a Han character or kana, or a run of other letters and digits.
"""

from __future__ import annotations

import numpy as np

from pipelines.crawl.html.blocktext import block_numbers, contains
from pipelines.crawl.html.columns import (
    A_AROUND,
    A_BEST,
    A_BOX,
    A_IN,
    A_NEAR,
    A_PAGE,
    A_PATH,
    A_PLACE,
    A_THREAD,
    BAD_BITS,
    CATEGORIES,
    FAR,
    FEATURES,
    GOOD_BITS,
    NEAR_COLUMNS,
    P_COMMENT,
    P_COUNT,
    P_TIME,
    PAGE_BITS,
    T_H1,
    T_H6,
    TAG_SLOT,
)
from pipelines.crawl.html.scan import Scan
from pipelines.crawl.html.story import reading, story
from pipelines.crawl.html.tables import automaton_of
from pipelines.crawl.html.titleterms import title_terms
from pipelines.kernels import kernel, subkernel


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
        TAG_SLOT,
        NEAR_COLUMNS,
        PAGE_BITS,
        GOOD_BITS,
        BAD_BITS,
        len(FEATURES),
    )


@subkernel
def slot_of(keys, key):
    """The place of the key in an open-addressed table, which it takes if it is new."""
    size = len(keys) - 1
    slot = np.int64((key ^ (key >> np.uint64(29))) & np.uint64(size))
    while keys[slot] != 0 and keys[slot] != key:
        slot = (slot + 1) & size
    keys[slot] = key
    return slot


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
    block_numbers(text, blocks, machine, out, tokens, sentences, same, hashes)
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
        dated[b + 1] = dated[b] + (out[b, 19] > 0 or (out[b, P_TIME] > 0 and out[b, 4] > 0.08 and tokens[b] <= 30))
        talking[b + 1] = talking[b] + ((out[b, P_COMMENT] > 0 or out[b, P_COUNT] > 0) and tokens[b] <= 30)
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
        counts[slot_of(keys, hashes[b])] += 1
    for b in range(n):
        out[b, 23] = min(counts[slot_of(keys, hashes[b])] - 1, 5)
    # ---- the title
    title_size = title_end - title_start
    first_title = -1
    for b in range(n):
        size = blocks[b, 1] - blocks[b, 0]
        if 6 <= size <= 400 and title_size >= 6:
            if size <= title_size and contains(text, title_start, title_end, blocks[b, 0], blocks[b, 1]):
                share = size / title_size
                out[b, 24] = share
                if (share > 0.35 and first_title < 0) or (
                    share > 0.35 and nodes[blocks[b, 2], 1] == T_H1 and out[first_title, 28] == 0
                ):
                    first_title = b
                    out[b, 28] = nodes[blocks[b, 2], 1] == T_H1
                out[b, 25] = share > 0.35
    # ---- elements, from the page down
    depth_of = np.full((m, CATEGORIES), -100, np.int16)
    slots = 26
    tag_depth = np.full((m, slots), -100, np.int16)
    paths = np.zeros(m, np.uint64)
    siblings = np.zeros(m, np.uint64)
    score = np.zeros(m, np.float64)
    for v in range(m):
        parent = nodes[v, 0]
        if parent >= 0:
            for k in range(CATEGORIES):
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
        for k in range(CATEGORIES):
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
        slot = slot_of(path_keys, paths[v])
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
        slot = slot_of(sibling_keys, siblings[v])
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
        headings += tag >= T_H1 and tag <= T_H6
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
        for k in range(CATEGORIES):
            row[A_NEAR + k] = depth - depth_of[v, k] if depth_of[v, k] >= 0 else FAR
        for k in range(slots):
            row[A_IN + k] = depth - tag_depth[v, k] if tag_depth[v, k] >= 0 else FAR
        u = v
        column = A_BOX
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
        column = A_PATH
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
        column = A_BEST
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
        column = A_PLACE
        row[column] = b / n
        row[column + 1] = sum_tokens[b] / whole
        row[column + 2] = min(max(b - first_title, -50), 200) if first_title >= 0 else -99
        row[column + 3] = 0 if first_title < 0 else 1 if b < first_title else 2
        if tag >= T_H1 and tag <= T_H6:
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
        row[A_THREAD] = page_thread
        for k in range(7):
            row[A_PAGE + k] = min(page_counts[k], 50.0) + (
                100.0 if (page_type >> np.uint32(page_bits[k])) & np.uint32(1) else 0.0
            )
    story(out, blocks, nodes, tokens, first_title, sum_tokens, sum_linked, sibling_slot, sibling_stats, groups)
    title_terms(text, title_start, title_end, out, blocks, nodes, groups)
    reading(out, blocks, nodes, masks, tokens, first_title, sum_tokens, sum_linked, good_bits, bad_bits)
    # ---- neighbours
    for b in range(n):
        column = A_AROUND
        for offset in (-3, -2, -1, 1, 2, 3):
            other = b + offset
            for k in range(len(near)):
                out[b, column] = out[other, near[k]] if 0 <= other < n else -1.0
                column += 1
    return out, tokens, groups
