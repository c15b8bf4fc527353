"""Artifacts: models and tokenizers, committed like datasets under `artifacts/NAME`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from jobs.runtime.context import Context
from jobs.runtime.run import fingerprint
from jobs.runtime.stage import Parent
from pipelines.datasets.content import add_sums
from pipelines.datasets.manifest import PART_LIST, Manifest, commit_manifest, latest_manifest, put_part_list
from pipelines.datasets.parts import encode_file
from pipelines.errors import ConflictError


def make_artifact(
    context: Context,
    name: str,
    kind: str,
    *,
    job: str,
    stage_id: str,
    config: dict[str, Any],
    parents: Sequence[Parent] = (),
    inputs: Sequence[str] = (),
    make: Callable[[], tuple[Mapping[str, bytes], dict[str, Any]]],
) -> Manifest:
    """The finished artifact, or what `make` returns, (files by name, stats), committed as its next version.

    `inputs`: hashes of inputs that are no datasets. Content sums are over the files' bytes, so `make` must be
    deterministic and leave out what differs from run to run.
    """
    full = name if name.startswith("artifacts/") else f"artifacts/{name}"
    units = pa.table({"unit": pa.array(sorted(inputs), pa.string())})
    mark = fingerprint(stage_id, full, units, [p.manifest for p in parents])
    latest = latest_manifest(context.store, full)
    if latest is not None and latest.fingerprint == mark:
        context.progress.say(f"{full} v{latest.version} is finished: nothing to do")
        return latest
    with context.progress.stage(job, 1) as tick:
        files, stats = make()
        tick(PART_LIST.empty_table())
    rows = [_put(context, full, stage_id, mark, file, body) for file, body in sorted(files.items())]
    for _ in range(5):
        latest = latest_manifest(context.store, full)
        if latest is not None and latest.fingerprint == mark:
            return latest
        version = latest.version + 1 if latest else 1
        for row in rows:
            row["generation"] = version
        part_list, head, _ = put_part_list(context.store, full, pa.Table.from_pylist(rows, schema=PART_LIST))
        manifest = Manifest(
            name=full,
            version=version,
            kind=kind,
            parents=[p.manifest.pin(p.role) for p in parents],
            job={
                "name": job,
                "stage_id": stage_id,
                "fingerprint": mark,
                "config": config,
                "producers": [context.producer()],
            },
            books={},
            part_list=part_list,
            head=head,
            schema=[],
            stats=stats,
            artifacts=[],
            content_sum=add_sums(r["content_sum"] for r in rows),
            created_at=context.now(),
        )
        if (stored := commit_manifest(context.store, manifest, context.writer)) is not None:
            context.committed.append(stored)
            context.progress.say(f"{full} v{stored.version}: {len(rows)} files, content {stored.content_sum}")
            return stored
    raise ConflictError(f"{full}: lost the race for the next version five times", mend="run the same command again")


def _put(context: Context, name: str, stage_id: str, unit: str, file: str, body: bytes) -> dict[str, Any]:
    e = encode_file(name, unit, "file", "", body, 1, cell=None, tokens=None)
    context.store.put(e.key, e.body)
    return {
        "role": e.role,
        "key": e.key,
        "stage_id": stage_id,
        "unit": unit,
        "input": file,
        "rows": e.rows,
        "bytes": len(body),
        "sha256": e.sha256,
        "content_sum": e.content_sum,
    }
