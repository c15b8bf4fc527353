"""Build the sample crawl from Debian packages: `python -m tests.sample.build --debs FOLDER [--out FOLDER]`.

FOLDER holds the packages that NOTICE.jsonl names, as `apt-get download PACKAGE=VERSION` leaves them (Debian 12;
versions that the mirrors no longer have lie on snapshot.debian.org).  The list says for each page where it comes
from, its licence, its sha256 and what was done to it; the same list and packages give the same bytes.  Pages
under CC BY-SA are used unchanged only.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import brotli

from tests.sample.junk import junk_pages, keyword_line_en, keyword_line_zh, menu_line, spam_line_en, spam_line_zh
from tests.sample.warc_writer import http_response, member, warc_record

HERE = Path(__file__).parent
FILES = 6
TRUNCATED_FILE, CORRUPT_FILE, AS_SENT_FILE = 5, 4, 3
_SEED = 20260601


def main() -> None:
    """Write the crawl files and the labelled lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--debs", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in (HERE / "NOTICE.jsonl").read_text("utf-8").splitlines()]
    junk = {f"https://{host}{path}": html for path, host, html in junk_pages()}
    with tempfile.TemporaryDirectory() as folder:
        packages = _unpack(arguments.debs, Path(folder), {(r["package"], r["version"]) for r in rows if r["package"]})
        for row in rows:
            if row["package"]:
                row["body"] = (packages[row["package"]] / row["path"]).read_bytes()
                _check(row)
            elif row["kind"] == "junk":
                row["html"] = junk[row["url"]]
        for name, body in crawl_files([r for r in rows if r["file"] != "quality.jsonl.zst"]):
            (arguments.out / name).write_bytes(body)
        quality = [r for r in rows if r["file"] == "quality.jsonl.zst"]
        (arguments.out / "quality.jsonl.zst").write_bytes(labelled_lines(quality))


def crawl_files(rows: list[dict]) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of each crawl file."""
    for number in range(FILES):
        name = f"sample-{number:05d}.warc.gz"
        members = [member(_warcinfo(name))]
        for place, row in enumerate(r for r in rows if r["file"] == name):
            members += _members_of(row, number, place)
        members += [member(record) for record in _other_records(number)]
        if number == CORRUPT_FILE:
            members.insert(len(members) // 2, _corrupt(member(_stray("corrupt"))))
        body = b"".join(members)
        if number == TRUNCATED_FILE:
            cut = member(_stray("truncated"))
            body += cut[: len(cut) * 2 // 3]
        yield name, body


def page_bytes(row: dict) -> bytes:
    """The page as crawled: as it came, or edited or re-encoded as the row says."""
    body = row["html"].encode() if row["kind"] == "junk" else row["body"]
    if row["kind"] == "reencoded":
        text = body.decode("utf-8").replace("charset=utf-8", f"charset={row['charset']}")
        return text.encode(row["charset"], "xmlcharrefreplace")
    if row["kind"] == "near_dup":
        return _edit(body.decode("utf-8"), row["edit"]).encode()
    return body


def labelled_lines(rows: list[dict]) -> bytes:
    """Training rows of the quality model: paragraphs of pages outside the crawl against made-up spam and menus.

    `domain` names the page, so that a split by domain never parts a page's paragraphs.
    """
    import zstandard

    from pipelines.crawl.extract import extract_html

    rng = random.Random(_SEED)
    lines = []
    for row in rows:
        for paragraph in extract_html(row["body"]).text.split("\n"):
            if len(paragraph) >= (30 if row["language"] == "zh" else 90):
                lines.append(
                    {
                        "text": paragraph,
                        "label": "good",
                        "language": row["language"],
                        "domain": row["url"].removeprefix("https://"),
                    }
                )
    good = {lang: [x for x in lines if x["language"] == lang] for lang in ("zh", "en")}
    for chosen in good.values():
        rng.shuffle(chosen)
    out = [x for lang in ("zh", "en") for x in good[lang][:300]]
    makers = {
        "zh": (spam_line_zh, spam_line_zh, keyword_line_zh, menu_line),
        "en": (spam_line_en, spam_line_en, keyword_line_en, menu_line),
    }
    for lang, choices in makers.items():
        for n in range(len(good[lang][:300])):
            text = choices[n % len(choices)](rng)
            out.append({"text": text, "label": "bad", "language": lang, "domain": f"junk{n % 40:02d}.example"})
    rng.shuffle(out)
    body = "".join(json.dumps(x, ensure_ascii=False, sort_keys=True) + "\n" for x in out).encode()
    return zstandard.ZstdCompressor(level=19).compress(body)


def _members_of(row: dict, number: int, place: int) -> list[bytes]:
    """Request, response and sometimes metadata of one page."""
    body, headers = page_bytes(row), ()
    if number == AS_SENT_FILE:
        body, headers = _as_sent(body, place)
    elif number % 2 == 0:
        headers = (("X-Crawl-Content-Encoding", "gzip"),)
    date = f"2026-06-01T{8 + number:02d}:{place // 60 % 60:02d}:{place % 60:02d}Z"
    declared = row.get("declared")
    content_type = "text/html" + (f"; charset={declared}" if declared else "")
    response = http_response(body, content_type=content_type, headers=headers)
    path = re.sub(r"^https?://[^/]+", "", row["url"])
    request = f"GET {path} HTTP/1.1\r\nUser-Agent: gristmill-sample\r\n\r\n".encode()
    out = [
        warc_record("request", request, url=row["url"], date=date, content_type="application/http;msgtype=request"),
        warc_record("response", response, url=row["url"], date=date),
    ]
    if number == 0:
        out.append(
            warc_record(
                "metadata", b"fetchTimeMs: 30\r\n", url=row["url"], date=date, content_type="application/warc-fields"
            )
        )
    return [member(record) for record in out]


def _as_sent(body: bytes, place: int) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    """The body as a server sends it: gzip, br, chunked or plain by turns."""
    turn = place % 4
    if turn == 0:
        return gzip.compress(body, 9, mtime=0), (("Content-Encoding", "gzip"),)
    if turn == 1:
        return brotli.compress(body), (("Content-Encoding", "br"),)
    if turn == 2:
        pieces = [body[at : at + 4096] for at in range(0, len(body), 4096)]
        chunked = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
        return chunked, (("Transfer-Encoding", "chunked"),)
    return body, ()


def _other_records(number: int) -> list[bytes]:
    """What a crawl holds besides pages: errors, redirects, images, a nest of tags."""
    host = f"https://www.misc{number}.example"

    def response(path: str, body: bytes, **http) -> bytes:
        return warc_record("response", http_response(body, **http), url=host + path, date="2026-06-01T20:00:00Z")

    return [
        response("/gone", b"<html><body><p>Not found.</p></body></html>", status="404 Not Found"),
        response("/old", b"", status="301 Moved Permanently", headers=(("Location", "/new"),)),
        response("/logo.png", b"\x89PNG\r\n\x1a\n" + bytes(range(200)), content_type="image/png"),
        response("/data.json", b'{"ok": true}', content_type="application/json"),
        response("/nest", b"<html><body>" + b"<div>" * 3_000 + b"deep", content_type="text/html"),
        response("/blank", b"<html><head><title>Blank</title></head><body></body></html>"),
        response("/busy", b"<p>Try again.</p>", status="503 Service Unavailable"),
    ]


def _stray(kind: str) -> bytes:
    text = f"<html><body><p>{' '.join(str(n * n) for n in range(400))}</p></body></html>"
    return warc_record("response", http_response(text.encode()), url=f"https://www.{kind}.example/page")


def _corrupt(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes(b ^ 0x55 for b in body[middle : middle + 16]) + body[middle + 16 :]


def _warcinfo(name: str) -> bytes:
    fields = (
        f"software: gristmill tests/sample/build.py\r\nformat: WARC File Format 1.1\r\nfilename: {name}\r\n".encode()
    )
    return warc_record("warcinfo", fields, content_type="application/warc-fields")


def _edit(html: str, edit: str) -> str:
    """One small change, as mirrors and new releases of a page have it."""
    if edit == "boilerplate":
        return html.replace("</body>", "<p>This copy is kept by a mirror and may be out of date.</p></body>")
    if edit == "version":
        return re.sub(r"\b(7\.4|15|3\.11)\b", lambda m: {"7.4": "7.5", "15": "16", "3.11": "3.12"}[m.group()], html)
    paragraphs = [m for m in re.finditer(r"<p[ >].*?</p>", html, re.DOTALL) if len(m.group()) > 60]
    if edit == "paragraph_removed" and paragraphs:
        gone = paragraphs[-1]
        return html[: gone.start()] + html[gone.end() :]
    if edit == "words_changed" and paragraphs:
        first = paragraphs[0]
        changed = re.sub(r"\b(the|is|are)\b", "any", first.group(), count=2).replace("您", "你").replace("可以", "能够")
        return html[: first.start()] + changed + html[first.end() :]
    raise ValueError(f"{edit}: nothing to edit")


def _unpack(debs: Path, folder: Path, wanted: set[tuple[str, str]]) -> dict[str, Path]:
    out = {}
    for package, version in sorted(wanted):
        found = debs / f"{package}_{version.replace(':', '%3a')}_all.deb"
        if not found.exists():
            sys.exit(f"{found} is missing. Fetch it: cd {debs} && apt-get download {package}={version}")
        out[package] = folder / package
        subprocess.run(["dpkg", "-x", str(found), str(out[package])], check=True)
    return out


def _check(row: dict) -> None:
    found = hashlib.sha256(row["body"]).hexdigest()
    if found != row["sha256"]:
        sys.exit(f"{row['package']}: {row['path']} has sha256 {found[:16]}, not {row['sha256'][:16]}: another version?")


if __name__ == "__main__":
    main()
