"""Which documents a tokenizer learns from: a share of each group, by a hash of the id.

A group is a language and a source. Its share of the budget is stated or, where nothing is, grows with the 0.7th power
of its size, so that a small language is heard without drowning the large ones (XLM, Conneau and Lample 2019, section
3.1). Membership is a function of the id alone, so the sample depends neither on the order of the corpus nor on how
it is cut. A group too small for its stated share is read several times.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from pipelines.errors import ConfigError

Group = tuple[str, str]
EXPONENT = 0.7
_CLAUSE = re.compile(r"[^。！？；，：,;:!?\n]*[。！？；，：,;:!?\n]|[^。！？；，：,;:!?\n]+")


def id_hash(document: str, seed: int = 0) -> int:
    """The 64-bit hash of a document's id that decides samples, shards and the order within them."""
    return xxhash.xxh3_64_intdigest(document.encode(), seed)


def group_sizes(batches: Iterable[pa.RecordBatch]) -> dict[Group, int]:
    """Bytes of text by (language, source)."""
    sizes: dict[Group, int] = {}
    for batch in batches:
        table = pa.table(
            {
                "language": batch["language"],
                "source": batch["source"],
                "size": pc.fill_null(pc.binary_length(batch["text"]), 0),
            }
        )
        for row in table.group_by(["language", "source"], use_threads=False).aggregate([("size", "sum")]).to_pylist():
            group = (row["language"] or "", row["source"] or "")
            sizes[group] = sizes.get(group, 0) + row["size_sum"]
    return sizes


def group_fractions(sizes: Mapping[Group, int], budget_bytes: int) -> dict[Group, float]:
    """The fraction of each group to take, so that about `budget_bytes` are taken in all; at most 1 each.

    What a group is too small to give goes to the others.
    """
    open_groups = {group: size for group, size in sizes.items() if size > 0}
    fractions: dict[Group, float] = dict.fromkeys(sizes, 1.0)
    left = float(budget_bytes)
    while open_groups:
        weight = sum(size**EXPONENT for size in open_groups.values())
        wanted = {group: left * size**EXPONENT / weight / size for group, size in open_groups.items()}
        full = [group for group, fraction in wanted.items() if fraction >= 1.0]
        if not full:
            return fractions | wanted
        for group in full:
            left -= open_groups.pop(group)
    return fractions


def stated_fractions(
    sizes: Mapping[Group, int], shares: Mapping[str, float], budget_bytes: int, most_repeats: float
) -> dict[Group, float]:
    """How often each group is read for the stated shares of the budget, at most `most_repeats`.

    A share is of a language (`zh`) or of a source of it (`zh/crawl`), which is then taken out of the language's. What
    no share names is left out. Shares are weights: they need not sum to 1. Raises ConfigError for one of nothing.
    """
    named: dict[str, list[Group]] = {name: [] for name in shares}
    for group in sizes:
        source = f"{group[0]}/{group[1]}"
        if source in named:
            named[source].append(group)
        elif group[0] in named:
            named[group[0]].append(group)
    if missing := [name for name, groups in named.items() if not sum(sizes[g] for g in groups)]:
        known = sorted({g[0] for g in sizes} | {f"{g[0]}/{g[1]}" for g in sizes})
        raise ConfigError(
            f"shares name {missing}, of which there is no text", mend=f"there are {', '.join(known[:20])}"
        )
    total = sum(shares.values())
    fractions = dict.fromkeys(sizes, 0.0)
    for name, groups in named.items():
        wanted = budget_bytes * shares[name] / total / sum(sizes[g] for g in groups)
        fractions.update(dict.fromkeys(groups, min(wanted, most_repeats)))
    return fractions


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """A document to learn from, and how often it is read."""

    text: str
    language: str
    times: int


def sample(batches: Iterable[pa.RecordBatch], fractions: Mapping[Group, float], seed: int) -> list[Sampled]:
    """The sampled documents, in the order of their hashes (the trainer breaks ties by order).

    A fraction of 2.3 is every document twice and three in ten once more.
    """
    taken: list[tuple[int, str, Sampled]] = []
    for batch in batches:
        columns = (batch[name].to_pylist() for name in ("id", "language", "source"))
        for row, (document, language, source) in enumerate(zip(*columns, strict=True)):
            place = id_hash(document, seed)
            wanted = fractions.get((language or "", source or ""), 0.0)
            times = int(wanted) + (place < (wanted - int(wanted)) * 2.0**64)
            if times:
                text = batch["text"][row].as_py() or ""
                taken.append((place, document, Sampled(text=text, language=language or "", times=times)))
    return [found for _, _, found in sorted(taken, key=lambda one: one[:2])]


def learning_texts(documents: Iterable[Sampled], traditional: float = 0.0) -> Iterator[str]:
    """What the trainer reads: each clause once, then each document as often as its share asks for.

    Of every `1 / traditional` Chinese documents one is read in traditional characters too.
    """
    seen: set[int] = set()
    chinese = 0
    for document in documents:
        text = without_known_clauses(document.text, seen)
        texts = [text]
        if traditional and document.language == "zh":
            chinese += 1
            if int(chinese * traditional) > int((chinese - 1) * traditional):
                texts.append(_in_traditional(text))
        for _ in range(document.times):
            yield from texts


def without_known_clauses(text: str, seen: set[int]) -> str:
    """The text without clauses of six characters or more that are `seen`; the others are added, 8 bytes each.

    What stands in a hundred pages of one template would else count a hundred times.
    """
    kept = []
    for clause in _CLAUSE.findall(text):
        bare = clause.strip()
        if len(bare) >= 6:
            name = xxhash.xxh3_64_intdigest(bare.encode())
            if name in seen:
                continue
            seen.add(name)
        kept.append(clause)
    return "".join(kept)


def _in_traditional(text: str) -> str:
    from pipelines.language.convert import convert

    return convert(text, "hant")
