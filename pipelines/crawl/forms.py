"""The form of an input file, by its name: how it is read and whether a reader can begin in its middle.

A name of no known form that a pattern meant is taken for an archive of records, whose reader judges by the bytes.
"""

from __future__ import annotations

_SUFFIXES = {
    "warc": (".warc", ".warc.gz", ".warc.zst", ".warc.lz4"),
    "wet": (".wet", ".wet.gz", ".wet.zst"),
    "arc": (".arc", ".arc.gz", ".arc.zst", ".arc.lz4"),
    "wacz": (".wacz",),
    "html": (".html", ".htm", ".xhtml"),
    "jsonl": (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz", ".json.gz"),
    "parquet": (".parquet",),
    "cc_plan": (".fetch.parquet",),
}
FORMS = tuple(_SUFFIXES)
ARCHIVE_FORMS = frozenset({"warc", "wet", "arc", "wacz"})
_BY_SUFFIX = sorted(((suffix, form) for form, all_ in _SUFFIXES.items() for suffix in all_), key=lambda i: -len(i[0]))
_READ_FROM_THE_START = (".jsonl.gz", ".jsonl.zst", ".ndjson.gz", ".json.gz")


def form_of(name: str, *, guess: bool = True) -> str | None:
    """One of FORMS; for a name of no known form `warc`, or None where `guess` is False."""
    lower = name.lower()
    for suffix, form in _BY_SUFFIX:
        if lower.endswith(suffix):
            return form
    return "warc" if guess else None


def can_be_cut(name: str) -> bool:
    """Whether a unit may begin inside the file; lines in one compressed stream have no start but the first."""
    return form_of(name) != "html" and not name.lower().endswith(_READ_FROM_THE_START)
