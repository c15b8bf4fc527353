"""`gristmill datasets`: what is stored under a root."""

from __future__ import annotations

import re
from typing import Any

import click

from cluster.cli import dedup_report
from cluster.cli.options import clip, open_root, print_json, print_table, size, visible, with_json, with_root
from pipelines.datasets import Dataset, open_dataset
from pipelines.datasets.gc import collect_garbage, names_of
from pipelines.datasets.manifest import latest_manifest
from pipelines.datasets.store import Store
from pipelines.errors import ConfigError


@click.group(name="datasets")
def command() -> None:
    """Look at what is stored. NAME is a dataset or `artifacts/NAME`; NAME@7 is version 7."""


command.add_command(dedup_report.command)


def open_named(store: Store, name: str) -> Dataset:
    """NAME or NAME@VERSION."""
    base, _, version = name.partition("@")
    if version and not version.isdigit():
        raise ConfigError(f"{name!r}: a version is a number", mend=f"for example {base}@1")
    return open_dataset(store, base, int(version) if version else None)


@command.command()
@with_root
@with_json
def ls(root: str | None, as_json: bool) -> None:
    """List datasets and artifacts, newest version of each."""
    store = open_root(root)
    found = [m for name in names_of(store) if (m := latest_manifest(store, name))]
    if as_json:
        print_json({"root": store.location, "datasets": [_summary(store, m) for m in found]})
        return
    click.echo(f"root: {store.location}")
    if not found:
        click.echo("nothing here yet: `make run` or `gristmill run local` fills it")
        return
    print_table(
        ["name", "v", "kind", "rows", "size", "created"],
        [
            [
                m.name,
                m.version,
                m.kind,
                m.part_list["rows"],
                size(m.part_list["bytes"]),
                m.created_at[:16].replace("T", " "),
            ]
            for m in found
        ],
    )


def _summary(store: Store, m: Any) -> dict[str, Any]:
    return {
        "name": m.name,
        "version": m.version,
        "kind": m.kind,
        "rows": m.part_list["rows"],
        "bytes": m.part_list["bytes"],
        "content_sum": m.content_sum,
        "manifest_sha256": m.sha256,
        "created_at": m.created_at,
        "job": m.job["name"],
    }


@command.command()
@click.argument("name")
@with_root
@with_json
def show(name: str, root: str | None, as_json: bool) -> None:
    """Show a version: parents, books, statistics, columns."""
    store = open_root(root)
    m = open_named(store, name).manifest
    if as_json:
        print_json({**m.body(), "sha256": m.sha256})
        return
    click.echo(f"{m.name} version {m.version} ({m.kind})   root: {store.location}")
    click.echo(f"made {m.created_at} by {m.job['name']}, stage {m.job['stage_id'][:12]}")
    if m.extends:
        click.echo(f"extends version {m.extends['version']}")
    for p in m.parents:
        click.echo(f"parent ({p['role']}): {p['name']} version {p['version']}")
    pl = m.part_list
    click.echo(f"{pl['rows']} rows, {pl['parts']} parts, {size(pl['bytes'])}, content {m.content_sum}")
    for title, value in (("books", m.books), ("stats", m.stats)):
        if value:
            click.echo(f"\n{title}")
            _tree(value, "  ")
    if m.schema:
        click.echo("\ncolumns")
        for column in m.schema:
            click.echo(clip(f"  {column['name']} {column['type']}  {column['doc']}", 100))
    click.echo(f"\nnext: gristmill datasets sample {m.name} -n 3")


def _tree(value: dict[str, Any], indent: str) -> None:
    for key, inner in value.items():
        if isinstance(inner, dict):
            if len(inner) > 12:
                shown = dict(sorted(inner.items(), key=lambda x: -x[1] if isinstance(x[1], int) else 0)[:12])
                click.echo(f"{indent}{visible(key)} ({len(inner)}, the largest)")
                _tree(shown, indent + "  ")
            else:
                click.echo(f"{indent}{visible(key)}")
                _tree(inner, indent + "  ")
        else:
            click.echo(f"{indent}{visible(key)}: {visible(inner)}")


_WHERE = re.compile(r"""\s*([A-Za-z_][\w.]*)\s*(<=|>=|!=|=|<|>)\s*("[^"]*"|'[^']*'|[^\s]+)\s*""")


def parse_where(text: str) -> list[tuple[str, str, Any]]:
    """`language="zh" and score<0.3` as (column, operator, value)."""
    conditions = []
    for piece in re.split(r"\s+and\s+", text):
        m = _WHERE.fullmatch(piece)
        if not m:
            raise ConfigError(
                f"--where: cannot read {piece!r}",
                mend="""for example --where 'language="zh" and length>2000'""",
            )
        raw = m[3]
        if raw[0] in "\"'":
            value: Any = raw[1:-1]
        else:
            try:
                value = float(raw) if "." in raw else int(raw)
            except ValueError:
                value = raw
        conditions.append((m[1], m[2], value))
    return conditions


@command.command()
@click.argument("name")
@click.option("-n", "count", default=5, show_default=True, help="Rows.")
@click.option("--where", help="""Condition, e.g. 'language="zh" and length>2000'.""")
@click.option("--seed", default=0, show_default=True, help="Another seed, another sample.")
@with_root
@with_json
def sample(name: str, count: int, where: str | None, seed: int, root: str | None, as_json: bool) -> None:
    """Show rows drawn with equal chance (with --where: the first that match)."""
    dataset = open_named(open_root(root), name)
    rows = _matching(dataset, parse_where(where), count) if where else dataset.sample(count, seed=seed).to_pylist()
    if as_json:
        print_json({"dataset": dataset.name, "version": dataset.manifest.version, "rows": rows})
        return
    for row in rows:
        for key, value in row.items():
            if value is not None:
                click.echo(clip(f"{key}: {visible(value)}", 240 if key == "text" else 100))
        click.echo("")
    click.echo(
        f"{len(rows)} rows of {dataset.name} version {dataset.manifest.version}   root: {dataset.store.location}"
    )


def _matching(dataset: Dataset, conditions: list[tuple[str, str, Any]], count: int) -> list[dict[str, Any]]:
    import operator

    import pyarrow.compute as pc

    operators = {
        "=": "equal",
        "!=": "not_equal",
        "<": "less",
        "<=": "less_equal",
        ">": "greater",
        ">=": "greater_equal",
    }
    rows: list[dict[str, Any]] = []
    for batch in dataset.batches():
        mask = None
        for column, op, value in conditions:
            if column not in batch.schema.names:
                raise ConfigError(
                    f"{dataset.name} has no column {column!r}",
                    mend=f"columns: {', '.join(batch.schema.names)}",
                )
            hit = pc.fill_null(getattr(pc, operators[op])(batch.column(column), value), False)
            mask = hit if mask is None else pc.and_(mask, hit)
        rows += batch.filter(mask).to_pylist()
        if len(rows) >= count:
            break
    return rows[: operator.index(count)]


@command.command()
@click.argument("name")
@click.option("--role", help="part, ledger, shard, idx, docs, crc, file; default: all.")
@with_root
@with_json
def files(name: str, role: str | None, root: str | None, as_json: bool) -> None:
    """Name the objects of one version (globbing under parts/ is never right)."""
    dataset = open_named(open_root(root), name)
    rows = [r for r in dataset.part_list.to_pylist() if role in (None, r["role"]) and r["role"] != "none"]
    if as_json:
        keep = ("role", "key", "unit", "input", "rows", "bytes", "sha256", "cell", "tokens", "generation")
        print_json({"root": dataset.store.location, "objects": [{k: r[k] for k in keep} for r in rows]})
        return
    for row in rows:
        click.echo(f"{dataset.store.location}/{row['key']}")


@command.command()
@click.option("--delete", is_flag=True, help="Delete what an earlier run of gc listed, if still unused.")
@click.option("--grace-hours", default=24.0, show_default=True, help="Age of the list before anything is deleted.")
@click.option("--dry-run", is_flag=True, help="Print, write nothing.")
@with_root
@with_json
def gc(delete: bool, grace_hours: float, dry_run: bool, root: str | None, as_json: bool) -> None:
    """List objects that no version, run or job in flight names; a day later, delete them."""
    report = collect_garbage(open_root(root), delete=delete, grace_hours=grace_hours, dry_run=dry_run)
    if as_json:
        print_json(report)
        return
    click.echo(f"root: {report['root']}")
    click.echo(
        f"{report['live']} objects in use, {len(report['candidates'])} that nothing names ({size(report['bytes'])})"
    )
    for key in report["candidates"][:20]:
        click.echo(f"  {key}")
    if len(report["candidates"]) > 20:
        click.echo(f"  ... and {len(report['candidates']) - 20} more (--json lists all)")
    click.echo(report["next"])
