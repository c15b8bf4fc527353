"""Licence addresses -> the names that SPDX gives them."""

from __future__ import annotations

import re

_CREATIVE_COMMONS = re.compile(
    r"creativecommons\.org/(?:licenses/(by(?:-nc)?(?:-sa|-nd)?)/(\d\.\d)(?:/([a-z]{2})(?=/|\b))?|publicdomain/(zero|mark)/(\d\.\d))",
    re.IGNORECASE,
)
_NAMED = re.compile(r"\bCC[ -](BY(?:-NC)?(?:-SA|-ND)?)[ -](\d\.\d)\b|\bCC0(?:[ -]1\.0)?\b", re.IGNORECASE)
_ADDRESS = re.compile(r"\s{0,9}((?:https?:)?//[^\s\"'<>]{4,300})", re.IGNORECASE)


def licence_name(written: str, *, any_address: bool = False) -> str | None:
    """`CC-BY-SA-4.0`, `CC0-1.0` and the like for an address or name of Creative Commons; None for other text.

    With `any_address`, another web address is given back as it is.
    """
    written = written[:1_000]
    if (match := _CREATIVE_COMMONS.search(written)) is not None:
        kind, number, _, domain, domain_number = match.groups()
        if kind:
            return f"CC-{kind.upper()}-{number}"
        return "CC0-1.0" if domain.lower() == "zero" else f"PDM-{domain_number}"
    if (match := _NAMED.search(written)) is not None:
        return f"CC-{match.group(1).upper()}-{match.group(2)}" if match.group(1) else "CC0-1.0"
    address = _ADDRESS.match(written) if any_address else None
    return address.group(1) if address else None
