"""`gristmill takedown add|apply|verify|purge`: remove pages from everything that was made of them, and prove it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from cluster.cli.options import find_root, print_json, print_table, size, with_json, with_root
from jobs.runtime.context import Context
from jobs.runtime.progress import progress_for
from pipelines.datasets.store import open_store
from pipelines.errors import ConfigError, InputError, IntegrityError

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_SHOWN = 20


@click.group(name="takedown")
def command() -> None:
    """Remove pages everywhere, and prove it.

    add: put addresses, domains, texts or ids on the list (as hashes). apply: find them, and put tombstones in their
    place in a new version of each dataset. verify: scan for what is left. purge: delete the old bytes too.
    """


def _context(root: str | None, engine: str = "process", spark_master: str | None = None) -> Context:
    return Context(
        store=open_store(find_root(root)),
        engine=engine,
        spark_master=spark_master,
        progress=progress_for(sys.stderr),
    )


_with_engine = click.option(
    "--engine", type=click.Choice(["process", "spark", "ray"]), default="process", show_default=True, help="Engine."
)


@command.command()
@click.option("--urls", type=_FILE, multiple=True, help="A URL a line; compared in canonical form.")
@click.option("--domains", type=_FILE, multiple=True, help="A domain a line; means all hosts below it, too.")
@click.option("--digests", type=_FILE, multiple=True, help="A text digest a line; see `takedown digest`.")
@click.option("--ids", type=_FILE, multiple=True, help="A document id a line.")
@click.option("--reason", default="", help="Kept with the request; write nothing of a page into it.")
@with_root
@with_json
def add(
    urls: tuple[Path, ...],
    domains: tuple[Path, ...],
    digests: tuple[Path, ...],
    ids: tuple[Path, ...],
    reason: str,
    root: str | None,
    as_json: bool,
) -> None:
    """Put targets on the list. Nothing is removed yet; new crawls refuse them from now on."""
    from jobs.takedown_documents import note, request
    from pipelines.takedown.requests import targets

    rows: list[dict[str, Any]] = []
    for kind, files in (("url", urls), ("domain", domains), ("text", digests), ("id", ids)):
        for file in files:
            rows += targets(kind, file.read_text("utf-8").splitlines(), source=str(file))
    if not rows:
        raise ConfigError("no target is given", mend="--urls FILE, --domains FILE, --digests FILE or --ids FILE")
    context = _context(root)
    context.prepare()
    manifest, new = request(context, rows, reason)
    version = manifest.version if manifest is not None else 0
    if new:
        note(context, "add", {"takedowns": version, "targets": new})
    if as_json:
        print_json({"root": context.root, "takedowns": version, "targets": len(rows), "new": new})
        return
    click.echo(f"root: {context.root}")
    click.echo(f"{new} new targets on the list, {len(rows) - new} were there already: takedowns v{version}")
    click.echo("next: `gristmill takedown apply --dry-run` shows what it would remove")


@command.command()
@click.option("--dry-run", is_flag=True, help="Tell what would be removed; change no dataset.")
@click.option("--near", "near_file", type=click.Path(dir_okay=False, path_type=Path), help="Write near copies here.")
@_with_engine
@click.option("--spark-master", metavar="URL", help="Instead of local[*].")
@with_root
@with_json
def apply(
    dry_run: bool, near_file: Path | None, engine: str, spark_master: str | None, root: str | None, as_json: bool
) -> None:
    """Find what the list names, with exact copies of its text, and put tombstones in its place everywhere.

    Near copies are not removed: they are counted, and `--near FILE` writes their ids for a decision, which
    `takedown add --ids FILE` puts on the list.
    """
    from jobs.takedown_documents import apply as apply_list
    from jobs.takedown_runs import runs_that_saw

    context = _context(root, engine, spark_master)
    try:
        if not dry_run:
            context.prepare()
        done = apply_list(context, dry_run=dry_run)
    finally:
        context.close()
    near = [row for row in done.near.to_pylist() if row["id"]]
    if near_file is not None:
        near_file.write_text("".join(f"{row['id']}\n" for row in near), "utf-8")
    runs = runs_that_saw(context.store)
    if as_json:
        print_json(
            {"root": context.root, "takedowns": done.listed.version, "found": done.found, "near": near,
             "rewritten": done.rewritten, "runs": runs, "dry_run": dry_run}
        )  # fmt: skip
        return
    click.echo(f"root: {context.root}")
    told = ", ".join(f"{n} by {kind}" for kind, n in done.found.items()) or "none that still stands"
    click.echo(f"documents named by takedowns v{done.listed.version}: {told}")
    if near:
        where = f", ids in {near_file}" if near_file else " (--near FILE writes their ids)"
        click.echo(f"{len(near)} near copies of them stay, for you to decide{where}")
        print_table(["id", "similarity"], [[row["id"], row["similarity"]] for row in near[:_SHOWN]])
    for name, rows in done.rewritten.items():
        click.echo(f"  {name}: {rows} {'tokens' if name.startswith('tokens') else 'rows'} in a new version")
    if runs:
        click.echo("runs whose data held them:")
        print_table(
            ["run", "documents", "steps that saw them", "first", "last"],
            [[r["run"], r["documents"], r["steps"], r["first_step"], r["last_step"]] for r in runs],
        )
    if dry_run:
        click.echo("no dataset was changed; leave --dry-run out to remove them")
    else:
        click.echo("next: `gristmill takedown verify`; older versions keep the bytes until `takedown purge --delete`")


@command.command()
@click.option("--all-objects", is_flag=True, help="Every object under the root, not the latest versions alone.")
@_with_engine
@with_root
@with_json
def verify(all_objects: bool, engine: str, root: str | None, as_json: bool) -> None:
    """Prove by a scan that nothing listed is left. Exit code 5 where something is."""
    from jobs.takedown_purge import verify as scan

    context = _context(root, engine)
    try:
        proof = scan(context, all_objects=all_objects)
    finally:
        context.close()
    left = proof.left.to_pylist()
    if as_json:
        print_json({"root": context.root, "objects": proof.objects, "left": left, "all_objects": all_objects})
        if not left:
            return
    else:
        click.echo(f"root: {context.root}")
        scope = "all objects" if all_objects else "the latest versions"
        click.echo(f"{proof.objects} objects of {scope} were read: something listed is left in {len(left)}")
        named = [[r["rows"], r["what"], f"{r['key']} {r['version'] or ''}".rstrip()] for r in left[:_SHOWN]]
        print_table(["rows", "of", "in"], named) if left else None
    if left:
        mend = "`gristmill takedown purge` deletes them" if all_objects else "`gristmill takedown apply`"
        raise IntegrityError(f"{len(left)} objects still hold something that is listed", mend=mend)


@command.command()
@click.option("--delete", is_flag=True, help="Delete for good. Without it, only tell.")
@_with_engine
@with_root
@with_json
def purge(delete: bool, engine: str, root: str | None, as_json: bool) -> None:
    """Delete the bytes that older versions still hold, with all object versions of a bucket. A dry run first."""
    from jobs.takedown_purge import purge as purge_old

    context = _context(root, engine)
    try:
        found = purge_old(context, delete=delete)
    finally:
        context.close()
    if as_json:
        print_json(
            {"root": context.root, "objects": found.keys,
             "versions": [{"key": v.key, "version": v.version, "is_mark": v.is_mark} for v in found.versions],
             "bytes": found.size_bytes, "deleted": found.deleted, "models": found.models, "runs": found.runs}
        )  # fmt: skip
        return
    click.echo(f"root: {context.root}")
    verb = "deleted" if found.deleted else "would be deleted"
    kept = f" and {len(found.versions)} versions and marks that the bucket keeps" if found.versions else ""
    told = f"{len(found.keys)} objects{kept}, {size(found.size_bytes)}, {verb}"
    click.echo(f"{told}: older versions of datasets lose what they hold")
    for key in found.keys[:_SHOWN]:
        click.echo(f"  {key}")
    for version in found.versions[:_SHOWN]:
        click.echo(f"  {version.key}, {'mark of deletion' if version.is_mark else 'version'} {version.version}")
    if len(found.keys) > _SHOWN or len(found.versions) > _SHOWN:
        click.echo("  ... (--json lists all)")
    for name in found.models:
        click.echo(f"  {name} was made of data that held the pages: it is not changed by this")
    for name in found.runs:
        click.echo(f"  run {name} trained on them: its checkpoints are not changed by this")
    click.echo("backups, mirrors and exported copies are not known here")
    if not found.deleted and (found.keys or found.versions):
        click.echo("next: the same with --delete, then `gristmill takedown verify --all-objects`")


@command.command()
@click.argument("files", nargs=-1, required=True, type=_FILE)
def digest(files: tuple[Path, ...]) -> None:
    """Print the digest of each text FILE, for `takedown add --digests`. Case, width and punctuation do not matter."""
    import pyarrow as pa

    from pipelines.takedown.requests import text_digests

    for file in files:
        try:
            text = file.read_text("utf-8")
        except UnicodeDecodeError as e:
            raise InputError(f"{file} is not UTF-8: {e}", mend="convert it first: iconv -f GB18030 -t UTF-8") from None
        found = text_digests(pa.array([text], pa.large_string()))[0].as_py()
        if found is None:
            raise InputError(f"{file} holds no letter and no digit")
        click.echo(found)
