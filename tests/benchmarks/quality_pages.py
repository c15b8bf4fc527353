"""Labelled texts for the quality benchmark: good by domain, bad by template family.

Good: prose, encyclopedic and technical text of the folder `text`, each domain (a book, a project, a block of the
encyclopedia) a group. Bad: the spam and junk pages of the crawl by their template, as a browser shows them; the
boilerplate of its real pages (lines that recur on a site), by site; good text shuffled or mangled, by the way it was
done. Seeded: the same folder gives the same texts.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zstandard
from selectolax.lexbor import LexborHTMLParser

from pipelines.crawl.decode import decode_text
from pipelines.crawl.entity import UndecodableError, entity_body
from pipelines.crawl.sources import MemorySource
from pipelines.crawl.warc import Record, read_warc
from pipelines.quality.examples import LabelledPage

GOOD = ("en_books", "zh_literature", "zh_classical", "zh_wiki", "en_docs", "zh_tech")
_SITES = 12  # of boilerplate, those with most lines that recur
_MANGLED_EACH = 40
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s*")


def labelled(data: Path, *, seed: int = 0) -> list[LabelledPage]:
    """All labelled texts; `group` is the domain of a good one and the family of a bad one."""
    rng = random.Random(seed)
    good = [page for name in GOOD for page in _good(data, name)]
    bad = list(_made_pages(data)) + list(_boilerplate(data, rng))
    for family, mangle in MANGLERS.items():
        chosen = rng.sample(good, min(len(good), 4 * _MANGLED_EACH))
        made = 0
        for page in chosen:
            text = mangle(rng, page.text[:4000], page.language == "zh")
            if made < _MANGLED_EACH and len(text) >= 40 and text != page.text[:4000]:
                bad.append(_bad(text, page.language, family))
                made += 1
    return good + bad


def _bad(text: str, language: str, family: str) -> LabelledPage:
    return LabelledPage(text=text, label="bad", language=language, domain=family, group=family)


def _good(data: Path, name: str) -> Iterator[LabelledPage]:
    with (data / "text" / f"{name}.jsonl.zst").open("rb") as file:
        rows = [
            json.loads(line) for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), "utf-8")
        ]
    for row in rows:
        project, _, path = row["source"].partition(":")
        domain = project
        if name == "zh_wiki":
            domain = f"{project}/{path.rpartition('_')[2][-1]}"  # ten blocks of paragraphs
        elif name in ("en_books", "zh_literature"):
            domain = path.partition("#")[0]
        elif name == "zh_classical":
            domain = f"{project}/{path.split('/')[1] if '/' in path else path}"
        yield LabelledPage(text=row["text"], label="good", language=name[:2], domain=domain, group=domain)


def _crawl(data: Path, wanted: Callable[[dict[str, Any]], bool]) -> Iterator[tuple[dict[str, Any], str]]:
    """(row of the index, HTML) of the crawl's pages that are wanted."""
    folder = data / "crawl"
    with gzip.open(folder / "records.jsonl.gz") as file:
        rows = [json.loads(line) for line in file]
    by_place = {(row["file"], row["offset"]): row for row in rows if row["status"] == 200 and wanted(row)}
    for name in sorted({row["file"] for row in rows}):
        for item in read_warc(MemorySource((folder / name).read_bytes())):
            row = by_place.get((name, item.offset)) if isinstance(item, Record) else None
            if row is None:
                continue
            try:
                body = entity_body(item.body, item.http_headers, max_bytes=8 << 20)
            except UndecodableError:
                continue
            yield row, decode_text(body, item.http_headers.get("content-type", ""))[0]


def _visible(html: str) -> str:
    """What a browser shows, a line a block, with what is hidden by styles."""
    tree = LexborHTMLParser(html)
    for node in tree.css("script,style,noscript,template,head"):
        node.decompose()
    text = tree.body.text(separator="\n") if tree.body else ""
    return "\n".join(line.strip() for line in text.split("\n") if line.strip())


def _made_pages(data: Path) -> Iterator[LabelledPage]:
    with gzip.open(data / "crawl" / "truth.jsonl.gz") as file:
        truth = [json.loads(line) for line in file]
    families = {t["id"]: t.get("spam_kind") or t.get("junk_kind") for t in truth if t["kind"] in ("spam", "junk")}
    for row, html in _crawl(data, lambda row: row["id"] in families):
        text = _visible(html)
        if text:
            yield _bad(text, row["lang"][:2], str(families[row["id"]]))


def _boilerplate(data: Path, rng: random.Random) -> Iterator[LabelledPage]:
    """Of each site with many pages, the lines that stand on a third of them: menus, footers, widgets."""
    pages: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row, html in _crawl(data, lambda row: row["kind"] == "base" and row["lang"][:2] in ("zh", "en")):
        pages[str(row["source"])].append((row["lang"][:2], _visible(html)))
    chosen: list[tuple[int, str, list[tuple[str, str]]]] = []
    for site, shown in sorted(pages.items()):
        if len(shown) < 8:
            continue
        counts = Counter(line for _, text in shown for line in set(text.split("\n")))
        common = {line for line, n in counts.items() if n >= max(3, len(shown) / 3)}
        made = []
        for language, text in shown:
            kept = [line for line in text.split("\n") if line in common]
            if len("".join(kept)) >= 80:
                made.append((language, "\n".join(kept)))
        chosen.append((-len(made), site, made))
    for _, site, made in sorted(chosen)[:_SITES]:
        for language, text in rng.sample(made, min(10, len(made))):
            yield _bad(text, language, f"boilerplate:{site}")


def _units(text: str, unspaced: bool) -> list[str]:
    return list(text) if unspaced else text.split(" ")


def shuffle_all(rng: random.Random, text: str, unspaced: bool) -> str:
    """All words, or characters, in another order."""
    units = _units(text.replace("\n", "" if unspaced else " "), unspaced)
    rng.shuffle(units)
    return ("" if unspaced else " ").join(units)


def shuffle_in_sentences(rng: random.Random, text: str, unspaced: bool) -> str:
    """The words, or characters, of each sentence in another order; the marks stay."""
    made = []
    for sentence in _SENTENCE.split(text):
        units = _units(sentence[:-1], unspaced)
        rng.shuffle(units)
        made.append(("" if unspaced else " ").join(units) + sentence[-1:])
    return ("" if unspaced else " ").join(made)


def swap_neighbours(rng: random.Random, text: str, unspaced: bool) -> str:
    """Every word, or character, changes places with a near one."""
    units = _units(text, unspaced)
    order = sorted(range(len(units)), key=lambda at: at + rng.uniform(0, 5))
    return ("" if unspaced else " ").join(units[at] for at in order)


def scramble_letters(rng: random.Random, text: str, unspaced: bool) -> str:
    """Letters change places within words; without spaces within runs of four."""
    size = 4 if unspaced else 40

    def scrambled(match: re.Match[str]) -> str:
        letters = list(match[0])
        rng.shuffle(letters)
        return "".join(letters)

    return re.sub(rf"\w{{3,{size}}}", scrambled, text)


def mojibake(rng: random.Random, text: str, unspaced: bool) -> str:
    """Decoded as another charset."""
    wrong = rng.choice(["gb18030", "cp1252", "big5"]) if unspaced else rng.choice(["utf-16-le", "cp500", "utf-16-be"])
    return text.encode("utf-8").decode(wrong, "replace")


def read_badly(rng: random.Random, text: str, unspaced: bool) -> str:
    """Characters replaced as a scanner errs."""
    share = rng.uniform(0.12, 0.3)
    pool = "".join(sorted(set(text)))
    return "".join(rng.choice(pool) if c.isalnum() and rng.random() < share else c for c in text)


def stutter(rng: random.Random, text: str, unspaced: bool) -> str:
    """A few sentences again and again, as a model in a loop writes."""
    sentences = [s for s in _SENTENCE.split(text) if len(s) > 10][:12] or [text[:80]]
    some = rng.sample(sentences, min(len(sentences), rng.randrange(1, 4)))
    return ("" if unspaced else " ").join(rng.choice(some) for _ in range(rng.randrange(12, 30)))


def drop_words(rng: random.Random, text: str, unspaced: bool) -> str:
    """A third to a half of the words, or characters, is lost."""
    share = rng.uniform(0.33, 0.5)
    return ("" if unspaced else " ").join(u for u in _units(text, unspaced) if rng.random() > share)


def cells(rng: random.Random, text: str, unspaced: bool) -> str:
    """A table read row by row: scraps and numbers."""
    units = re.findall(r"\w{2,6}", text) if unspaced else text.split()
    made = []
    for _ in range(rng.randrange(30, 90)):
        at = rng.randrange(len(units))
        scrap = units[at : at + rng.randrange(1, 3)]
        made.append(" ".join([*scrap, str(rng.randrange(10_000)), rng.choice(["", "-", "%", "n/a"])]).strip())
    return rng.choice(["\n", " | ", "\t"]).join(made)


MANGLERS: dict[str, Callable[[random.Random, str, bool], str]] = {
    made.__name__: made
    for made in (
        shuffle_all, shuffle_in_sentences, swap_neighbours, scramble_letters, mojibake, read_badly, stutter, drop_words,
        cells,
    )
}  # fmt: skip
