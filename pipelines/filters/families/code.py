"""Source code: what StarCoder-like pipelines ask of a file (Li et al. 2023, section 3)."""

from __future__ import annotations

import numpy as np

from pipelines.filters.facts import ratio

MEASURES = {
    "code.longest_line": lambda facts: facts["longest_line"],
    "code.mean_line_length": lambda facts: ratio(facts["line_characters"], facts["lines"], most=1e6),
    "code.alphanumeric_fraction": lambda facts: facts.share("alphanumeric", "head_visible"),
    "code.generated_marks": lambda facts: np.minimum(facts.listed("generated"), 100.0),
    "code.licence_word_fraction": lambda facts: ratio(facts.listed("licence", "units"), facts["words"]),
}
