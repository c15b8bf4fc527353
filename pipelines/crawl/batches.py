"""Records of a unit -> batches of documents, measures and ledger rows, each as columns.

A batch holds at most so many bytes of pages, so what a worker holds does not grow with the unit.  All that is done to
texts is done to a batch at once.  Rows do not depend on where a batch ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipelines.crawl.document import Candidate, DocumentRules, candidate_of, ledger_row, record_key
from pipelines.crawl.domain import registered_domain
from pipelines.crawl.items import Item, Skipped
from pipelines.crawl.pages import Found, PageExtractor
from pipelines.datasets.content import key_hashes
from pipelines.datasets.schemas import DOCUMENTS, LEDGER
from pipelines.filters.measures import measure
from pipelines.language.identify import identify_all
from pipelines.language.script import script_of

BATCH_BYTES = 8 << 20
BATCH_RECORDS = 1_000


@dataclass(slots=True, kw_only=True)
class Batch:
    """Rows of some records.  `accounts`: (count, sum of key hashes) by account of the books; `stats`: counts."""

    documents: pa.Table
    measures: pa.Table
    ledger: pa.Table
    accounts: dict[str, tuple[int, int]]
    stats: dict[str, int]


@dataclass(slots=True)
class _Gathered:
    """What the records of a batch gave before the pages are looked at."""

    candidates: list[Candidate] = field(default_factory=list)
    ledger: list[dict[str, Any]] = field(default_factory=list)
    fates: list[tuple[str, bytes]] = field(default_factory=list)  # (account, key) of each record
    size: int = 0
    skipped: int = 0

    def refuse(self, row: dict[str, Any], key: bytes) -> None:
        self.ledger.append(row)
        self.fates.append((f"{row['verdict']}.{row['reason']}", key))


def batches(
    items: Iterable[Item], file: str, rules: DocumentRules, *, batch_bytes: int = BATCH_BYTES
) -> Iterator[Batch]:
    """Every item in exactly one batch, in order; at least one batch, which may be empty."""
    extractor = PageExtractor(rules.page)
    gathered = _Gathered()
    given = False
    for item in items:
        if isinstance(item, Skipped):
            gathered.skipped += 1
            continue
        found = candidate_of(item, file, rules)
        if isinstance(found, Candidate):
            gathered.candidates.append(found)
            gathered.size += len(found.page.body)
        else:
            gathered.refuse(found, record_key(item.file or file, item.offset, item.index))
        if gathered.size >= batch_bytes or len(gathered.candidates) + len(gathered.ledger) >= BATCH_RECORDS:
            yield finish_batch(gathered, rules, extractor)
            gathered, given = _Gathered(), True
    if not given or gathered.size or gathered.ledger or gathered.skipped:
        yield finish_batch(gathered, rules, extractor)


def finish_batch(gathered: _Gathered, rules: DocumentRules, extractor: PageExtractor) -> Batch:
    """Extract, identify, measure; the columns."""
    pages = extract_pages(extractor, gathered.candidates)
    kept: list[tuple[Candidate, Found]] = []
    for candidate, page in zip(gathered.candidates, pages, strict=True):
        if page.reason is None:
            kept.append((candidate, page))
        else:
            row = _row(candidate, page.reason, value=page.value, threshold=page.threshold, detail=page.detail)
            gathered.refuse(row, candidate.key)
    languages = identify_all(page.text for _, page in kept)
    if rules.languages is not None:
        wanted = []
        for (candidate, page), (language, score) in zip(kept, languages, strict=True):
            if language in rules.languages:
                wanted.append((candidate, page, language, score))
            else:
                gathered.refuse(_row(candidate, "language", value=score, detail=language), candidate.key)
        kept, languages = [row[:2] for row in wanted], [row[2:] for row in wanted]
    gathered.fates += [("kept", candidate.key) for candidate, _ in kept]
    table = _documents(kept, languages, rules)
    return Batch(
        documents=table,
        measures=measure(table["text"]).add_column(0, DOCUMENTS.field("id"), table["id"]),
        ledger=_ledger(gathered.ledger),
        accounts=_accounts(gathered.fates),
        stats=_stats(gathered, pages),
    )


def extract_pages(extractor: PageExtractor, candidates: list[Candidate]) -> list[Found]:
    """What each candidate's page holds."""
    return extractor.extract([candidate.page for candidate in candidates])


def _documents(
    kept: list[tuple[Candidate, Found]], languages: list[tuple[str, float]], rules: DocumentRules
) -> pa.Table:
    n = len(kept)
    columns: dict[str, Any] = {
        "id": [c.id for c, _ in kept],
        "text": [p.text for _, p in kept],
        "url": [c.url for c, _ in kept],
        "date": [c.date for c, _ in kept],
        "published": [p.date for _, p in kept],
        "title": [p.title for _, p in kept],
        "language": [language for language, _ in languages],
        "language_score": [score for _, score in languages],
        "script": [script_of(p.text, language) for (_, p), (language, _) in zip(kept, languages, strict=True)],
        "charset": [p.charset for _, p in kept],
        "source": pa.repeat(rules.source, n),
        "source_type": pa.repeat(rules.source_type, n),
        "domain": [registered_domain(c.domain) for c, _ in kept],
        "file": [c.file for c, _ in kept],
        "offset": [c.offset for c, _ in kept],
        "length": [c.length for c, _ in kept],
        "extractor": [p.extractor for _, p in kept],
    }
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type) for f in DOCUMENTS]
    return pa.Table.from_arrays(arrays, schema=DOCUMENTS)


def _ledger(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_arrays([pa.array([r[f.name] for r in rows], f.type) for f in LEDGER], schema=LEDGER)


def _row(candidate: Candidate, reason: str, **told: Any) -> dict[str, Any]:
    return ledger_row(candidate, candidate.file, reason, id=candidate.id, url=candidate.url, **told)


def _accounts(fates: list[tuple[str, bytes]]) -> dict[str, tuple[int, int]]:
    """Each key is hashed once, for `read` and for its own account."""
    sums: dict[str, tuple[int, int]] = {}
    total = 0
    for (account, _), hashed in zip(fates, key_hashes(key for _, key in fates), strict=True):
        n, have = sums.get(account, (0, 0))
        sums[account] = (n + 1, have + hashed)
        total += hashed
    sums["read"] = (len(fates), total)
    return sums


def _stats(gathered: _Gathered, pages: list[Found]) -> dict[str, int]:
    stats = {
        "skipped_records": gathered.skipped,
        "broken_characters": sum(page.broken for page in pages),
        "pages_with_broken_characters": sum(page.broken > 0 for page in pages),
        "repaired_pages": sum(page.repaired for page in pages),
    }
    return {name: n for name, n in stats.items() if n or name == "skipped_records"}
