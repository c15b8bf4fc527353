"""Fit an ensemble: the equal-mass buckets of several scores over a corpus, as a scorer that score_quality runs.

Reads one column of each annotations dataset, part by part, into a histogram of fixed size. The edges are the artifact;
`score_quality --set model=quality_ensemble --set name=ensemble --set output=quality_ensemble` then combines.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from jobs.runtime.artifacts import make_artifact
from jobs.runtime.config import content_config, setting, stage_id
from jobs.runtime.context import Context
from jobs.runtime.entry import job_main
from jobs.runtime.stage import Parent
from pipelines.datasets.manifest import Manifest
from pipelines.errors import ConfigError

ENGINE = "process"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of combine_scores."""

    members: list[str] = setting(doc="annotations with one quality.NAME each: [quality, quality_bert]", factory=list)  # noqa: RUF009
    output: str = setting("quality_ensemble", "artifact to write", content=False)
    buckets: int = setting(20, "buckets of equal mass, 2 or more")
    how: str = setting("max", "of a document's buckets: max or mean")

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


def run(config: Config, context: Context) -> list[Manifest]:
    """Histograms, edges, commit."""
    from pipelines.quality.ensemble import HOW, equal_mass_edges, histogram
    from pipelines.quality.scorers import FORMAT, SETTINGS, score_column

    if len(config.members) < 2 or config.how not in HOW:
        raise ConfigError(
            f"members are {config.members}, how is {config.how!r}",
            mend="two annotations or more: --set 'members=[quality, quality_bert]', and how=max or mean",
        )
    members = [context.open(name) for name in config.members]

    def make() -> tuple[dict[str, bytes], dict[str, Any]]:
        edges, stats = [], {}
        for member in members:
            column = score_column([field["name"] for field in member.manifest.schema])
            counts = 0
            for key in member.parts()["key"].to_pylist():
                counts = counts + histogram(member.read_part(key, [column])[column])
            edges.append(equal_mass_edges(counts, config.buckets))
            stats[member.name] = {"documents": int(counts.sum()), "edges": edges[-1]}
        told = {"format": FORMAT, "kind": "ensemble", "members": config.members, "edges": edges, "how": config.how}
        return {SETTINGS: json.dumps(told, indent=1, sort_keys=True).encode()}, {"members": stats}

    manifest = make_artifact(
        context,
        config.output,
        "quality_model",
        job="combine_scores",
        stage_id=stage_id("combine_scores", VERSION, config),
        config=content_config(config),
        parents=[Parent(manifest=member.manifest, role="scores") for member in members],
        make=make,
    )
    return [manifest]


if __name__ == "__main__":
    job_main("combine_scores")
