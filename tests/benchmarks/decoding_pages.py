"""The pages of the decoding benchmark: correct UTF-8 pages, written again in other charsets under other declarations.

A page counts only where the charset gives it back unchanged. Pages of a language that are too few for a class are cut
at tags into windows, each of them a page of its own; what was cut is counted.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.crawl.entity import entity_body

_META = re.compile(r"<meta[^>]{0,300}charset[^>]{0,200}>|<\?xml[^>]{0,200}\?>", re.IGNORECASE)
_HEAD = re.compile(r"<head[^>]{0,200}>", re.IGNORECASE)
_HAN = re.compile("[\u4e00-\u9fff]")
_WINDOWS = (3_000, 1_200, 500, 250)  # characters of markup; smaller where larger ones are too few

# Language of the pages -> (codec that writes them, the right label, wrong but plausible labels).
CHARSETS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "gb2312": ("zh-Hans", "gb2312", "gb2312", ("utf-8", "big5", "iso-8859-1", "shift_jis")),
    "gbk": ("zh", "gbk", "gbk", ("utf-8", "big5", "iso-8859-1", "euc-kr")),
    "gb18030": ("zh", "gb18030", "gb2312", ("utf-8", "big5", "windows-1252", "euc-jp")),
    "big5": ("zh-Hant", "big5hkscs", "big5", ("utf-8", "gb2312", "gbk", "iso-8859-1")),
    "shift_jis": ("ja", "cp932", "shift_jis", ("utf-8", "euc-jp", "iso-8859-1", "gb2312")),
    "euc-jp": ("ja", "euc_jp", "euc-jp", ("utf-8", "shift_jis", "iso-8859-1", "gb2312")),
    "euc-kr": ("ko", "cp949", "euc-kr", ("utf-8", "iso-8859-1", "gb2312", "shift_jis")),
    "windows-1251": ("ru", "cp1251", "windows-1251", ("utf-8", "koi8-r", "iso-8859-1", "iso-8859-5")),
    "koi8-r": ("ru", "koi8_r", "koi8-r", ("utf-8", "windows-1251", "iso-8859-1", "iso-8859-5")),
    "iso-8859-1": ("latin", "latin_1", "iso-8859-1", ("utf-8", "windows-1251", "iso-8859-2", "gb2312")),
    "windows-1252": ("latin", "cp1252", "windows-1252", ("utf-8", "windows-1251", "iso-8859-2", "big5")),
    "iso-8859-2": ("pl", "iso8859_2", "iso-8859-2", ("utf-8", "iso-8859-1", "windows-1251", "windows-1252")),
    "windows-1253": ("el", "cp1253", "windows-1253", ("utf-8", "iso-8859-1", "windows-1251", "windows-1252")),
    "windows-1256": ("ar", "cp1256", "windows-1256", ("utf-8", "iso-8859-1", "windows-1252", "windows-1251")),
}
# Codecs whose bytes a browser reads by another table.
_BROWSERS = {"gb2312": "gb18030", "gbk": "gb18030", "latin_1": "cp1252"}
CHINESE = ("gb2312", "gbk", "gb18030", "big5")
CLASSES = ("declared_right", "undeclared", "declared_wrong")


@dataclass(frozen=True, slots=True)
class Case:
    """One page as bytes, what the HTTP header says, and the text it must become."""

    body: bytes
    content_type: str | None
    text: str


def sources(folder: Path) -> dict[str, list[str]]:
    """Language -> correct UTF-8 pages, of the crawl and of the labelled sets."""
    found: dict[str, list[str]] = {}
    for row, body, _ in crawl_pages(folder):
        if row["kind"] == "base" and row["charset"] == "utf-8" and row["status"] == 200:
            _add(found, _language(row["lang"]), body)
    for path in sorted((folder / "labels").glob("extraction_dev_*.jsonl.zst")):
        for row in labelled(path):
            body = row["html"].encode(row["html_codec"])
            language = row["lang"] if row["lang"] not in ("other", "en") else ""
            _add(found, language or ("latin" if row["lang"] == "en" else ""), body)
    return found


def crawl_pages(folder: Path) -> Iterator[tuple[dict, bytes, str | None]]:
    """(index row, entity bytes, Content-Type) of each response of the crawl that can be read."""
    rows = _json_lines(folder / "crawl" / "records.jsonl.gz")
    files: dict[str, bytes] = {}
    for row in rows:
        if row["file"] not in files:
            files = {row["file"]: (folder / "crawl" / row["file"]).read_bytes()}
        stored = files[row["file"]][row["offset"] : row["offset"] + row["length"]]
        _, http, body = zlib.decompress(stored, 31).split(b"\r\n\r\n", 2)
        pairs = (line.partition(": ") for line in http.decode("latin-1").split("\r\n")[1:])
        headers = {name.lower(): value for name, _, value in pairs}
        yield row, entity_body(body.removesuffix(b"\r\n\r\n"), headers, max_bytes=1 << 24), headers.get("content-type")


def truth(folder: Path, kind: str) -> dict[str, dict]:
    """Record id -> planted truth of one kind."""
    rows = _json_lines(folder / "crawl" / "truth.jsonl.gz")
    return {row["id"]: row for row in rows if row["kind"] == kind}


def chosen_pages(pages: list[str], charset: str, count: int, seed: int = 0) -> tuple[list[str], int]:
    """(pages that the charset gives back unchanged, how many of them are windows of longer pages)."""
    codec = CHARSETS[charset][1]
    rng = random.Random(f"{charset} {seed}")
    shuffled = rng.sample(pages, len(pages))
    chosen = list(itertools.islice((page for page in shuffled if _round_trips(page, codec)), count))
    whole = len(chosen)
    for size in _WINDOWS:
        if len(chosen) == count:
            break
        pieces = [piece for page in shuffled for piece in _windows(page, size)]
        rng.shuffle(pieces)
        fitting = (piece for piece in pieces if _round_trips(piece, codec))
        chosen += itertools.islice(fitting, count - len(chosen))
    return chosen, len(chosen) - whole


def cases(pages: list[str], charset: str, kind: str, seed: int = 0) -> list[Case]:
    """The pages as bytes of the charset, declared as the class has it."""
    _, codec, right, wrongs = CHARSETS[charset]
    rng = random.Random(f"{charset} {kind} {seed}")
    return [_case(page, codec, right, rng.choice(wrongs), kind, rng) for page in pages]


def _case(page: str, codec: str, right: str, wrong: str, kind: str, rng: random.Random) -> Case:
    if kind == "declared_right":
        header, meta = rng.choice(((right, right), (right, None), (None, right)))
    elif kind == "undeclared":
        header, meta = None, None
    else:
        header, meta = rng.choice(((wrong, None), (None, wrong), (wrong, wrong), (wrong, right), (right, wrong)))
    text = _declare(_META.sub("", page), meta, rng)
    return Case(text.encode(codec), f"text/html; charset={header}" if header else "text/html", text)


def _declare(page: str, label: str | None, rng: random.Random) -> str:
    if label is None:
        return page
    tag = rng.choice(
        (f'<meta charset="{label}">', f'<meta http-equiv="Content-Type" content="text/html; charset={label}" />')
    )
    head = _HEAD.search(page, 0, 2_000)
    return page[: head.end()] + tag + page[head.end() :] if head else f"<html><head>{tag}</head>{page}"


def _round_trips(page: str, codec: str) -> bool:
    """Whether a browser that knows the charset reads the page back, and the bytes are not UTF-8 by accident."""
    try:
        body = _META.sub("", page).encode(codec)
    except UnicodeEncodeError:
        return False
    if body.isascii() or body.decode(_BROWSERS.get(codec, codec), "replace") != _META.sub("", page):
        return False
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def _windows(page: str, size: int) -> list[str]:
    """Pieces of the page's body, cut in front of tags, with letters outside ASCII in each."""
    start = max(page.lower().find("<body"), 0)
    found = []
    while start + size < len(page):
        end = page.find("<", start + size)
        piece = page[start : end if end >= 0 else len(page)]
        if sum(char.isalpha() and char > "\x7f" for char in piece) >= 8:
            found.append(f"<html><head></head><body>{piece}</body></html>")
        start = end if end >= 0 else len(page)
    return found


def _add(found: dict[str, list[str]], language: str, body: bytes) -> None:
    try:
        page = body.decode("utf-8")
    except UnicodeDecodeError:
        return
    if page.isascii() or "\ufffd" in page or page.startswith("\ufeff"):
        return
    languages = [language]
    if language in ("zh", "zh-Hans", "zh-Hant"):
        from pipelines.language.script import script_of

        script = script_of(page, "zh") or "mixed"
        languages = ["zh", f"zh-{script}"]
    elif language in ("en", "de", "fr", "es", "it", "pt", "latin"):
        languages = ["latin"]
    for name in languages:
        found.setdefault(name, []).append(page)


def _language(guessed: str) -> str:
    return "latin" if guessed in ("en", "de", "fr", "es", "it", "pt") else guessed


def labelled(path: Path) -> Iterator[dict]:
    """The rows of one labelled set."""
    import zstandard

    with path.open("rb") as stored, zstandard.ZstdDecompressor().stream_reader(stored) as reader:
        for line in reader.read().splitlines():
            yield json.loads(line)


def _json_lines(path: Path) -> list[dict]:
    with gzip.open(path) as lines:
        return [json.loads(line) for line in lines]


def sha256(text: str) -> str:
    """As the truth has it."""
    return hashlib.sha256(text.encode()).hexdigest()
