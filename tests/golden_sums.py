"""Content sums of the stages before the models, on the sample crawl: `python -m tests.golden_sums` writes them.

A sum that changes without a stage's VERSION going up would let a store mix old and new content.
"""

from __future__ import annotations

import json
from pathlib import Path

from jobs import dedup_documents, extract_crawl, filter_documents
from jobs.runtime.context import Context
from pipelines.datasets.store import MemoryStore

GOLDEN = Path(__file__).with_name("golden_sums.json")


def sample_sums() -> dict[str, dict]:
    """{dataset: {sum, rows, job, version}} of a run over the sample crawl, without quality scores."""
    store = MemoryStore()
    found: dict[str, dict] = {}
    for job, settings in ((extract_crawl, {}), (dedup_documents, {}), (filter_documents, {"quality": ""})):
        made = job.run(job.Config(**settings), Context(store=store, engine="process", flush_seconds=0.0))
        for manifest in made:
            found[manifest.name] = {
                "content_sum": manifest.content_sum,
                "rows": manifest.part_list["rows"],
                "job": job.__name__.rpartition(".")[2],
                "version": job.VERSION,
            }
    return found


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(sample_sums(), indent=1) + "\n")
