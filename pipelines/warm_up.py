"""Compile every kernel once: `python -m pipelines.warm_up`, which setting up runs, so that no job waits for it.

A worker in a fresh container can run it when its image is built; without it the first process compiles, for about a
minute of CPU, and the others take its code over.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def warm_up() -> None:
    """Call each kernel with the types that the jobs use."""
    from pipelines.crawl.extract import extract_html
    from pipelines.decontamination.grams import windows
    from pipelines.dedup.bands import BandPlan
    from pipelines.dedup.components import clusters
    from pipelines.dedup.frequency import Sketch, SketchShape
    from pipelines.dedup.paragraphs import UnitRules, find_units
    from pipelines.dedup.rounds import remove
    from pipelines.dedup.signature import exact_digests, sign
    from pipelines.dedup.substring import SubstringRules, find_anchors, find_repeats, window_rows
    from pipelines.dedup.verify import jaccards
    from pipelines.filters.clean import CleanRules, clean
    from pipelines.filters.measures import measure
    from pipelines.quality.reading import read_texts, token_hashes
    from pipelines.quality.vocabulary import LineModel

    paragraph = "<p>石头慢慢转动，谷物变成面粉。 The stones turn, +86 13800138000.</p>"
    page = f"<title>磨坊</title><h1>磨坊</h1>{paragraph * 20}"
    texts = pa.array([extract_html(page.encode()).text, None, "a b c d e f g h"])
    cleaned = clean(texts, ["zh", None, "en"], source_type="web", rules=CleanRules())
    measure(cleaned.texts, cleaned.facts)
    measure(texts)
    exact_digests(texts)
    sign(texts, BandPlan())
    left, right = np.array([0], np.int64), np.array([2], np.int64)
    jaccards(texts, left, right)
    clusters(np.zeros(3, np.int64), left, right, left)
    remove(left, right, np.zeros(3, bool), np.zeros(3, bool))
    units = find_units(texts, UnitRules())
    for bound in (2, 1000):  # counters of one byte and of two
        sketch = Sketch(SketchShape(mib=1, bound=bound))
        sketch.add(units.digest)
        held = sketch.frequent().holds(units.digest)
    token_hashes(texts)
    read_texts(texts, LineModel.empty())
    windows(texts, windows(texts).value)
    anchors, rules, nodes = find_anchors(texts, SubstringRules()), SubstringRules(), np.arange(3)
    windows = window_rows(texts, anchors, np.ones(len(anchors), held.dtype), 0, nodes, nodes, nodes, rules)
    find_repeats(windows, rules)


if __name__ == "__main__":
    warm_up()
