"""Options that many commands share, and how values are shown."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from jobs.runtime.entry import default_root
from pipelines.datasets.store import Store, open_store
from pipelines.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_ROOT = "./out"


def with_root(function: F) -> F:
    """`--root`: where the datasets lie."""
    return click.option(
        "--root",
        metavar="FOLDER|s3://B/P",
        help="Where the datasets lie (or GRISTMILL_ROOT, or ./gristmill.yaml).",
    )(function)


def with_json(function: F) -> F:
    """`--json`: one JSON document on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")(function)


def find_root(root: str | None) -> str:
    """--root, GRISTMILL_ROOT, gristmill.yaml, else ./out."""
    return root or default_root() or DEFAULT_ROOT


def open_root(root: str | None) -> Store:
    """The store of the root."""
    found = find_root(root)
    if not found:
        raise ConfigError("no root is given", mend="--root FOLDER|s3://bucket/prefix")
    return open_store(found)


def print_json(value: Any) -> None:
    """One document."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=1, default=str))


def visible(text: object) -> str:
    """Crawled text made safe to show: control and direction characters become escapes."""
    shown = []
    for c in str(text):
        if c in "\n\t":
            shown.append(" ")
        elif unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp"):
            shown.append(f"\\u{ord(c):04x}")
        else:
            shown.append(c)
    return "".join(shown)


def width_of(text: str) -> int:
    """Columns on a terminal: wide characters count two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def clip(text: str, columns: int) -> str:
    """At most so many columns, with an ellipsis where cut."""
    if width_of(text) <= columns:
        return text
    kept, used = [], 0
    for c in text:
        used += width_of(c)
        if used > columns - 1:
            break
        kept.append(c)
    return "".join(kept) + "…"


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, columns: int = 80) -> None:
    """Left-aligned columns, numbers right; the last column is cut to the terminal's width where it is one."""
    cells = [[visible(c) if c is not None else "-" for c in row] for row in rows]
    widths = [max([width_of(h), *(width_of(r[i]) for r in cells)]) for i, h in enumerate(headers)]
    if sys.stdout.isatty():
        columns = click.get_terminal_size()[0] if hasattr(click, "get_terminal_size") else _terminal_columns()
    numeric = [all(_is_number(r[i]) for r in rows) if rows else False for i in range(len(headers))]
    for line in [list(headers), *cells]:
        parts = []
        for i, cell in enumerate(line):
            space = " " * (widths[i] - width_of(cell))
            parts.append(space + cell if numeric[i] else cell + space)
        click.echo(clip("  ".join(parts).rstrip(), columns) if sys.stdout.isatty() else "  ".join(parts).rstrip())


def _terminal_columns() -> int:
    import shutil

    return shutil.get_terminal_size((80, 24)).columns


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def size(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")
