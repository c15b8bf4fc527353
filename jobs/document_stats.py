"""Statistics of documents, as the manifests of extraction and filtering hold them."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

DOMAINS_PER_UNIT = 1000


class DocumentStats:
    """Characters, and documents by language, script, charset, source and domain (the 1,000 largest of a unit)."""

    _COLUMNS = ("language", "script", "charset", "source", "source_type")

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self._characters = 0
        self._counts: dict[str, Counter[str | None]] = {name: Counter() for name in (*self._COLUMNS, "domain")}

    def add(self, table: pa.Table) -> None:
        """Count rows of documents."""
        self._characters += pc.sum(pc.utf8_length(table["text"])).as_py() or 0
        for name, counts in self._counts.items():
            for pair in pc.value_counts(table[name]).to_pylist():
                counts[pair["values"]] += pair["counts"]

    def values(self, prefix: str = "") -> dict[str, int]:
        """By the names that statistics have in a manifest."""
        found = {f"{prefix}characters": self._characters}
        for column in self._COLUMNS:
            found |= {f"{prefix}by_{column}.{v}": n for v, n in self._counts[column].items() if v is not None}
        # Equal counts are cut by name, not by the order of the rows.
        domains = sorted(self._counts["domain"].items(), key=lambda pair: (-pair[1], pair[0] or ""))
        return found | {f"{prefix}by_domain.{name or 'unknown'}": n for name, n in domains[:DOMAINS_PER_UNIT]}


def document_stats(table: pa.Table, prefix: str = "") -> dict[str, int]:
    """`DocumentStats` of one table."""
    stats = DocumentStats()
    stats.add(table)
    return stats.values(prefix)
