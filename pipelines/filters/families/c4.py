"""C4's page rules (Raffel et al. 2020, section 2.2), over lines that end as sentences and have three words."""

from __future__ import annotations

import numpy as np

from pipelines.filters.facts import Facts, ratio


def curly_line_fraction(facts: Facts) -> np.ndarray:
    """Lines of C4 with a curly bracket, over its lines; C4 itself drops a page for one."""
    return facts.share("c4_curly_lines", "c4_lines")


def dirty_word_fraction(facts: Facts) -> np.ndarray:
    """Words of the lists of coarse words, over words. C4 drops a page for one; a share spares those who quote."""
    return ratio(facts.listed("dirty", "units"), facts["words"])


MEASURES = {
    "c4.filler_phrases": lambda facts: facts.listed("filler"),
    "c4.sentences": lambda facts: facts["c4_sentences"],
    "c4.line_fraction": lambda facts: facts.share("c4_lines", "lines"),
    "c4.curly_lines": lambda facts: facts["c4_curly_lines"],
    "c4.curly_line_fraction": curly_line_fraction,
    "c4.dirty_word_fraction": dirty_word_fraction,
}
