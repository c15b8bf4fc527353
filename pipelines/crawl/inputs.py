"""From a crawl pattern to the files of the crawl, each with the name that outlives a move.

A crawl is named by a pattern: `path/*.warc.gz` or `s3://bucket/prefix/*.warc.gz`.  Its *root* is the longest
leading folder without a wildcard.  A file is known by its path below the root, its size and the sha256 of its
first and last 64 KiB; neither ETag nor time nor the root itself enters, so a moved or copied crawl is still
the same.
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

from pipelines.crawl.sources import RangeStore
from pipelines.errors import ConfigError, InputError

END_BYTES = 64 << 10
_READS_IN_FLIGHT = 16
INPUT_SCHEMA = pa.schema(
    [("file", pa.string()), ("size_bytes", pa.int64()), ("ends_sha256", pa.string()), ("unit", pa.string())]
)
CRAWL_SUFFIXES = (".warc.gz", ".warc.zst", ".warc", ".wet.gz", ".wet")
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


def list_inputs(store: ListingStore, below: str, *, pattern: str | None = None) -> pa.Table:
    """The files of the crawl as INPUT_SCHEMA rows, sorted by `file`; `store` is opened at the crawl root.

    `below` is the second value of `crawl_root`.  `unit` is the 32 hex name of the whole file as one unit.
    Raises InputError where nothing matches.
    """
    if "://" in store.location:
        matches = _matcher(below)
        literal = re.split(r"[*?\[]", below, maxsplit=1)[0]
        prefix = literal[: literal.rfind("/") + 1]
        found = sorted((item.key, item.size_bytes) for item in store.list(prefix) if matches(item.key))
    else:
        found = sorted(_files_of_folder(Path(store.location), below))
    if not found:
        raise InputError(
            f"No file matches {pattern or store.location.rstrip('/') + '/' + below!r}.",
            key=pattern or below,
            mend="Check the path, and quote the pattern, so that the shell leaves the * alone.",
        )
    with ThreadPoolExecutor(_READS_IN_FLIGHT) as pool:  # a round trip a file: one by one, 100,000 files take hours
        sums = list(pool.map(lambda item: ends_sha256(store, *item), found))
    names = [key for key, _ in found]
    sizes = [size for _, size in found]
    units = [unit_id(*row) for row in zip(names, sizes, sums, strict=True)]
    return pa.table([names, sizes, sums, units], schema=INPUT_SCHEMA)


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
        return lambda key: key.endswith(CRAWL_SUFFIXES)
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
