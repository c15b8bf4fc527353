"""Spam and pages without content: shares of words in lists of general vocabulary (`words/`), and how many differ."""

from __future__ import annotations

import numpy as np

from pipelines.filters.facts import Facts, ratio

_FEW = 3  # distinct entries below this say nothing: one word about a bet is no betting page


def _density(facts: Facts, name: str, distinct: int) -> np.ndarray:
    share = ratio(facts.listed(name, "units"), facts["words"])
    return np.where(facts.listed(name, "distinct") >= distinct, share, 0.0)


def _page_phrase(facts: Facts, name: str) -> np.ndarray:
    return ratio(facts.listed(name, "units"), facts["words"])


MEASURES = {
    "spam.adult_fraction": lambda facts: _density(facts, "adult", _FEW),
    "spam.gambling_fraction": lambda facts: _density(facts, "gambling", _FEW),
    "spam.commerce_fraction": lambda facts: _density(facts, "commerce", _FEW),
    "spam.lure_fraction": lambda facts: _density(facts, "lure", _FEW),
    "spam.contact_fraction": lambda facts: _density(facts, "contact", 2),
    "junk.missing_page_fraction": lambda facts: _page_phrase(facts, "missing_page"),
    "junk.parked_fraction": lambda facts: _page_phrase(facts, "parked"),
    "junk.consent_fraction": lambda facts: _page_phrase(facts, "consent"),
    "junk.script_shell_fraction": lambda facts: _page_phrase(facts, "script_shell"),
    "junk.login_fraction": lambda facts: _page_phrase(facts, "login"),
}
