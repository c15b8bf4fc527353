"""Which documents a tokenizer learns from: a share of each group, by a hash of the id.

A group is a language and a source. Its share of the budget grows with the 0.7th power of its size, so that a
small language is heard without drowning the large ones (XLM, Conneau and Lample 2019, section 3.1).
Membership is a function of the id alone, so the sample depends neither on the order of the corpus nor on how
it is cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

Group = tuple[str, str]
EXPONENT = 0.7


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


def sample(batches: Iterable[pa.RecordBatch], fractions: Mapping[Group, float], seed: int) -> list[str]:
    """Texts of the sampled documents, in the order of their hashes (the trainer breaks ties by order)."""
    taken: list[tuple[int, str, str]] = []
    for batch in batches:
        columns = (batch[name].to_pylist() for name in ("id", "language", "source"))
        for row, (document, language, source) in enumerate(zip(*columns, strict=True)):
            place = id_hash(document, seed)
            if place < fractions.get((language or "", source or ""), 0.0) * 2.0**64:
                taken.append((place, document, batch["text"][row].as_py() or ""))
    return [text for _, _, text in sorted(taken)]
