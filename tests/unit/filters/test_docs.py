"""docs/filters.md says what thresholds.yaml and the word lists hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.filters.lexicon import read_lists
from pipelines.filters.pii import PLACEHOLDERS
from pipelines.filters.rules import default_rules

DOCS = (Path(__file__).resolve().parents[3] / "docs" / "filters.md").read_text("utf-8").splitlines()


@pytest.mark.parametrize("rule", default_rules(), ids=lambda rule: f"{rule.name} {rule.spaced} {rule.unspaced}")
def test_every_rule_stands_in_the_docs_with_its_bounds_and_source(rule):
    bounds = " | ".join("–" if bound is None else f"{bound:g}" for bound in (rule.spaced, rule.unspaced))
    lines = [line for line in DOCS if line.startswith(f"| `{rule.name}` |")]
    assert any(f"| {bounds} | {rule.action} | {rule.reason}:" in line and rule.source in line for line in lines)


def test_every_list_and_every_kind_stands_in_the_docs():
    for each in read_lists():
        assert any(
            line.startswith(f"| `{each.name}` |") and f"| {len(each.phrases)} | {each.version} |" in line
            for line in DOCS
        )
    text = "\n".join(DOCS)
    assert all(f"`{kind}`" in text and f"`{label}`" in text for kind, label in PLACEHOLDERS.items())
