"""What a publisher says against use by machines: robots rules of page and server, TDM reservation.

`noai` and `noimageai` are rules of robots metas and `X-Robots-Tag` headers (DeviantArt's convention, 2022), the
reservation is TDMRep's (W3C community group, 2024): header or meta `tdm-reservation: 1`.  They are recorded as found;
a policy decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pipelines.crawl.head import Head

RESERVED = "tdm-reservation"
# The rules that are kept, for all agents or one (`gptbot:noindex`); `none` is noindex and nofollow.
_KEPT = frozenset({"noai", "noimageai", "noindex", "noarchive", "nosnippet"})
_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_AGENT = re.compile(r"[a-z0-9][a-z0-9._/-]{1,39}\Z")


def opt_out(head: Head | None, http_headers: Mapping[str, str]) -> str | None:
    """Sorted, comma-joined signals of the page and its HTTP headers (lower-case names); None if there are none."""
    rules = set(head.robots) if head is not None else set()
    rules |= robots_header(http_headers.get("x-robots-tag", ""))
    found = {kept for rule in rules if (kept := _kept(rule)) is not None}
    header = http_headers.get(RESERVED, "").strip()
    if header == "1" or (head is not None and head.tdm and header != "0"):
        found.add(RESERVED)
    return ",".join(sorted(found)) or None


def robots_header(value: str) -> set[str]:
    """Rules of an `X-Robots-Tag`: `rule`, or `agent:rule` for those behind an agent's name."""
    found: set[str] = set()
    agent = ""
    for part in value[:4_000].lower().split(","):
        name, colon, rest = part.strip().partition(":")
        name = name.strip()
        if colon and name in _WITH_VALUE:
            continue
        if colon and _AGENT.match(name):
            agent, name = f"{name}:", rest.strip()
        if name and " " not in name:
            found.add(f"{agent}{name[:40]}")
    return found


def refused_by(signals: str | None, refused: frozenset[str]) -> str | None:
    """The first of the page's signals that the policy refuses.

    `noai` refuses the rule for all agents and for any one; `ccbot:noindex` refuses that one only.
    """
    for signal in (signals or "").split(","):
        if signal in refused or signal.rpartition(":")[2] in refused & _KEPT:
            return signal
    return None


def _kept(rule: str) -> str | None:
    agent, colon, name = rule.rpartition(":")
    name = "noindex" if name == "none" else name
    return f"{agent}{colon}{name}" if name in _KEPT else None
