"""Pages made to hang or blow up a crawl worker: the worst CPU and memory a page, ours beside the peers'.

    python -m tests.benchmarks.stuck_pages [--only NAME] [--limit-seconds 30] [--bytes N]

Every page is built here.  Ours is what the job does with a record: read it out of its WARC member, undo its encodings,
decode, check the bounds, extract.  A peer gets the body with its encodings undone by the standard library, and is run
in the same killable child with the same limits; one that overruns is shown as `> 30 s`.  A fresh child for each.
`--bytes` cuts the pages that are not compressed: what the job extracts without a child is below its `isolate_bytes`.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipelines.crawl.sandbox import RaisedError, Sandbox, StuckError
from tests.sample.warc_writer import member, response_record

MEMORY_BYTES = 4 << 30
PEERS = ("trafilatura", "lxml", "selectolax", "resiliparse")
URL = "https://mill.example/stuck"
_SENTENCE = "The stones turn slowly and the grain becomes flour, as it always has. "


def pages() -> Iterator[tuple[str, bytes, tuple[tuple[str, str], ...]]]:
    """(name, stored body, HTTP headers)."""
    for name, body in _markup_pages():
        yield name, f"<html><head><title>t</title></head><body>{body}</body></html>".encode(), ()
    gzipped = (("Content-Encoding", "gzip"),)
    yield "gzip_bomb_200mb", gzip.compress(bytes(200 << 20)), gzipped
    yield "gzip_in_gzip_1gb", gzip.compress(_squeezed_zeros(1 << 30)), (("Content-Encoding", "gzip, gzip"),)
    yield "deflate_bomb_200mb", zlib.compress(b"<p>" * (70 << 20), 9), (("Content-Encoding", "deflate"),)
    if importlib.util.find_spec("brotli"):
        import brotli

        yield "brotli_bomb_200mb", brotli.compress(bytes(200 << 20), quality=5), (("Content-Encoding", "br"),)
    if importlib.util.find_spec("zstandard"):
        import zstandard

        body = zstandard.ZstdCompressor().compress(bytes(200 << 20))
        yield "zstd_bomb_200mb", body, (("Content-Encoding", "zstd"),)
    yield "chunks_of_one_byte", b"1\r\nx\r\n" * 800_000 + b"0\r\n\r\n", (("Transfer-Encoding", "chunked"),)


def _markup_pages() -> Iterator[tuple[str, str]]:
    article = f"<article>{f'<p>{_SENTENCE * 5}</p>' * 8}</article>"
    yield "deep_div_20k", "<div>" * 20_000 + "deep" + "</div>" * 20_000
    yield "deep_div_490", ("<div>" * 490 + _SENTENCE + "</div>" * 490) * 100
    yield "unclosed_b_i_20k", "<b><i>" * 10_000 + _SENTENCE
    yield "unclosed_fonts_a_paragraph", "".join(f"<p><font size={n}>{_SENTENCE}" for n in range(4_000))
    yield "nested_anchors_20k", "<a href=x>" * 20_000 + _SENTENCE
    yield "misnested_in_table", "<table>" + f"<a><b>{_SENTENCE}<tr>" * 8_000
    yield "nested_tables_2k", "<table><tr><td>" * 2_000 + _SENTENCE
    yield "nested_lists_490", "<ul><li>" * 245 + _SENTENCE + "</ul>" * 245 + article
    yield "attributes_100k", "<div " + " ".join(f"a{n}=1" for n in range(100_000)) + f">{_SENTENCE}</div>"
    yield "attributes_990_x_400", (("<p " + " ".join(f"a{n}=1" for n in range(990)) + ">x</p>") * 400)
    yield "classes_of_1mb", f"<div class='{'content ' * 130_000}'>{_SENTENCE * 9}</div>"
    yield "one_line_5mb", f"<p>{_SENTENCE * 70_000}</p>"
    yield "one_word_4mb", "<p>" + "x" * (4 << 20) + "</p>"
    yield "one_chinese_line_4mb", "<p>" + "磨盘缓缓转动" * 230_000 + "</p>"
    yield "paragraphs_49k", "<p>mill</p>" * 49_000
    yield "breaks_95k", "mill<br>" * 95_000
    yield "links_45k", "<a href=/x>mill</a> " * 45_000
    yield "list_items_45k", "<ul>" + "<li><a href=/x>mill</a>" * 45_000 + "</ul>"
    yield "table_cells_81k", "<table>" + ("<tr>" + "<td>1" * 9) * 9_000 + "</table>"
    yield "comments_600k", "<!--x-->" * 600_000 + article
    yield "open_comments", "<!--" * 1_000_000
    yield "open_tags", "<a " * 1_200_000
    yield "open_quotes", "<a b='" * 600_000
    yield "less_than_signs", "<" * 4_000_000
    yield "entities_800k", "<p>" + "&amp;" * 800_000
    yield "numeric_entities", "<p>" + "&#x4e00;" * 500_000
    yield "json_ld_author", '<script type="application/ld+json">' + '"author":"' * 400_000 + f"</script>{article}"
    yield "metas_90k", "".join(f"<meta name=date content='2020-01-{n % 28 + 1}'>" for n in range(90_000)) + article
    yield "dates_400k", "<p>" + "2020-01-01 " * 400_000
    yield "combining_marks_1m", "<p>a" + "\u0301" * 1_000_000
    yield "textareas_45k", "<textarea>x</textarea>" * 45_000 + article
    yield "svg_nested_490", "<svg><foreignObject>" * 240 + _SENTENCE + article
    yield "end_tags_95k", "</p>" * 95_000 + article
    yield "same_paragraph_20k", f"<p>{_SENTENCE}</p>" * 20_000
    yield "spaces_4mb", "<p>x" + " " * (4 << 20) + "y</p>"
    yield "line_ends_4mb", "<pre>x" + "\n" * (4 << 20) + "y</pre>"


def ours(record: bytes) -> dict[str, Any]:
    """Cost and fate of a record in the job's own code; runs in a child."""
    from pipelines.crawl.document import DocumentRules, outcome_of
    from pipelines.crawl.sources import MemorySource
    from pipelines.crawl.warc import read_warc

    def work() -> str:
        fates = []
        for item in read_warc(MemorySource(record)):
            outcome = outcome_of(item, "stuck", DocumentRules())
            fates.append((outcome.ledger or {}).get("reason") or f"{len((outcome.document or {})['text'])} characters")
        return ", ".join(fates)

    return _measured(work)


def peer(name: str, body: bytes, headers: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Cost of a body in a peer; runs in a child."""
    engine = _peer_engine(name)

    def work() -> str:
        text = engine(_plain_body(body, dict(headers)))
        return f"{len(text)} characters" if text else "nothing"

    return _measured(work)


def warm_up() -> None:
    """Imports and compilation of ours, outside the bounds."""
    page = f"<html><body><article>{f'<p>{_SENTENCE * 5}</p>' * 8}</article></body></html>".encode()
    ours(member(response_record(URL, page)))


def _peer_engine(name: str) -> Callable[[bytes], str | None]:
    if name == "trafilatura":
        import trafilatura

        return lambda body: trafilatura.extract(body)
    if name == "lxml":
        import lxml.html

        return lambda body: lxml.html.fromstring(body).text_content()
    if name == "selectolax":
        from selectolax.lexbor import LexborHTMLParser

        return lambda body: LexborHTMLParser(body).body.text()
    from resiliparse.extract.html2text import extract_plain_text

    return lambda body: extract_plain_text(body.decode("utf-8", "replace"), main_content=True)


def _plain_body(body: bytes, headers: dict[str, str]) -> bytes:
    """Encodings undone as a script of every day does: all of it, in memory."""
    for name in reversed(headers.get("Content-Encoding", "").split(", ")):
        if name == "gzip":
            body = gzip.decompress(body)
        elif name == "deflate":
            body = zlib.decompress(body)
        elif name == "br":
            import brotli

            body = brotli.decompress(body)
        elif name == "zstd":
            import zstandard

            body = zstandard.ZstdDecompressor().decompress(body)
    return body


def _measured(work: Callable[[], str]) -> dict[str, Any]:
    before = _memory_kb("VmRSS")
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    begun = time.process_time()
    try:
        fate = work()
    except Exception as error:  # noqa: BLE001  a peer that raises is a result
        fate = type(error).__name__
    cpu = time.process_time() - begun
    return {"cpu_s": round(cpu, 4), "peak_mb": round(max(0, _memory_kb("VmHWM") - before) / 1000, 1), "fate": fate}


def _memory_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def _squeezed_zeros(size: int) -> bytes:
    packer, out, block = zlib.compressobj(9, zlib.DEFLATED, 31), [], bytes(1 << 20)
    for _ in range(size >> 20):
        out.append(packer.compress(block))
    return b"".join([*out, packer.flush()])


def _run(box: Sandbox, *args: Any) -> dict[str, Any]:
    try:
        return box.call(*args)
    except StuckError as error:
        return {"cpu_s": None, "peak_mb": None, "fate": f"{error.reason}: {error.detail}"}
    except RaisedError as error:
        return {"cpu_s": None, "peak_mb": None, "fate": f"raised {error.kind}"}
    finally:
        box.close()


def main() -> None:
    """All pages through all tools."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", help="pages whose name holds this")
    parser.add_argument("--limit-seconds", type=float, default=30.0)
    parser.add_argument("--bytes", type=int, default=None, help="cut pages to so many bytes")
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    here = __spec__.name if __spec__ else "tests.benchmarks.stuck_pages"
    there = [name for name in PEERS if importlib.util.find_spec(name) and not options.no_peers]
    for name in set(PEERS) - set(there):
        sys.stderr.write(f"{name}: not measured\n")
    bounds = {"seconds": options.limit_seconds, "memory_bytes": MEMORY_BYTES}
    boxes = {name: Sandbox(f"{here}:peer", **bounds) for name in there}
    own = Sandbox(f"{here}:ours", prepare=f"{here}:warm_up", **bounds)
    rows: dict[str, dict[str, Any]] = {}
    sys.stderr.write(f"{'page':28}{'ours':>24}" + "".join(f"{name:>20}" for name in there) + "   fate of ours\n")
    for name, body, headers in pages():
        if options.only and not any(part in name for part in options.only):
            continue
        body = body if headers else body[: options.bytes]
        row = {"ours": _run(own, member(response_record(URL, body, headers=headers)))}
        row |= {tool: _run(box, tool, body, headers) for tool, box in boxes.items()}
        rows[name] = row
        cells = "".join(f"{_cell(row[tool], options.limit_seconds):>20}" for tool in there)
        sys.stderr.write(f"{name:28}{_cell(row['ours'], options.limit_seconds):>24}{cells}   {row['ours']['fate']}\n")
    worst = {tool: _worst(rows, tool, options.limit_seconds) for tool in ("ours", *there)}
    for tool, value in worst.items():
        sys.stderr.write(f"worst of {tool}: {value}\n")
    found = {
        "name": "stuck_pages",
        "worst_cpu_s": worst["ours"]["cpu_s"],
        "worst_peak_mb": worst["ours"]["peak_mb"],
        "ended": worst["ours"]["ended"],
        "peers": {tool: worst.get(tool) for tool in PEERS},
        "pages": rows,
        "limit_seconds": options.limit_seconds,
        "bytes": options.bytes,
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in there},
    }
    sys.stdout.write(json.dumps(found) + "\n")


def _cell(found: dict[str, Any], limit: float) -> str:
    if found["cpu_s"] is not None:
        return f"{found['cpu_s']:.3f} s {found['peak_mb']:.0f} MB"
    return f"> {limit:g} s" if found["fate"].startswith("page_time") else found["fate"].partition(":")[0]


def _worst(rows: dict[str, dict[str, Any]], tool: str, limit: float) -> dict[str, Any]:
    """Largest CPU (the limit where one was ended for time) and peak memory, with the page, and how many were ended."""
    cost = {name: row[tool]["cpu_s"] if row[tool]["cpu_s"] is not None else limit for name, row in rows.items()}
    peak = {name: row[tool]["peak_mb"] or 0.0 for name, row in rows.items()}
    slow, large = max(cost, key=cost.__getitem__), max(peak, key=peak.__getitem__)
    return {
        "cpu_s": cost[slow],
        "cpu_page": slow,
        "peak_mb": peak[large],
        "peak_page": large,
        "ended": sum(row[tool]["cpu_s"] is None for row in rows.values()),
    }


if __name__ == "__main__":
    main()
