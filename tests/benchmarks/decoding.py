"""Decoding: the share of pages whose text comes out equal to the UTF-8 original's, beside the peers'.

`python -m tests.benchmarks.decoding` prints a table on stderr and one JSON line on stdout. Correct UTF-8 pages are
written in legacy charsets (only those that come back unchanged) under a right, a missing or a wrong declaration in
header, meta or both; `decoding_pages.py` says how. Peers decode a subset by whatever they offer; one that is not
installed is null. CPU is that of this process, one warm-up, all in turn, five rounds, median.

`--sniff` measures the look before extraction instead: pages and CPU saved, wanted pages lost, and language id beside
the bare model; `--head` compares titles and dates with trafilatura's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipelines.crawl.decode import decode
from tests.benchmarks.decoding_pages import (
    CHARSETS,
    CHINESE,
    CLASSES,
    Case,
    cases,
    chosen_pages,
    crawl_pages,
    sha256,
    sources,
    truth,
)
from tests.pack import FOLDER

Reader = Callable[[bytes, str | None], str]
ROUNDS = 5
PEERS = {
    "faust-cchardet": "cchardet",
    "charset-normalizer": "charset_normalizer",
    "resiliparse": "resiliparse",
    "trafilatura": "trafilatura",
    "w3lib": "w3lib",
}


def main() -> None:
    """All classes, the crawl's own cases, broken bytes, peers and CPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder with crawl/ and labels/")
    parser.add_argument("--pages", type=int, default=1_000, help="pages of each charset and class")
    parser.add_argument("--peer-pages", type=int, default=60, help="of them, given to the peers")
    parser.add_argument("--sniff", action="store_true", help="measure the look before extraction instead")
    parser.add_argument("--head", action="store_true", help="compare titles and dates with trafilatura's instead")
    parser.add_argument("--every", type=int, default=4, help="with --sniff and --head: every n-th page")
    options = parser.parse_args()
    if options.sniff:
        from tests.benchmarks.sniffing import measure_sniff

        _emit({"name": "sniffing", **_machine(), **measure_sniff(options.data, options.every)})
        return
    if options.head:
        from tests.benchmarks.heads import measure_heads

        _emit({"name": "heads", **_machine(), **measure_heads(options.data, options.every)})
        return
    made = _cases(options.data, options.pages)
    _emit({"name": "decoding", **_machine(), **measure(made, options.data, options.peer_pages)})


def measure(made: dict[str, dict[str, list[Case]]], folder: Path, peer_pages: int) -> dict[str, Any]:
    """The JSON's figures."""
    subset = {name: {kind: pages[:peer_pages] for kind, pages in kinds.items()} for name, kinds in made.items()}
    others = [name for name in made if name not in CHINESE]
    right = _right(_ours, made)
    rows = {name: {kind: _mean(found) for kind, found in kinds.items()} for name, kinds in right.items()}
    result: dict[str, Any] = {kind: _mean(_pool(right, CHINESE, kind)) for kind in CLASSES}
    result["others"] = {kind: _mean(_pool(right, others, kind)) for kind in CLASSES}
    result["others_least"] = min(share for name in others for share in rows[name].values() if share is not None)
    result["undeclared_rows"] = {name: rows[name]["undeclared"] for name in ("euc-jp", "windows-1251", "iso-8859-1")}
    result["rows"] = rows
    result["pages"] = {name: {kind: len(pages) for kind, pages in kinds.items()} for name, kinds in made.items()}
    result |= crawl_cases(folder, _ours)
    result["broken"] = broken_bytes(_pool(made, CHINESE, "declared_right")[::20])
    readers: dict[str, Reader | None] = {"ours": _ours, **{name: _peer(name) for name in PEERS}}
    result["peers"] = {}
    for name, reader in readers.items():
        if reader is None:
            sys.stderr.write(f"{name} is not installed here\n")
            result["peers"][name] = None
            continue
        found = _right(reader, subset)
        result["peers"][name] = {
            "version": _version(name),
            **{kind: _mean(_pool(found, CHINESE, kind)) for kind in CLASSES},
            "others": {kind: _mean(_pool(found, others, kind)) for kind in CLASSES},
            **crawl_cases(folder, reader),
        }
    for name, times in cpu(readers, made, folder).items():
        result["peers"][name]["cpu_us"] = times
    _table(result)
    return result


def crawl_cases(folder: Path, read: Reader) -> dict[str, float]:
    """Planted and found cases of the crawl, by the hash or the true codec in its truth."""
    planted, found = truth(folder, "encoding"), truth(folder, "encoding_as_found")
    right: dict[str, list[bool]] = {"planted": [], "found": []}
    for row, body, content_type in crawl_pages(folder):
        if (known := planted.get(row["id"])) is not None:
            right["planted"].append(sha256(_read(read, body, content_type)) == known["text_sha256"])
        elif (known := found.get(row["id"])) is not None:
            right["found"].append(_read(read, body, content_type) == body.decode(known["charset"]))
    return {name: round(sum(values) / len(values), 4) for name, values in right.items()}


def broken_bytes(pages: list[Case], seed: int = 0) -> dict[str, float]:
    """Five broken bytes a page (stray, missing or overwritten): characters that are lost, mean and 99th percentile."""
    rng = random.Random(seed)
    lost = []
    for case in pages:
        body = bytearray(case.body)
        places = [at for at, octet in enumerate(body) if octet >= 0x80]
        for at in sorted(rng.sample(places, min(5, len(places))), reverse=True):
            body[at : at + rng.choice((0, 1))] = rng.choice((b"", b"\xff", b"\x81"))
        read = decode(bytes(body), case.content_type).text
        lost.append((Counter(case.text) - Counter(read)).total())
    lost.sort()
    return {"pages": len(lost), "mean": round(statistics.fmean(lost), 2), "p99": lost[len(lost) * 99 // 100]}


def cpu(readers: dict[str, Reader | None], made: dict[str, dict[str, list[Case]]], folder: Path) -> dict[str, Any]:
    """Reader -> kind of page -> CPU microseconds a page, median of the rounds, and how far they lie apart."""
    utf8 = [Case(body, kind, "") for row, body, kind in crawl_pages(folder) if row["charset"] == "utf-8"][:150]
    sets = {"utf-8": utf8}
    for name in ("gbk", "big5", "shift_jis", "windows-1251", "windows-1252"):
        sets[name] = made[name]["undeclared"][:40]
    sets["gbk declared"] = made["gbk"]["declared_right"][:40]
    sets["bytes.decode of utf-8"] = utf8
    times: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in sets} for name, r in readers.items() if r}
    for turn in range(ROUNDS + 1):
        for name, seen in times.items():
            for kind, pages in sets.items():
                read = (lambda body, _: body.decode()) if kind == "bytes.decode of utf-8" else readers[name]
                if kind == "bytes.decode of utf-8" and name != "ours":
                    continue
                begun = time.process_time()
                for case in pages:
                    _read(read, case.body, case.content_type)
                if turn:
                    seen[kind].append((time.process_time() - begun) / len(pages) * 1e6)
    return {
        name: {
            kind: {"median": round(statistics.median(values), 1), "spread": round(max(values) - min(values), 1)}
            for kind, values in kinds.items()
            if values
        }
        for name, kinds in times.items()
    }


def _ours(body: bytes, content_type: str | None) -> str:
    return decode(body, content_type).text


def _peer(name: str) -> Reader | None:
    """What the package offers for bytes of a page; None where it is not installed."""
    try:
        __import__(PEERS[name])
    except ImportError:
        return None
    if name == "faust-cchardet":
        import cchardet

        return lambda body, _: body.decode(cchardet.detect(body)["encoding"] or "utf-8", "replace")
    if name == "charset-normalizer":
        from charset_normalizer import from_bytes

        return lambda body, _: str(from_bytes(body).best())
    if name == "resiliparse":
        from resiliparse.parse.encoding import bytes_to_str, detect_encoding

        return lambda body, _: bytes_to_str(body, detect_encoding(body))
    if name == "trafilatura":
        from trafilatura.utils import decode_file

        return lambda body, _: decode_file(body)
    from w3lib.encoding import html_to_unicode

    return lambda body, content_type: html_to_unicode(content_type, body)[1]


def _read(read: Reader, body: bytes, content_type: str | None) -> str:
    try:
        return read(body, content_type)
    except (UnicodeDecodeError, LookupError, ValueError, TypeError):
        return ""


def _right(read: Reader, made: dict[str, dict[str, list[Case]]]) -> dict[str, dict[str, list[bool]]]:
    """For each page whether its text came out."""
    return {
        name: {
            kind: [_read(read, case.body, case.content_type) == case.text for case in pages]
            for kind, pages in kinds.items()
        }
        for name, kinds in made.items()
    }


def _mean(values: list[bool]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def _pool(made: dict[str, dict[str, list[Any]]], names: Any, kind: str) -> list[Any]:
    return [item for name in names for item in made[name][kind]]


def _cases(folder: Path, count: int) -> dict[str, dict[str, list[Case]]]:
    pages = sources(folder)
    made: dict[str, dict[str, list[Case]]] = {}
    for name, (language, *_) in CHARSETS.items():
        chosen, windows = chosen_pages(pages.get(language, []), name, count)
        made[name] = {kind: cases(chosen, name, kind) for kind in CLASSES}
        sys.stderr.write(f"{name:14} {len(chosen):5} pages a class, {windows} of them windows\n")
    return made


def _table(result: dict[str, Any]) -> None:
    for name, kinds in result["rows"].items():
        sys.stderr.write(f"{name:16}" + "".join(f"{kind} {share}  " for kind, share in kinds.items()) + "\n")
    for name, row in result["peers"].items():
        sys.stderr.write(f"{name:20} {json.dumps(row)}\n")
    bars = {"declared_right": 0.995, "undeclared": 0.995, "declared_wrong": 0.97}
    for name, bar in bars.items():
        sys.stderr.write(f"Chinese {name}: {result[name]} (bar {bar}) {'met' if result[name] >= bar else 'MISSED'}\n")
    least = min(result["others"].values())
    sys.stderr.write(f"others: {result['others']} (bar 0.98) {'met' if least >= 0.98 else 'MISSED'}\n")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


def _emit(result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
