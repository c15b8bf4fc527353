"""Measures of a text, each a column: text in, numbers out; what they mean for the document is `rules.py`'s.

One pass counts facts (`reader.py`); a measure is a ratio of them (`families/`). Words are cut much as spaCy cuts
English; in scripts written without spaces each character is a unit. Every measure is computed for every text. Of an
empty or null text it is 0.0, never null or NaN; values are on a grid of 1e-4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipelines.filters.families import read_families

if TYPE_CHECKING:
    from pipelines.filters.facts import Facts

MEASURES = read_families()
MEASURE_SCHEMA = pa.schema([pa.field(name, pa.float64()) for name in MEASURES])


def measure(texts: pa.Array | pa.ChunkedArray, facts: Facts | None = None) -> pa.Table:
    """(n,) texts -> (n,) rows of MEASURE_SCHEMA, same order, whatever the chunks.

    `facts`: of the same texts, where they are known (`Cleaned.facts`), so that they are not read again.
    """
    if facts is None:
        from pipelines.filters.reader import read_facts

        facts = read_facts(texts)
    elif len(facts.counts) != len(texts):
        raise ValueError(f"facts of {len(facts.counts)} texts for {len(texts)}")
    columns = {name: np.round(function(facts), 4) + 0.0 for name, function in MEASURES.items()}
    return pa.table(columns, schema=MEASURE_SCHEMA)
