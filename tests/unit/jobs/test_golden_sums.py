"""What the stages make of the sample crawl is known to the last bit."""

from __future__ import annotations

import json

from tests.golden_sums import GOLDEN, sample_sums


def test_the_content_of_the_sample_crawl_is_the_known_one_or_the_stage_has_a_new_version():
    known, found = json.loads(GOLDEN.read_text("utf-8")), sample_sums()
    assert set(found) == set(known)
    for name, now in found.items():
        then = known[name]
        assert now["version"] >= then["version"], f"{now['job']} went back to an older VERSION"
        if now["content_sum"] != then["content_sum"]:
            assert now["version"] > then["version"], (
                f"the content of {name} changed ({then['rows']} -> {now['rows']} rows): raise VERSION in "
                f"jobs/{now['job']}.py, run python -m tests.golden_sums, and name the change in CHANGELOG under Data"
            )
    assert found == known, "a stage has a new version: run python -m tests.golden_sums and commit the sums"
