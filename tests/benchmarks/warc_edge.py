"""Broken and hostile archives: what each reader gives of every file, ours beside warcio and FastWARC.

    python -m tests.benchmarks.warc_edge [--data FOLDER] [--limit-seconds 60] [--limit-megabytes 2048]

FOLDER holds the files and `expected.json`, which says what has to be read of each and how much has to be reported.
Every file is read by every reader in a child of its own, which is killed at its limits.  Ours is what the job does:
read the records, and take each to a document or to a ledger row with its reason.  A table goes to stderr, one JSON
line to stdout: `files`, `crashes` (a child that died, overran or raised), `unreported` (files with fewer reports than
asked) and `lost_before_damage` (records that had to be read and were not) are of ours; `peers` has the same of theirs.
The peers are readers of records alone: what only shows in a page's encoding they leave to their caller.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.pack import FOLDER

READERS = ("ours", "warcio", "fastwarc")


def read_ours(path: Path) -> dict[str, Any]:
    """Names of the records, and reports by reason."""
    from pipelines.crawl.document import DocumentRules, outcome_of
    from pipelines.crawl.forms import form_of
    from pipelines.crawl.items import Damage, Record
    from pipelines.crawl.notes import RecordNotes
    from pipelines.crawl.records import read_records
    from pipelines.crawl.sources import StoreSource
    from pipelines.datasets.store import open_store

    source = StoreSource(open_store(path.parent), path.name, path.stat().st_size)
    names: list[str] = []
    reports: Counter[str] = Counter()
    form = form_of(path.name) or "warc"
    notes = RecordNotes(form)
    for item in read_records(source, form=form):
        if isinstance(item, Damage):
            reports[item.reason] += 1
            continue
        if not isinstance(item, Record):
            names.append(item.record_type)
            continue
        outcome = outcome_of(item, path.name, DocumentRules())
        if outcome.ledger is not None:
            reports[outcome.ledger["reason"]] += 1
        for note in notes.of(item):
            reports[note] += 1
        if not item.over_bound:
            uri = item.target_uri.decode("utf-8", "replace")
            names += [name_of("arc" if form == "arc" else item.record_type, uri), uri]
    return {"names": names, "reports": dict(reports)}


def read_warcio(path: Path) -> dict[str, Any]:
    """A peer reports by raising, once, and ends."""
    from warcio.archiveiterator import ArchiveIterator

    names: list[str] = []
    with path.open("rb") as stream:
        try:
            for record in ArchiveIterator(stream, arc2warc=False):
                uri = record.rec_headers.get_header("WARC-Target-URI") or record.rec_headers.get_header("uri") or ""
                body = record.content_stream().read()
                kind = "arc" if record.format == "arc" else record.rec_type
                names += [name_of(kind, uri), uri] if body is not None else []
        except Exception as error:  # noqa: BLE001 - whatever a peer raises is its report
            return {"names": names, "reports": {_words(error): 1}}
    return {"names": names, "reports": {}}


def read_fastwarc(path: Path) -> dict[str, Any]:
    """A peer reports by raising, once, and ends."""
    from fastwarc.warc import ArchiveIterator

    names: list[str] = []
    with path.open("rb") as stream:
        try:
            for record in ArchiveIterator(stream, parse_http=True):
                uri = record.headers.get("WARC-Target-URI") or ""
                record.reader.read()
                names += [name_of(record.headers.get("WARC-Type") or "", uri), uri]
        except Exception as error:  # noqa: BLE001 - whatever a peer raises is its report
            return {"names": names, "reports": {_words(error): 1}}
    return {"names": names, "reports": {}}


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:80]


def name_of(record_type: str, uri: str) -> str:
    """As expected.json names a record: its type, and the last part of its URL's path."""
    if record_type not in ("response", "conversion", "arc"):
        return record_type
    return f"{record_type} {uri.strip('<>').rstrip('/').rpartition('/')[2]}"


_READ: dict[str, Callable[[Path], dict[str, Any]]] = {
    "ours": read_ours,
    "warcio": read_warcio,
    "fastwarc": read_fastwarc,
}


def _child(reader: str, path: Path, megabytes: int, pipe: Any) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20),) * 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # warcio writes a paragraph for each line that it misreads
    begun = time.process_time()
    try:
        found = _READ[reader](path)
    except MemoryError:
        found = {"names": [], "reports": {}, "crash": "memory"}
    except Exception as error:  # noqa: BLE001 - a reader that raises is the finding
        found = {"names": [], "reports": {}, "crash": f"{type(error).__name__}: {error}"[:200]}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    pipe.send({**found, "cpu_seconds": time.process_time() - begun, "peak_megabytes": peak})


def read_in_child(reader: str, path: Path, seconds: float, megabytes: int) -> dict[str, Any]:
    """What the reader gives, or `crash` with how its child ended."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(reader, path, megabytes, theirs))
    child.start()
    theirs.close()
    found: dict[str, Any] = {"names": [], "reports": {}, "crash": "", "cpu_seconds": 0.0, "peak_megabytes": 0}
    try:
        found.update(ours.recv() if ours.poll(seconds) else {"crash": f"more than {seconds:.0f} s"})
    except EOFError:
        found["crash"] = "the child died"
    child.kill() if found["crash"] else None
    child.join()
    return found


def judge(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """Which of the asked records are missing, which beyond them were read, and whether enough was reported."""
    names = Counter(found["names"])
    missing = [name for name in expected["must_read"] if name not in names]
    also = expected.get("also_good", [])
    return {
        "lost": missing,
        "also": [name for name in also if name in names or name == "all"],
        "reports": sum(found["reports"].values()),
        "unreported": sum(found["reports"].values()) < expected["must_report"] and not found["crash"],
    }


def _warm_up() -> None:
    """Import once what every child needs."""
    import pipelines.crawl.document
    import pipelines.crawl.records

    _ = pipelines.crawl.document, pipelines.crawl.records
    for name in ("warcio.archiveiterator", "fastwarc.warc"):
        if importlib.util.find_spec(name.split(".")[0]):
            importlib.import_module(name)


def _versions(readers: list[str]) -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in readers if name != "ours"},
    }


def run(folder: Path, seconds: float, megabytes: int) -> dict[str, Any]:
    """Reads every file with every reader that is installed; prints the table as it goes."""
    files = json.loads((folder / "expected.json").read_text())["files"]
    readers = [name for name in READERS if name == "ours" or importlib.util.find_spec(name)]
    for absent in sorted(set(READERS) - set(readers)):
        print(f"{absent} is not installed: pip install {absent}", file=sys.stderr)
    _warm_up()
    sums: dict[str, Counter[str]] = {name: Counter() for name in readers}
    worst: dict[str, float] = {"cpu_seconds": 0.0, "peak_megabytes": 0}
    print(f"{'file':30} {'asked':>5} {'report':>6}   " + "   ".join(f"{name:40}" for name in readers), file=sys.stderr)
    for name, expected in files.items():
        cells = []
        for reader in readers:
            found = read_in_child(reader, folder / name, seconds, megabytes)
            verdict = judge(found, expected)
            total = sums[reader]
            total["files"] += 1
            total["crashes"] += bool(found["crash"])
            total["unreported"] += verdict["unreported"]
            total["lost_before_damage"] += len(verdict["lost"])
            total["files_right"] += not (found["crash"] or verdict["unreported"] or verdict["lost"])
            if reader == "ours":
                worst = {key: max(worst[key], found[key]) for key in worst}
            cells.append(_cell(found, verdict, expected))
        print(
            f"{name:30} {len(expected['must_read']):5} {expected['must_report']:6}   " + "   ".join(cells).rstrip(),
            file=sys.stderr,
        )
    ours = sums["ours"]
    for reader in readers:
        print(f"{reader}: {dict(sums[reader])}", file=sys.stderr)
    keys = ("files", "crashes", "unreported", "lost_before_damage", "files_right")
    return {
        **{key: ours[key] for key in keys},
        "worst_cpu_seconds": round(worst["cpu_seconds"], 2),
        "worst_peak_megabytes": worst["peak_megabytes"],
        "peers": {name: {key: sums[name][key] for key in keys} if name in sums else None for name in READERS[1:]},
        "versions": _versions(readers),
    }


def _cell(found: dict[str, Any], verdict: dict[str, Any], expected: dict[str, Any]) -> str:
    """`read/asked`, `+n` read beyond, reports with their reasons; `-` before what is wrong."""
    if found["crash"]:
        return f"- {found['crash']}"[:40].ljust(40)
    asked = len(expected["must_read"])
    text = f"{'-' if verdict['lost'] else ''}{asked - len(verdict['lost'])}/{asked}"
    text += f" +{len(verdict['also'])}" if verdict["also"] else ""
    told = ", ".join(f"{reason} {n}" if n > 1 else reason for reason, n in found["reports"].items())
    text += f" {'-' if verdict['unreported'] else ''}[{told}]" if told or verdict["unreported"] else ""
    return text[:39].ljust(40)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=FOLDER / "warc_edge")
    parser.add_argument("--limit-seconds", type=float, default=60.0)
    parser.add_argument("--limit-megabytes", type=int, default=2048)
    args = parser.parse_args()
    if not (args.data / "expected.json").exists():
        sys.exit(f"no expected.json in {args.data}; --data names the folder")
    result = run(args.data, args.limit_seconds, args.limit_megabytes)
    print(json.dumps({**result, "cores": os.cpu_count()}))


if __name__ == "__main__":
    main()
