"""Common Crawl by its index: the right pages are fetched, once each, in few requests, and nothing else."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.crawl.cc_index import PLAN_SCHEMA, PageChoice, plan_hashes, plan_pages, ranges_of
from pipelines.crawl.document import VERDICTS
from pipelines.crawl.fetch import FetchRules
from pipelines.crawl.inputs import list_inputs, open_source
from pipelines.crawl.plan_reader import open_fetch_store, plan_root, read_plan, read_planned_page
from pipelines.crawl.records import InputSettings, read_record_at, read_records
from pipelines.crawl.seen import SeenSet, hashes_of, write_seen
from pipelines.crawl.sources import StoreSource
from pipelines.crawl.warc import Damage, Record, WarcBounds
from pipelines.datasets.store import MemoryStore, open_store
from pipelines.errors import InputError, StoreError
from tests.sample.warc_writer import member, response_record
from tests.unit.crawl.http_server import serving

QUICK = FetchRules(requests_per_second=1000, first_wait_seconds=0.01, attempts=3)
LANGUAGES = ("zho", "eng", "zho,eng", "eng,zho", None, "deu")


def _crawl(files: int = 3, pages: int = 40) -> tuple[dict[str, bytes], list[dict]]:
    """Archives by name, and their index, in the order of URLs as the real one is."""
    archives, rows = {}, []
    for f in range(files):
        name, body = f"crawl-data/segments/{f}/warc/{f:05d}.warc.gz", b""
        for n in range(pages):
            url = f"https://mill{n % 7}.example/{f}/{n}"
            page = random.Random(url).randbytes(400).hex().encode()
            stored = member(response_record(url, page))
            rows.append(
                {
                    "url": url, "url_host_name": f"mill{n % 7}.example", "fetch_status": 404 if n % 10 == 9 else 200,
                    "content_mime_detected": "application/pdf" if n % 11 == 10 else "text/html",
                    "content_languages": LANGUAGES[n % 6], "content_digest": f"D{f}{n}",
                    "warc_filename": name, "warc_record_offset": len(body), "warc_record_length": len(stored),
                }
            )  # fmt: skip
            body += stored
        archives[name] = body
    return archives, sorted(rows, key=lambda row: row["url"])


def _index(rows: list[dict]) -> tuple[MemoryStore, list[tuple[str, int]]]:
    """Two index files."""
    store, files = MemoryStore(), []
    for n, part in enumerate((rows[: len(rows) // 2], rows[len(rows) // 2 :])):
        sink = pa.BufferOutputStream()
        table = pa.Table.from_pylist(part)
        table = table.set_column(
            table.schema.get_field_index("fetch_status"), "fetch_status", table["fetch_status"].cast(pa.int16())
        )
        pq.write_table(table, sink, row_group_size=17)
        store.put(f"{n}.parquet", sink.getvalue().to_pybytes())
        files.append((f"{n}.parquet", store.head(f"{n}.parquet").size_bytes))
    return store, files


def _wanted(rows: list[dict]) -> list[dict]:
    return [
        row
        for row in rows
        if row["fetch_status"] == 200
        and row["content_mime_detected"] == "text/html"
        and "zho" in (row["content_languages"] or "").split(",")
    ]


def _read(plans: MemoryStore, settings: InputSettings) -> list:
    items = []
    for row in list_inputs(plans, "*.fetch.parquet").to_pylist():
        source = open_source(plans, row["file"], row["size_bytes"])
        items += read_records(source, form=row["form"], start=row["start"], end=row["end"], settings=settings)
    return items


def test_the_wanted_pages_and_no_others_are_fetched():
    archives, rows = _crawl()
    plans = MemoryStore()
    choice = PageChoice(unit_pages=7, plan_pages=50)
    with serving(archives) as server:
        report = plan_pages(*_index(rows), plans, fetch_root=server.root, choice=choice)
        settings = InputSettings(fetch=QUICK)
        items = _read(plans, settings)
        asked = len(server.asked)
    wanted = {row["url"]: row for row in _wanted(rows)}
    assert len(wanted) > 20 and len(report.files) >= 2
    assert all(isinstance(item, Record) for item in items)
    assert sorted(item.target_uri.decode() for item in items) == sorted(wanted)
    for item in items:
        row = wanted[item.target_uri.decode()]
        assert (item.file, item.offset, item.length) == (
            row["warc_filename"], row["warc_record_offset"], row["warc_record_length"],
        )  # fmt: skip
        source = StoreSource(_store(archives), item.file, len(archives[item.file]))
        assert read_record_at(source, offset=item.offset).body == item.body
        assert read_planned_page(_store(archives), item.file, item.offset, item.length, bounds=WarcBounds()) == item
    assert report.counters["indexed"] == len(rows) == sum(report.dropped.values()) + report.counters["pages"]
    assert settings.counters["pages"] == report.counters["pages"] == len(items)
    assert settings.counters["gets"] == report.counters["gets"] == settings.counters["http_requests"] == asked
    assert settings.counters["get_bytes"] == report.counters["get_bytes"] == settings.counters["http_bytes"]


def _store(objects: dict[str, bytes]) -> MemoryStore:
    store = MemoryStore()
    for key, body in objects.items():
        store.put(key, body)
    return store


def test_neighbours_share_a_request_and_the_pages_are_the_same():
    archives, rows = _crawl(1, 60)
    gets, pages = [], []
    for gap in (0, 1000, 1 << 20):
        plans = MemoryStore()
        report = plan_pages(*_index(rows), plans, fetch_root="x", choice=PageChoice(gap_bytes=gap))
        settings = InputSettings(fetch=QUICK, fetch_store=_store(archives))
        pages.append(_read(plans, settings))
        gets.append(report.counters["gets"])
    assert gets[0] > gets[1] > gets[2] == 1
    assert pages[0] == pages[1] == pages[2]


def test_plans_do_not_depend_on_how_the_index_is_cut():
    _, rows = _crawl()
    one, two = MemoryStore(), MemoryStore()
    plan_pages(*_index(rows), one, fetch_root="x")
    store, files = _index(rows[::-1])
    plan_pages(store, files, two, fetch_root="x")
    assert one.objects == two.objects


def test_what_earlier_crawls_have_is_dropped_before_it_is_fetched(tmp_path):
    archives, rows = _crawl()
    first, later = MemoryStore(), MemoryStore()
    choice = PageChoice()
    half = [row for row in rows if "/0/" in row["url"]]
    plan_pages(*_index(half), first, fetch_root="x", choice=choice)
    plan = StoreSource(first, "00000.fetch.parquet", first.head("00000.fetch.parquet").size_bytes)
    write_seen(tmp_path / "urls", plan_hashes(plan, "url"))
    wanted = _wanted(rows)
    copies = [row["content_digest"] for row in wanted if "/1/" in row["url"]][:4]
    write_seen(tmp_path / "payloads", [hashes_of(copies)])
    report = plan_pages(
        *_index(rows), later, fetch_root="x", choice=choice,
        seen_urls=SeenSet(tmp_path / "urls"), seen_payloads=SeenSet(tmp_path / "payloads"),
    )  # fmt: skip
    old = _wanted(half)
    assert report.dropped["seen_url"] == len(old) and report.dropped["seen_payload"] == 4
    items = _read(later, InputSettings(fetch=QUICK, fetch_store=_store(archives)))
    kept = {row["url"] for row in wanted} - {row["url"] for row in old}
    kept -= {row["url"] for row in wanted if row["content_digest"] in copies}
    assert {item.target_uri.decode() for item in items} == kept
    saved = [row for row in wanted if row["url"] not in kept]
    assert report.counters["bytes_saved"] == sum(row["warc_record_length"] for row in saved)
    assert report.cpu_saved_seconds(0.5) == len(saved) / 2
    assert f'"pages": {len(kept)}' in report.to_json()


def test_languages_by_first_or_any_or_none():
    _, rows = _crawl()
    counts = [
        plan_pages(*_index(rows), MemoryStore(), fetch_root="x", choice=choice).counters["pages"]
        for choice in (PageChoice(first_language_only=True), PageChoice(), PageChoice(languages=None))
    ]
    assert 0 < counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize(
    "change",
    [
        {"warc_filename": "../../etc/passwd"}, {"warc_filename": "/etc/passwd"}, {"warc_filename": "a//b"},
        {"warc_filename": None}, {"warc_filename": "a\x00b"}, {"warc_filename": "a b"},
        {"warc_record_offset": -1}, {"warc_record_length": 0}, {"warc_record_length": 1 << 40},
        {"warc_record_offset": None},
    ],
)  # fmt: skip
def test_an_index_row_that_names_nothing_sound_is_dropped_and_counted(change):
    _, rows = _crawl(1, 12)
    for row in rows[:6]:
        row.update(fetch_status=200, content_mime_detected="text/html", content_languages="zho")
    rows[0].update(change)
    report = plan_pages(*_index(rows), MemoryStore(), fetch_root="x")
    assert report.dropped["invalid"] == 1


def test_a_page_that_is_not_what_the_index_says_costs_itself():
    archives, rows = _crawl(1, 60)
    wanted = sorted(_wanted(rows), key=lambda row: row["warc_record_offset"])
    name = wanted[0]["warc_filename"]
    wanted[1]["url"] = "https://elsewhere.example/"
    wanted[2]["warc_record_length"] -= 9
    wanted[3]["warc_record_offset"] += 5
    wanted[4].update(warc_record_length=wanted[4]["warc_record_length"] + 700)
    spoilt = bytearray(archives[name])
    spoilt[wanted[5]["warc_record_offset"] + 200] ^= 255
    plans = MemoryStore()
    plan_pages(*_index(rows), plans, fetch_root="x", choice=PageChoice(gap_bytes=0))
    items = _read(plans, InputSettings(fetch=QUICK, fetch_store=_store({name: bytes(spoilt[:-100])})))
    bad = [item for item in items if isinstance(item, Damage)]
    assert len(items) == len(wanted) and len(bad) in (5, 6)
    assert {(item.file, item.offset) for item in bad} >= {(name, row["warc_record_offset"]) for row in wanted[1:6]}
    assert {item.reason for item in bad} <= VERDICTS.keys()


def test_a_server_that_refuses_stops_the_reading_with_its_reason():
    archives, rows = _crawl(1, 12)
    plans = MemoryStore()
    with serving(archives) as server:
        server.mischief = [lambda handler, _: handler.reply(403, b"") or True] * 50
        plan_pages(*_index(rows), plans, fetch_root=server.root)
        with pytest.raises(StoreError, match="refuses"):
            _read(plans, InputSettings(fetch=QUICK))


def test_plans_in_a_folder_and_archives_in_a_folder(tmp_path):
    archives, rows = _crawl(2, 30)
    for name, body in archives.items():
        (tmp_path / "cc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cc" / name).write_bytes(body)
    plan_pages(*_index(rows), open_store(tmp_path / "plan"), fetch_root=str(tmp_path / "cc"))
    plans = open_store(tmp_path / "plan")
    assert len(_read(plans, InputSettings())) == len(_wanted(rows))
    plan = StoreSource(plans, "00000.fetch.parquet", plans.head("00000.fetch.parquet").size_bytes)
    assert open_fetch_store(plan_root(plan)).get_ranges(next(iter(archives)), [(0, 2)]) == [b"\x1f\x8b"]


def test_what_is_no_index_or_no_plan_is_refused_with_its_name():
    store = _store({"a.parquet": b"PAR1xxxxPAR1", "b.fetch.parquet": b"nothing"})
    with pytest.raises(InputError, match=r"a\.parquet"):
        plan_pages(store, [("a.parquet", 12)], MemoryStore(), fetch_root="x")
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"url": ["x"]}), sink)
    store.put("c.parquet", sink.getvalue().to_pybytes())
    with pytest.raises(InputError, match="warc_filename"):
        plan_pages(store, [("c.parquet", len(store.get("c.parquet")))], MemoryStore(), fetch_root="x")
    with pytest.raises(InputError, match="plan"):
        list_inputs(store, "*.fetch.parquet")
    with pytest.raises(InputError, match="plan"):
        list(read_plan(StoreSource(store, "b.fetch.parquet", 7), bounds=WarcBounds()))
    sink = pa.BufferOutputStream()
    pq.write_table(PLAN_SCHEMA.empty_table(), sink)
    store.put("d", sink.getvalue().to_pybytes())
    with pytest.raises(InputError, match="root"):
        list(read_plan(StoreSource(store, "d", len(store.get("d"))), bounds=WarcBounds()))


def test_ranges_never_cross_archives():
    rows = pa.table(
        {
            "warc_filename": ["a", "a", "b"], "warc_record_offset": [0, 10, 0], "warc_record_length": [10, 10, 10],
            "url": ["1", "2", "3"], "content_digest": ["", "", ""], "content_languages": ["", "", ""],
        }
    )  # fmt: skip
    assert list(ranges_of(rows, 100)) == [("a", 0, 20, [0, 1]), ("b", 0, 10, [2])]


def test_the_python_of_the_document_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archives, _ = _crawl()
    (tmp_path / "crawl").mkdir()
    for key, body in archives.items():
        (tmp_path / "crawl" / key.rpartition("/")[2]).write_bytes(body)
    text = (Path(__file__).parents[3] / "docs" / "inputs.md").read_text()
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    assert isinstance(names["item"], Record)
