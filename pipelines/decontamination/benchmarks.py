"""The examples of evaluation sets: a folder of files as their makers publish them.

A file or archive is a benchmark, called by its name up to the first dot; in an archive, and in a sub-folder, files keep
their path in the example's name. Read are .jsonl, .json, .csv and .txt, plain or under .gz or .zst, and .tar, .tar.gz
and .tar.zst of them. An example is a row: all its strings, question and answer, one after another.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from pipelines.errors import InputError

MOST_BYTES = 4 << 30  # of one file, inflated
MOST_CHARACTERS = 200_000  # of an example
SUFFIXES = (".jsonl", ".json", ".csv", ".txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One example: `name` is file and row within its benchmark."""

    benchmark: str
    name: str
    text: str


def read_benchmarks(folder: Path) -> list[Example]:
    """The examples of all files below the folder, in the order of their names; InputError where there are none."""
    if not folder.is_dir():
        raise InputError(f"no folder {folder}", mend="give the folder of the evaluation sets: --set benchmarks=FOLDER")
    found: list[Example] = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        parts = path.relative_to(folder).parts
        found += _examples(parts[0].split(".")[0], "/".join(parts[1:] or parts), path.read_bytes())
    if not found:
        raise InputError(f"no examples in {folder}", mend=f"files of {', '.join(SUFFIXES)}, also packed")
    return found


def _examples(benchmark: str, name: str, body: bytes) -> Iterator[Example]:
    for plain, content in _unpacked(name, body):
        if not plain.endswith(SUFFIXES):
            continue
        text = content.decode("utf-8-sig", "replace")
        for number, row in enumerate(_rows(plain, text)):
            joined = "\n".join(_strings(row))[:MOST_CHARACTERS]
            if joined.strip():
                yield Example(benchmark=benchmark, name=f"{plain}:{number}", text=joined)


def _unpacked(name: str, body: bytes) -> Iterator[tuple[str, bytes]]:
    """(name without packing, bytes) of a file, or of each member of an archive."""
    try:
        if name.endswith(".gz"):
            name, body = name.removesuffix(".gz"), _bounded(gzip.GzipFile(fileobj=io.BytesIO(body)), name)
        elif name.endswith(".zst"):
            reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body))
            name, body = name.removesuffix(".zst"), _bounded(reader, name)
        if not name.endswith(".tar"):
            yield name, body
            return
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:  # members are read, never written anywhere
            for member in sorted((m for m in archive if m.isfile()), key=lambda m: m.name):
                held = archive.extractfile(member)
                if held is not None:
                    yield member.name, held.read()
    except (OSError, EOFError, zstandard.ZstdError, tarfile.TarError) as error:
        raise InputError(f"{name} cannot be unpacked: {error}") from error


def _bounded(reader: Any, name: str) -> bytes:
    body = reader.read(MOST_BYTES + 1)
    if len(body) > MOST_BYTES:
        raise InputError(f"{name} inflates to more than {MOST_BYTES} bytes")
    return body


def _rows(name: str, text: str) -> Iterator[Any]:
    if name.endswith(".txt"):
        yield text
    elif name.endswith(".csv"):
        csv.field_size_limit(1 << 24)
        yield from csv.reader(io.StringIO(text))
    elif name.endswith(".jsonl"):
        for line in text.splitlines():
            if line.strip():
                yield _json(name, line)
    else:
        whole = _json(name, text)
        held = [v for v in whole.values() if isinstance(v, list)] if isinstance(whole, dict) else []
        yield from whole if isinstance(whole, list) else (held[0] if held else [whole])


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{name}: {error}", mend="the file is no JSON") from None


def _strings(value: Any) -> Iterator[str]:
    """The strings in a value, in their order."""
    stack = [value]
    while stack:
        top = stack.pop()
        if isinstance(top, str):
            yield top
        elif isinstance(top, dict):
            stack += reversed(list(top.values()))
        elif isinstance(top, list):
            stack += reversed(top)
