"""RefinedWeb's line rules (Penedo et al. 2023, table G.2) and boilerplate, as shares of the text as it stands."""

from __future__ import annotations

MEASURES = {
    "refinedweb.flagged_word_fraction": lambda facts: facts.share("flagged_words", "words"),
    "lines.boilerplate_word_fraction": lambda facts: facts.share("boilerplate_words", "words"),
    "lines.numeric_fraction": lambda facts: facts.share("numeric_lines", "lines"),
    "lines.capital_fraction": lambda facts: facts.share("capital_lines", "lines"),
}
