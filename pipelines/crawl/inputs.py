"""From a crawl pattern to the files of the crawl, each with the name that outlives a move.

A crawl is named by a pattern: `path/*.warc.gz` or `s3://bucket/prefix/*.warc.gz`.  Its *root* is the longest
leading folder without a wildcard.  A file is known by its path below the root, its size and the sha256 of its
first and last 64 KiB; neither ETag nor time nor the root itself enters, so a moved or copied crawl is still
the same.

A file is one or more *units*, each a byte range that owns what starts in it (docs/inputs.md).  Pages that lie as
files in folders come in groups, so that a small page does not cost a unit of its own.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from pipelines.crawl.forms import ARCHIVE_FORMS, can_be_cut, form_of
from pipelines.crawl.members import first_member_is_long
from pipelines.crawl.plan_reader import plan_units
from pipelines.crawl.sources import PageSource, RangeStore, Source, StoreSource
from pipelines.errors import ConfigError, InputError

END_BYTES = 64 << 10
_READS_IN_FLIGHT = 16
_PAGES_PER_GROUP = 256  # on average; the most is four times that
_PAGE = pa.struct([pa.field("file", pa.string()), pa.field("size_bytes", pa.int64())])
# A row is a unit.  `pages`: the files of a unit of form html, whose `file` is the first of them; null elsewhere.
INPUT_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("size_bytes", pa.int64()),
        ("ends_sha256", pa.string()),
        ("unit", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("form", pa.string()),
        ("pages", pa.list_(_PAGE)),
    ]
)
_WILDCARD = re.compile(r"[*?\[]")


class _Listed(Protocol):
    key: str
    size_bytes: int


class ListingStore(RangeStore, Protocol):
    """What listing a crawl needs of a store."""

    location: str

    def list(self, prefix: str) -> Iterator[_Listed]:
        """Objects below the prefix, in order of their keys."""
        ...


def crawl_root(pattern: str) -> tuple[str, str]:
    """(root, pattern below it).  A folder, or a pattern ending in `/`, means all crawl files below it."""
    scheme, rest = _split_scheme(pattern)
    if not rest.strip("/"):
        raise ConfigError(
            f"The crawl pattern {pattern!r} names no files.",
            key="crawl",
            mend="Give a pattern such as 'crawl/*.warc.gz' or 's3://bucket/prefix/*.warc.gz'.",
        )
    if rest.endswith("/") or (not scheme and Path(rest).is_dir()):
        return scheme + rest.rstrip("/"), "**"
    if not scheme and Path(rest).is_file():  # also one whose name holds a wildcard
        path = Path(rest)
        return path.parent.as_posix(), re.sub(r"([*?\[])", r"[\1]", path.name)
    parts = rest.split("/")
    fixed = next((n for n, part in enumerate(parts) if _WILDCARD.search(part)), len(parts) - 1)
    lead = "/".join(parts[:fixed])
    if scheme and not lead:
        raise ConfigError(
            f"The bucket of {pattern!r} holds a wildcard.",
            key="crawl",
            mend="Name one bucket: 's3://bucket/prefix/*.warc.gz'.",
        )
    return scheme + (lead or ("/" if rest.startswith("/") else ".")), "/".join(parts[fixed:])


def list_inputs(
    store: ListingStore, below: str, *, pattern: str | None = None, unit_bytes: int | None = None
) -> pa.Table:
    """The units of the crawl as INPUT_SCHEMA rows, in order of file and start; `store` is opened at the crawl root.

    `below` is the second value of `crawl_root`.  Files are cut at multiples of `unit_bytes`, where their form lets a
    reader begin in the middle; None cuts nothing.  `unit` is 32 hex digits; that of an uncut file does not depend on
    `unit_bytes`.  Raises InputError where nothing matches.
    """
    if unit_bytes is not None and unit_bytes < 1:
        raise ConfigError(f"unit_bytes is {unit_bytes}.", key="unit_bytes", mend="Give a number of bytes above 0.")
    found = find_inputs(store, below, pattern=pattern)
    with ThreadPoolExecutor(_READS_IN_FLIGHT) as pool:  # a round trip a file: one by one, 100,000 files take hours
        sums = list(pool.map(lambda item: ends_sha256(store, *item), found))
        edges = list(pool.map(lambda item: _edges(store, *item, unit_bytes), found))
    rows: list[tuple[object, ...]] = []
    pages: list[tuple[str, int, str]] = []
    for (key, size), ends, ranges in zip(found, sums, edges, strict=True):
        form = form_of(key)
        if form == "html":
            pages.append((key, size, ends))
            continue
        for start, end in ranges:
            rows.append((key, size, ends, unit_id(key, size, ends, start, end), start, end, form, None))
    rows += [_page_unit(group) for group in _page_groups(pages, unit_bytes)]
    rows.sort(key=lambda row: (row[0], row[4]))
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=INPUT_SCHEMA)


def find_inputs(store: ListingStore, below: str, *, pattern: str | None = None) -> list[tuple[str, int]]:
    """(key, size in bytes) of every file that is meant, sorted; InputError where nothing matches."""
    found = _found(store, below)
    if not found:
        raise InputError(
            f"No file matches {pattern or store.location.rstrip('/') + '/' + below!r}.",
            key=pattern or below,
            mend="Check the path, and quote the pattern, so that the shell leaves the * alone.",
        )
    return found


def cuts(size_bytes: int, unit_bytes: int) -> list[tuple[int, int]]:
    """[start, end) of each unit: multiples of `unit_bytes`, the last one up to half as long again."""
    count = max(1, (size_bytes + unit_bytes // 2) // unit_bytes)
    return [(n * unit_bytes, size_bytes if n == count - 1 else (n + 1) * unit_bytes) for n in range(count)]


def uncut_files(units: pa.Table, unit_bytes: int) -> list[str]:
    """Files that stay whole although they are larger than a unit: worth a word to whoever waits for them."""
    seen: dict[str, int] = {}
    for name, size, start, end, form in zip(
        *(units[column].to_pylist() for column in ("file", "size_bytes", "start", "end", "form")), strict=True
    ):
        if form != "html" and start == 0 and end == size and len(cuts(size, unit_bytes)) > 1:
            seen[name] = size
    return list(seen)


def unit_name(file: str, size_bytes: int, start: int, end: int) -> str:
    """What a person calls the unit: the file, and the start where it is a part of one (in order as text)."""
    return file if (start, end) == (0, size_bytes) else f"{file}@{start:015d}"


def open_source(
    store: RangeStore, file: str, size_bytes: int, *, pages: Sequence[tuple[str, int]] | None = None
) -> Source:
    """What `read_records` reads for a row of INPUT_SCHEMA; `pages` as (file, size) where the row has them."""
    return StoreSource(store, file, size_bytes) if pages is None else PageSource(store, pages)


def ends_sha256(store: RangeStore, key: str, size_bytes: int) -> str:
    """sha256 of the first 64 KiB and the last 64 KiB (of the whole file where they meet)."""
    if size_bytes == 0:
        return hashlib.sha256().hexdigest()
    if size_bytes <= 2 * END_BYTES:
        ranges: Sequence[tuple[int, int]] = [(0, size_bytes)]
    else:
        ranges = [(0, END_BYTES), (size_bytes - END_BYTES, size_bytes)]
    return hashlib.sha256(b"".join(store.get_ranges(key, ranges))).hexdigest()


def unit_id(file: str, size_bytes: int, ends: str, start: int = 0, end: int | None = None) -> str:
    """32 hex digits that name bytes [start, end) of one crawl file; `end` None is the end of the file."""
    stop = size_bytes if end is None else end
    body = "\0".join(["gristmill.unit/1", file, str(size_bytes), ends, str(start), str(stop)])
    return hashlib.sha256(body.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _found(store: ListingStore, below: str) -> list[tuple[str, int]]:
    """(key, size) of every match, sorted.  All of a folder means its archives, or, where it has none, its pages and
    rows: a read-me beside WARC files is no page.
    """
    if "://" in store.location:
        matches = _matcher(below)
        literal = re.split(r"[*?\[]", below, maxsplit=1)[0]
        prefix = literal[: literal.rfind("/") + 1]
        found = sorted((item.key, item.size_bytes) for item in store.list(prefix) if matches(item.key))
    else:
        found = sorted(_files_of_folder(Path(store.location), below))
    if below != "**":
        return found
    return [item for item in found if form_of(item[0], guess=False) in ARCHIVE_FORMS] or found


def _edges(store: RangeStore, key: str, size_bytes: int, unit_bytes: int | None) -> list[tuple[int, int]]:
    """[start, end) of the file's units: one where it is small, of a form that is read from its start, or one member."""
    whole = [(0, size_bytes)]
    form = form_of(key)
    if form == "cc_plan":
        return plan_units(StoreSource(store, key, size_bytes)) or whole
    if unit_bytes is None or not can_be_cut(key):
        return whole
    edges = cuts(size_bytes, unit_bytes)
    if len(edges) > 1 and form in ("warc", "arc", "wet"):
        source = StoreSource(store, key, size_bytes, block_bytes=END_BYTES)
        return whole if first_member_is_long(source) else edges
    return edges


def _page_groups(pages: list[tuple[str, int, str]], unit_bytes: int | None) -> Iterator[list[tuple[str, int, str]]]:
    """Neighbours in one group.  Names decide where a group ends, so that a new page changes its own group alone."""
    group: list[tuple[str, int, str]] = []
    held = 0
    for page in sorted(pages):
        group.append(page)
        held += page[1]
        digest = hashlib.sha256(page[0].encode("utf-8", "surrogateescape")).digest()
        ends_here = int.from_bytes(digest[:4], "big") % _PAGES_PER_GROUP == 0
        if ends_here or len(group) >= 4 * _PAGES_PER_GROUP or (unit_bytes is not None and held >= unit_bytes):
            yield group
            group, held = [], 0
    if group:
        yield group


def _page_unit(group: list[tuple[str, int, str]]) -> tuple[object, ...]:
    file, size = group[0][0], sum(page[1] for page in group)
    body = "\0".join(f"{name}\0{page_bytes}\0{ends}" for name, page_bytes, ends in group)
    ends = hashlib.sha256(body.encode("utf-8", "surrogateescape")).hexdigest()
    members = [{"file": name, "size_bytes": page_bytes} for name, page_bytes, _ in group]
    return file, size, ends, unit_id(file, size, ends), 0, size, "html", members


def _files_of_folder(root: Path, below: str) -> Iterator[tuple[str, int]]:
    """(path below the root, size) of each match.

    Goes down only where the pattern leads, so that `*.warc.gz` in a home folder does not read all of it; links to
    folders are followed where the pattern names that level, never below `**`.
    """
    if "**" in below:
        yield from _files_anywhere(root, _matcher(below))
        return
    level, _, rest = below.partition("/")
    matches = _matcher(level)
    try:
        entries = sorted(root.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _unlisted(error) from None
    for entry in entries:
        if not matches(entry.name):
            continue
        if rest and entry.is_dir():
            yield from ((f"{entry.name}/{key}", size) for key, size in _files_of_folder(entry, rest))
        elif not rest and entry.is_file():
            yield _utf8(entry.name), entry.stat().st_size


def _files_anywhere(root: Path, matches: Callable[[str], bool]) -> Iterator[tuple[str, int]]:
    def refuse(error: OSError) -> None:
        raise _unlisted(error)

    for folder, _, names in os.walk(root, onerror=refuse):
        for path in (Path(folder, name) for name in names):
            key = path.relative_to(root).as_posix()
            if matches(key) and path.is_file():
                yield _utf8(key), path.stat().st_size


def _unlisted(error: OSError) -> InputError:
    return InputError(
        f"{error.filename} cannot be listed: {error.strerror}",
        key=str(error.filename),
        mend="Give yourself the right to read it, or a pattern that does not lead there.",
    )


def _utf8(name: str) -> str:
    """The name, which goes into tables and ids."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"The file name {os.fsencode(name)!r} is not UTF-8.", mend="Rename the file; names are kept as text."
        ) from None
    return name


def _split_scheme(pattern: str) -> tuple[str, str]:
    match = re.match(r"[a-z][a-z0-9]*://", pattern)
    return (match.group(), pattern[match.end() :]) if match else ("", pattern)


def _matcher(below: str) -> Callable[[str], bool]:
    """Whether a key below the root is meant; `*` stays within a folder, `**` crosses folders."""
    if below == "**":
        return lambda key: form_of(key, guess=False) is not None
    out, at = [], 0
    while at < len(below):
        char = below[at]
        if below.startswith("**/", at):
            out.append("(?:.*/)?")
            at += 3
        elif below.startswith("**", at):
            out.append(".*")
            at += 2
        elif char == "[" and "]" in below[at + 2 :]:
            close = below.index("]", at + 2)
            inside = re.sub(r"([\\\[&|~])", r"\\\1", below[at + 1 : close])
            out.append("[" + ("^" + inside[1:] if inside.startswith("!") else inside) + "]")
            at = close + 1
        else:
            out.append({"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char)))
            at += 1
    try:
        compiled = re.compile("".join(out) + r"\Z", re.DOTALL)
    except re.error as error:
        raise ConfigError(
            f"The crawl pattern {below!r} cannot be read: {error}.",
            key="crawl",
            mend="Write ranges as [a-z], and [[] for a bracket.",
        ) from None
    return lambda key: compiled.match(key) is not None
