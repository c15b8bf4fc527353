"""Script of Chinese text: Hans, Hant or mixed, by characters that belong to one script only.

`han_variants.txt` holds them: 2,185 simplified ones that GB 2312 has and Big5 has not, 2,809 traditional ones
the other way round.  A character that both standards know (后, 里, 云) says nothing and is in neither list.
"""

from __future__ import annotations

import functools
import re
from importlib.resources import files

LOOKED_AT_CHARACTERS = 20_000
MIN_SHARE = 0.9  # of the telling characters; between 0.1 and 0.9 both scripts are at home on the page
CHINESE = frozenset({"zh", "yue"})


def script_of(text: str | None, language: str) -> str | None:
    """`Hans`, `Hant` or `mixed`; None outside Chinese and where no character tells."""
    if language not in CHINESE or not text:
        return None
    hans, hant = count_variants(text)
    if hans + hant == 0:
        return None
    share = hans / (hans + hant)
    return "Hans" if share >= MIN_SHARE else "Hant" if share <= 1 - MIN_SHARE else "mixed"


def count_variants(text: str) -> tuple[int, int]:
    """(simplified-only, traditional-only) characters among the first 20,000."""
    head = text[:LOOKED_AT_CHARACTERS]
    hans, hant = _classes()
    return len(hans.findall(head)), len(hant.findall(head))


@functools.cache
def _classes() -> tuple[re.Pattern[str], re.Pattern[str]]:
    lines = files("pipelines.language").joinpath("han_variants.txt").read_text("utf-8").splitlines()
    hans, hant = [line for line in lines if not line.startswith("#")]
    return re.compile(f"[{hans}]"), re.compile(f"[{hant}]")
