"""Records of a unit -> batches of documents, measures and ledger rows, each as columns.

A batch holds at most so many bytes of pages, so what a worker holds does not grow with the unit.  All that is done to
texts is done to a batch at once.  Rows do not depend on where a batch ends.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.crawl.document import Candidate, DocumentRules, candidate_of, ledger_row, record_key
from pipelines.crawl.domain import registered_domain
from pipelines.crawl.items import Item, Skipped
from pipelines.crawl.pages import Found, PageExtractor
from pipelines.crawl.signals import refused_by
from pipelines.datasets.content import key_hashes
from pipelines.datasets.schemas import DOCUMENTS, LEDGER
from pipelines.filters.clean import clean
from pipelines.filters.facts import Facts
from pipelines.filters.measures import measure
from pipelines.language.convert import KEEP, ROUTE, apply_policy
from pipelines.language.identify import open_identifier
from pipelines.language.variety import route_of, variety_of

BATCH_BYTES = 8 << 20
BATCH_RECORDS = 1_000


@dataclass(slots=True, kw_only=True)
class Batch:
    """Rows of some records.  `accounts`: (count, sum of key hashes) by account of the books; `characters`:
    in, out and removed by reason; `stats`: counts.
    """

    documents: pa.Table
    measures: pa.Table
    ledger: pa.Table
    accounts: dict[str, tuple[int, int]]
    characters: dict[str, int]
    stats: dict[str, int]


@dataclass(slots=True, kw_only=True)
class _Kept:
    """A page on its way to a document."""

    candidate: Candidate
    page: Found
    text: str = ""
    original: str | None = None
    language: str = ""
    score: float = 0.0
    script: str | None = None
    route: str | None = None


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
    """Extract, identify, clean, convert, measure; the columns."""
    pages = extract_pages(extractor, gathered.candidates)
    kept: list[_Kept] = []
    for candidate, page in zip(gathered.candidates, pages, strict=True):
        if page.reason is not None:
            told = {"value": page.value, "threshold": page.threshold, "detail": page.detail}
            gathered.refuse(_row(candidate, page.reason, **told), candidate.key)
        elif rules.opt_out == "drop" and (signal := refused_by(page.opt_out, rules.refused_signals)):
            gathered.refuse(_row(candidate, "opt_out", detail=signal), candidate.key)
        else:
            kept.append(_Kept(candidate=candidate, page=page))
    _identify(kept, rules)
    for row in kept:
        if not rules.wants(row.language):
            gathered.refuse(_row(row.candidate, "language", value=row.score, detail=row.language), row.candidate.key)
    kept = [row for row in kept if rules.wants(row.language)]
    kept, counts, facts = _clean(kept, rules, gathered)
    if _convert(kept, rules):
        facts = None  # of the texts before
    if (left := _without_listed(kept, rules, gathered)) is not kept:
        kept, facts = left, None
    gathered.fates += [("kept", row.candidate.key) for row in kept]
    table = _documents(kept, rules)
    return Batch(
        documents=table,
        measures=measure(table["text"], facts).add_column(0, DOCUMENTS.field("id"), table["id"]),
        ledger=_ledger(gathered.ledger),
        accounts=_accounts(gathered.fates),
        characters=counts,
        stats=_stats(gathered, pages),
    )


def _identify(kept: list[_Kept], rules: DocumentRules) -> None:
    """Language, score and script of each text."""
    for row, (language, score) in zip(kept, identify_texts([row.page.text for row in kept], rules), strict=True):
        row.score = score
        row.language, row.script = variety_of(row.page.text, language)
        row.text = row.page.text


def identify_texts(texts: list[str], rules: DocumentRules) -> list[tuple[str, float]]:
    """(language, share of the model) of each text."""
    identifier = open_identifier(*rules.page.model)
    return [identifier.identify(text) for text in texts]


def _clean(
    kept: list[_Kept], rules: DocumentRules, gathered: _Gathered
) -> tuple[list[_Kept], dict[str, int], Facts | None]:
    """What is left after line rules and masking; characters in, out and removed by reason; facts where they are known.

    A text of which nothing is left is refused, and none of its changes are told.
    """
    counts: Counter[str] = Counter()
    changes: dict[int, list[dict[str, Any]]] = defaultdict(list)
    facts = None
    if rules.clean is not None and kept:
        texts = pa.array([row.text for row in kept], pa.string())
        cleaned = clean(texts, [row.language for row in kept], source_type=rules.source_type, rules=rules.clean)
        for change in cleaned.changes.to_pylist():
            changes[change["row"]].append(change)
        for n in changes:
            kept[n].text = cleaned.texts[n].as_py()
        facts = cleaned.facts
    left = []
    for n, row in enumerate(kept):
        if not row.text.strip():
            lost = ", ".join(change["reason"] for change in changes[n])
            gathered.refuse(_row(row.candidate, "empty", detail=f"nothing is left: {lost}"[:200]), row.candidate.key)
            continue
        left.append(row)
        counts["in"] += len(row.page.text)
        counts["out"] += len(row.text)
        for change in changes.get(n, ()):
            counts[f"removed.{change['reason']}"] += change["characters"]
            told = {"verdict": "changed", "value": float(change["count"]), "detail": change["detail"]}
            gathered.ledger.append(_row(row.candidate, change["reason"], **told))
    return left, dict(counts), facts if len(left) == len(kept) else None


def _convert(kept: list[_Kept], rules: DocumentRules) -> bool:
    """The script policy; whether a text changed."""
    if rules.script == KEEP:
        return False
    for row in kept:
        if rules.script == ROUTE:
            row.route = route_of(row.language, row.script)
        else:
            row.text, row.original = apply_policy(row.text, row.language, row.script, rules.script)
    return any(row.original is not None for row in kept)


def _without_listed(kept: list[_Kept], rules: DocumentRules, gathered: _Gathered) -> list[_Kept]:
    """Without texts and documents that were asked to be taken down; what the ledger tells of them is taken back."""
    listed = rules.takedowns
    if listed is None or not kept or not (len(listed.texts) or len(listed.ids)):
        return kept
    from pipelines.takedown.requests import text_digests

    texts = text_digests(pa.array([row.text for row in kept], pa.large_string()))
    by_text = pc.fill_null(pc.is_in(texts, listed.texts), False).to_pylist()
    by_id = pc.is_in(pa.array([row.candidate.id for row in kept], pa.string()), listed.ids).to_pylist()
    gone = {row.candidate.id for row, a, b in zip(kept, by_text, by_id, strict=True) if a or b}
    if not gone:
        return kept
    for told in gathered.ledger:
        if told["id"] in gone:
            told.update(url=None, detail=None, excerpt=None)
    for row in kept:
        if row.candidate.id in gone:
            known = {"id": row.candidate.id, "detail": "text"}
            gathered.refuse(ledger_row(row.candidate, row.candidate.file, "takedown", **known), row.candidate.key)
    return [row for row in kept if row.candidate.id not in gone]


def extract_pages(extractor: PageExtractor, candidates: list[Candidate]) -> list[Found]:
    """What each candidate's page holds."""
    return extractor.extract([candidate.page for candidate in candidates])


def _documents(kept: list[_Kept], rules: DocumentRules) -> pa.Table:
    pages = [row.page for row in kept]
    candidates = [row.candidate for row in kept]
    columns: dict[str, Any] = {
        "id": [c.id for c in candidates],
        "text": [row.text for row in kept],
        "url": [c.url or None for c in candidates],
        "date": [c.date for c in candidates],
        "published": [c.published or p.date for c, p in zip(candidates, pages, strict=True)],
        "title": [c.title or p.title for c, p in zip(candidates, pages, strict=True)],
        "language": [row.language for row in kept],
        "language_score": [row.score for row in kept],
        "script": [row.script for row in kept],
        "charset": [p.charset for p in pages],
        "source": pa.repeat(rules.source, len(kept)),
        "source_type": pa.repeat(rules.source_type, len(kept)),
        "domain": [registered_domain(c.host) if c.host else None for c in candidates],
        "file": [c.file for c in candidates],
        "offset": [c.offset for c in candidates],
        "length": [c.length for c in candidates],
        "extractor": [p.extractor for p in pages],
        "opt_out": [p.opt_out if rules.opt_out != "keep" else None for p in pages],
        "license": [p.license for p in pages],
        "original_text": [row.original for row in kept],
        "route": [row.route for row in kept],
    }
    return pa.Table.from_arrays([pa.array(columns[f.name], f.type) for f in DOCUMENTS], schema=DOCUMENTS)


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
    """Counts for the manifest; those of charsets and of loss are over all pages that were decoded."""
    stats: Counter[str] = Counter()
    stats["skipped_records"] = gathered.skipped
    for page in pages:
        stats[f"decoded_by.{page.how}"] += 1
        if page.broken:
            stats["pages_with_broken_characters"] += 1
            stats["broken_characters"] += page.broken
            stats[f"broken_by_charset.{page.charset}"] += page.broken
        if page.repaired:
            stats["repaired_pages"] += 1
    return dict(stats)
