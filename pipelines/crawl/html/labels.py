"""Pages with their main text: how they are read, compared with an extraction, and turned into labels of blocks.

A file of labels is JSON lines (plain, .gz or .zst), one row a page: `set`, `id`, `domain`, `lang`, `html` and
`html_codec` (the bytes are `html.encode(html_codec)`), `encoding` (in which those bytes are text), `gold` (main text,
or null where a page has segments only), `must` and `must_not` (segments that have to be, or must not be, in the
output).

Token F1 as CleanEval-like evaluations count it: Han characters and kana one by one, other runs of word characters
whole, after NFKC and lower-casing; multiset overlap. Lines that are the headline count on neither side, because label
sets disagree on whether it belongs to the text.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

_HAN_KANA = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_TOKEN = re.compile(f"[{_HAN_KANA}]|[^\\W{_HAN_KANA}]+")
_GRAM = 4
_LEAST_TITLE_SHARE = 0.35
_LEAST_SEGMENT = 4


def read_pages(folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of every file of labels in the folder, in name order."""
    for path in sorted(folder.glob("*.jsonl*")):
        with _open(path) as lines:
            for line in lines:
                if line.strip():
                    yield json.loads(line)


def _open(path: Path) -> io.TextIOBase:
    if path.suffix == ".zst":
        import zstandard

        reader = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(
            path.open("rb"), read_across_frames=True
        )
        return io.TextIOWrapper(reader, "utf-8")
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def page_bytes(row: dict[str, Any]) -> bytes:
    """The page as it was served."""
    return row["html"].encode(row["html_codec"])


def tokens(text: str) -> list[str]:
    """What is counted."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", text or "").lower())


def token_scores(text: str, gold: str) -> tuple[float, float, float]:
    """(precision, recall, F1); of two empty texts all 1."""
    found, wanted = Counter(tokens(text)), Counter(tokens(gold))
    if not found or not wanted:
        return (1.0, 1.0, 1.0) if not found and not wanted else (0.0, 0.0, 0.0)
    overlap = sum((found & wanted).values())
    precision, recall = overlap / sum(found.values()), overlap / sum(wanted.values())
    return precision, recall, 2 * precision * recall / (precision + recall) if overlap else 0.0


def segment_hits(text: str, must: list[str], must_not: list[str]) -> tuple[int, int, int, int]:
    """(wanted segments found, wanted, unwanted segments found, unwanted), white space ignored."""
    whole = _folded(text)
    return (
        sum(_folded(segment) in whole for segment in must),
        len(must),
        sum(_folded(segment) in whole for segment in must_not),
        len(must_not),
    )


def is_headline(line: str, title: str) -> bool:
    """Whether the line is the page's title, or most of it."""
    short, whole = "".join(tokens(line)), "".join(tokens(title))
    return len(short) >= 4 and short in whole and len(short) >= _LEAST_TITLE_SHARE * len(whole)


def without_headline(text: str, title: str) -> str:
    """The lines that are not the headline."""
    return "\n".join(line for line in text.split("\n") if not is_headline(line, title))


def block_labels(blocks: list[str], gold: str) -> np.ndarray:
    """(n,) float32: share of each block's 4-grams that the gold text has; -1 for a block without tokens.

    A block of fewer than four tokens is main text where it is a line of the gold text, or stands in it beside its
    neighbour.
    """
    wanted = tokens(gold)
    grams = {tuple(wanted[i : i + _GRAM]) for i in range(len(wanted) - _GRAM + 1)}
    lines = {"".join(tokens(line)) for line in gold.split("\n")}
    joined = f" {' '.join(wanted)} "
    cut = [tokens(block) for block in blocks]
    labels = np.full(len(blocks), -1.0, np.float32)
    for number, own in enumerate(cut):
        if len(own) >= _GRAM:
            shingles = [tuple(own[i : i + _GRAM]) for i in range(len(own) - _GRAM + 1)]
            labels[number] = sum(shingle in grams for shingle in shingles) / len(shingles)
        elif own:
            before = next((other[-3:] for other in reversed(cut[:number]) if other), [])
            after = next((other[:3] for other in cut[number + 1 :] if other), [])
            labels[number] = "".join(own) in lines or any(
                len(piece) >= 3 and f" {' '.join(piece)} " in joined for piece in (before + own, own + after)
            )
    return labels


def segment_labels(blocks: list[str], must: list[str], must_not: list[str]) -> np.ndarray:
    """(n,) float32 for a page with segments only: 1 and 0 for the blocks that hold one, -1 for all others.

    A segment found in many blocks tells nothing about any of them.
    """
    labels = np.full(len(blocks), -1.0, np.float32)
    folded = [_folded(block) for block in blocks]
    for segments, label, most in ((must, 1.0, 3), (must_not, 0.0, 8)):
        for segment in map(_folded, segments):
            if len(segment) < _LEAST_SEGMENT:
                continue
            found = [n for n, own in enumerate(folded) if segment in own or (len(own) >= 12 and own in segment)]
            if len(found) <= most:
                labels[found] = label
    return labels


def page_groups(pages: list[dict[str, Any]]) -> list[str]:
    """A name a page: equal for pages of one registered domain and for those that share text (near duplicates)."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    holders: dict[int, str] = {}
    for page in pages:
        words = tokens(page["gold"] or "")
        shared: Counter[str] = Counter()
        for i in range(max(len(words) - 19, 0)):
            digest = xxhash.xxh3_64_intdigest(" ".join(words[i : i + 20]).encode())
            if digest % 16 == 0:
                shared[holders.setdefault(digest, page["domain"])] += 1
        for domain, count in shared.items():
            if count >= 3:
                a, b = sorted((root(domain), root(page["domain"])))
                parent[b] = a
    return [root(page["domain"]) for page in pages]


def _folded(text: str) -> str:
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text or "").lower())
