"""The sample crawl holds what its list says, in bytes that the build gives, and nothing of doubtful licence."""

from __future__ import annotations

import collections
import io
import json
from pathlib import Path

import pytest
import zstandard

from pipelines.crawl.document import DocumentRules, outcome_of
from pipelines.crawl.sources import MemorySource
from pipelines.crawl.warc import Damage, Record, Skipped, read_warc

SAMPLE = Path(__file__).parents[2] / "sample"
LICENCES = {"MPL-2.0", "PostgreSQL", "PSF-2.0", "CC-BY-SA-3.0", "Apache-2.0"}


@pytest.fixture(scope="module")
def notice() -> list[dict]:
    return [json.loads(line) for line in (SAMPLE / "NOTICE.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def items() -> dict[str, list]:
    return {p.name: list(read_warc(MemorySource(p.read_bytes()))) for p in sorted(SAMPLE.glob("*.warc.gz"))}


def test_every_page_on_the_list_is_in_its_file_once(notice, items):
    listed = collections.Counter((row["file"], row["url"]) for row in notice if row["kind"] != "labelled")
    assert set(listed.values()) == {1}
    found = collections.Counter(
        (name, record.target_uri.decode())
        for name, read in items.items()
        for record in read
        if isinstance(record, Record) and "www.misc" not in record.target_uri.decode()
    )
    assert found == listed


def test_licences_allow_redistribution_and_share_alike_pages_are_unchanged(notice):
    assert {row["licence"] for row in notice} == LICENCES
    assert {row["kind"] for row in notice if row["licence"] == "CC-BY-SA-3.0"} == {"page"}
    assert all(row["package"] and row["path"] and row["sha256"] for row in notice if row["kind"] != "junk")


def test_the_crawl_is_small_and_half_chinese(notice):
    assert sum(p.stat().st_size for p in SAMPLE.glob("*.warc.gz")) < 4_000_000
    pages = collections.Counter(row["language"] for row in notice if row["kind"] == "page")
    assert 200 <= pages.total() <= 300
    assert 0.4 <= pages["zh"] / pages.total() <= 0.65


def test_two_files_are_damaged_and_each_costs_one_record(items):
    damages = {name: [i.reason for i in read if isinstance(i, Damage)] for name, read in items.items()}
    assert {name: found for name, found in damages.items() if found} == {
        "sample-00004.warc.gz": ["corrupt_member"],
        "sample-00005.warc.gz": ["truncated_record"],
    }


def test_every_stage_finds_something_to_do(notice, items):
    kinds = collections.Counter(row["kind"] for row in notice)
    assert min(kinds[k] for k in ("exact_dup", "near_dup", "reencoded", "junk")) >= 5
    skipped = collections.Counter(i.record_type for read in items.values() for i in read if isinstance(i, Skipped))
    assert {"warcinfo", "request", "metadata"} <= set(skipped)


@pytest.mark.slow
def test_each_record_has_the_fate_that_was_planned(items):
    fates = collections.Counter()
    charsets = set()
    for name, read in items.items():
        for item in read:
            if not isinstance(item, Skipped):
                outcome = outcome_of(item, name, DocumentRules())
                fates[outcome.ledger["reason"] if outcome.ledger else "kept"] += 1
                charsets.add(outcome.document["charset"] if outcome.document else None)
    assert fates == {
        "kept": 317,
        "http_status": 18,
        "not_html": 12,
        "too_deep": 6,
        "empty": 6,
        "corrupt_member": 1,
        "truncated_record": 1,
    }
    assert {"utf-8", "gb18030", "big5hkscs"} <= charsets


def test_labelled_lines_are_balanced_and_of_both_languages():
    body = (SAMPLE / "quality.jsonl.zst").read_bytes()
    lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body)), "utf-8")
    rows = [json.loads(line) for line in lines]
    counts = collections.Counter((row["language"], row["label"]) for row in rows)
    assert counts == {("zh", "good"): 300, ("zh", "bad"): 300, ("en", "good"): 300, ("en", "bad"): 300}
    assert all(row["text"] and row["domain"] for row in rows)
