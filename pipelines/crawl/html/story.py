"""Where a block stands in what the headline begins, and in what a reader mode would show."""

from __future__ import annotations

import numpy as np

from pipelines.crawl.html.columns import (
    A_PHRASE,
    A_READ,
    A_STORY,
    BASE_SCORES,
    HEADING_PHRASES,
    SINCE_PHRASES,
    T_ARTICLE,
    T_H1,
    T_H6,
    T_P,
    T_PRE,
    T_TD,
)
from pipelines.kernels import subkernel


@subkernel
def story(out, blocks, nodes, tokens, first_title, sum_tokens, sum_linked, sibling_slot, sibling_stats, groups):
    """Where the block stands in what the headline begins: shared containers, headings and end marks passed."""
    n = len(blocks)
    m = len(nodes)
    whole = max(sum_tokens[n], 1.0)
    on_title = np.zeros(m, np.bool_)
    title_level = 9
    if first_title >= 0:
        u = blocks[first_title, 2]
        tag = nodes[u, 1]
        if tag >= T_H1 and tag <= T_H6:
            title_level = tag - T_H1 + 1
        while u >= 0:
            on_title[u] = True
            u = nodes[u, 0]
    article = np.full(m, -1, np.int32)
    articles = 0
    for v in range(m):
        if nodes[v, 0] >= 0:
            article[v] = article[nodes[v, 0]]
        if nodes[v, 1] == T_ARTICLE and article[v] < 0:
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
        if out[b, 14] > 0.6 and ((tag >= T_H1 and tag <= T_H6) or 5 <= tokens[b] <= 60):
            group_heads[slot] += 1
    since = np.full(len(SINCE_PHRASES), 60, np.int64)
    level = 0
    level_linked = 0.0
    heading_bits = np.zeros(len(HEADING_PHRASES), np.float32)
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
        column = A_STORY
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
        elif tag >= T_H1 and tag <= T_H6:
            level = tag - T_H1 + 1
            level_linked = out[b, 14]
            for k in range(len(HEADING_PHRASES)):
                heading_bits[k] = out[b, A_PHRASE + HEADING_PHRASES[k]]
            headings_after += 1
            rank = min(rank, level - title_level)
        row[column + 7] = level
        row[column + 8] = level_linked
        for k in range(len(HEADING_PHRASES)):
            row[column + 9 + k] = heading_bits[k]
        row[column + 15] = min(headings_after, 30)
        row[column + 16] = rank
        for k in range(len(since)):
            if out[b, A_PHRASE + SINCE_PHRASES[k]] > 0 and tokens[b] <= 80:
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
def reading(out, blocks, nodes, masks, tokens, first_title, sum_tokens, sum_linked, good_bits, bad_bits):
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
        parent = nodes[v, 0] if (tag == T_P or tag == T_PRE or tag == T_TD) and nodes[v, 0] >= 0 else v
        worth = 1.0 + row[6] * max(row[0], 1.0) + min(letters * (1.0 + 1.5 * row[3]) / 100.0, 3.0)
        share = 1.0
        for _ in range(2):
            if parent < 0:
                break
            if not seen[parent]:
                seen[parent] = True
                scores[parent] += BASE_SCORES[nodes[parent, 1]]
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
        row[A_READ] = up == 0
        row[A_READ + 2] = up
        if up == 1:
            w = v
            while w > 0 and nodes[w, 0] != above:
                w = nodes[w, 0]
            if w > 0:
                held = max(sum_tokens[nodes[w, 4]] - sum_tokens[nodes[w, 3]], 1.0)
                link_share = (sum_linked[nodes[w, 4]] - sum_linked[nodes[w, 3]]) / held
                row[A_READ + 1] = scores[w] >= line or (nodes[w, 1] == T_P and held > 20 and link_share < 0.25)
        elif up == 0:
            row[A_READ + 1] = 1.0
        row[A_READ + 3] = share
        row[A_READ + 4] = second / best
        row[A_READ + 5] = scores[v] / best
        row[A_READ + 6] = titled
