"""`gristmill datasets report`: what deduplication removed, with samples, on the screen or as a page."""

from __future__ import annotations

from pathlib import Path

import click

from cluster.cli.options import clip, open_root, print_json, visible, with_json, with_root


@click.command(name="report")
@click.argument("name", default="dedup")
@click.option("--output", type=click.Path(path_type=Path), help="Write a page of HTML to this file.")
@with_root
@with_json
def command(name: str, output: Path | None, root: str | None, as_json: bool) -> None:
    """Tell what deduplication removed: clusters by size, the biggest with samples of their texts, domains.

    NAME is an output of dedup_documents, with @VERSION for an older one.
    """
    from cluster.cli.datasets import open_named
    from pipelines.dedup.report import dedup_page, page_html, page_text

    store = open_root(root)
    page = dedup_page(open_named(store, name))
    if output is not None:
        output.write_text(page_html(page), "utf-8")
    if as_json:
        print_json({"root": store.location, **page})
        return
    if output is not None:
        click.echo(f"{output}: {page['dataset']}")
        return
    click.echo(f"root: {store.location}")
    for line in page_text(page, visible):
        click.echo(clip(line, 240))
