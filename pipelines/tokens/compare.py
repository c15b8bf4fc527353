"""What a tokenizer makes of texts: length, words, bytes, rare tokens, by group; as a table, as JSON, as a plot.

A group is a language and a domain (the registered domain or the source type, as the caller has it). Words are what
white space parts; a Han character or kana counts as a word of its own, so fertility can be told of Chinese too.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.tokens.vocabularies import ComparedTokenizer

RARE = 5  # a token met fewer times than this in all the texts is rare
_HAN = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_HAN}]|[^\\s{_HAN}]+")
_COLOURS = ("#3b6ea5", "#c8553d", "#5b8c5a", "#8d6a9f", "#d49a3a", "#4a4e69", "#77a6b6", "#9c6644")
_BATCH = 256


def compare(groups: Mapping[str, Sequence[str]], tokenizers: Sequence[ComparedTokenizer]) -> list[dict[str, Any]]:
    """A row for each tokenizer and group, then one for all groups together (`group` is "all").

    Keys: tokenizer, vocabulary, group, characters, bytes, words, tokens, tokens_per_character, bytes_per_token,
    fertility (tokens a word), byte_share (tokens that are bytes), rare_share (tokens met fewer than RARE times in all
    texts), vocabulary_used.
    """
    rows = []
    for tokenizer in tokenizers:
        counts = {name: _count(tokenizer, texts) for name, texts in groups.items()}
        total: Counter[int] = sum(counts.values(), Counter())
        rare = {token for token, n in total.items() if n < RARE}
        for name, texts in groups.items():
            rows.append(_row(tokenizer, name, texts, counts[name], rare))
        everything = [text for texts in groups.values() for text in texts]
        rows.append(_row(tokenizer, "all", everything, total, rare))
    return rows


def _count(tokenizer: ComparedTokenizer, texts: Sequence[str]) -> Counter[int]:
    counted: Counter[int] = Counter()
    for at in range(0, len(texts), _BATCH):
        for ids in tokenizer.encode(texts[at : at + _BATCH]):
            counted.update(ids)
    return counted


def _row(
    tokenizer: ComparedTokenizer, group: str, texts: Sequence[str], counted: Counter[int], rare: set[int]
) -> dict[str, Any]:
    characters, size = sum(map(len, texts)), sum(len(text.encode("utf-8", "replace")) for text in texts)
    words = sum(len(_WORD.findall(text)) for text in texts)
    tokens = counted.total()
    return {
        "tokenizer": tokenizer.name,
        "vocabulary": tokenizer.size,
        "group": group,
        "characters": characters,
        "bytes": size,
        "words": words,
        "tokens": tokens,
        "tokens_per_character": _ratio(tokens, characters),
        "bytes_per_token": _ratio(size, tokens),
        "fertility": _ratio(tokens, words),
        "byte_share": _ratio(sum(n for token, n in counted.items() if token in tokenizer.byte_ids), tokens),
        "rare_share": _ratio(sum(n for token, n in counted.items() if token in rare), tokens),
        "vocabulary_used": _ratio(len(counted), tokenizer.size),
    }


def _ratio(a: int, b: int) -> float:
    return round(a / b, 4) if b else 0.0


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of the rows, tokens a character first."""
    heads = ("group", "tokenizer", "vocabulary", "tokens_per_character", "bytes_per_token", "fertility", "byte_share",
             "rare_share", "vocabulary_used")  # fmt: skip
    lines = ["| " + " | ".join(head.replace("_", " ") for head in heads) + " |", "|" + " --- |" * len(heads)]
    groups = list(dict.fromkeys(row["group"] for row in rows))
    for group in groups:
        for row in rows:
            if row["group"] == group:
                lines.append("| " + " | ".join(str(row[head]).replace("|", "/") for head in heads) + " |")
    return "\n".join(lines) + "\n"


def as_svg(rows: Sequence[Mapping[str, Any]], measure: str = "tokens_per_character") -> str:
    """A bar for each tokenizer in each group; lower is better for the default measure."""
    groups = list(dict.fromkeys(row["group"] for row in rows))
    names = list(dict.fromkeys(row["tokenizer"] for row in rows))
    values = {(row["group"], row["tokenizer"]): float(row[measure]) for row in rows}
    top = max(values.values(), default=0.0) or 1.0
    bar, gap, label, width = 14, 12, 150, 420
    block = bar * len(names) + gap
    height = block * len(groups) + 40 + 16 * len(names)
    made = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{label + width + 70}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        f'<text x="4" y="14" font-weight="bold">{html.escape(measure.replace("_", " "))}</text>',
    ]
    for i, name in enumerate(names):
        colour = _COLOURS[i % len(_COLOURS)]
        made.append(f'<rect x="4" y="{22 + 16 * i}" width="10" height="10" fill="{colour}"/>')
        made.append(f'<text x="20" y="{31 + 16 * i}">{html.escape(name)}</text>')
    for g, group in enumerate(groups):
        y = 34 + 16 * len(names) + g * block
        made.append(f'<text x="4" y="{y + block / 2 - 4}">{html.escape(group[:24])}</text>')
        for i, name in enumerate(names):
            value = values.get((group, name), 0.0)
            long = round(width * value / top, 1)
            at, colour = y + i * bar, _COLOURS[i % len(_COLOURS)]
            made.append(f'<rect x="{label}" y="{at}" width="{long}" height="{bar - 2}" fill="{colour}"/>')
            made.append(f'<text x="{label + long + 4}" y="{at + 10}">{value:g}</text>')
    return "\n".join([*made, "</svg>"]) + "\n"
