"""Which Chinese a text is written in: standard or Cantonese, simplified, traditional or both.

Script is told by characters of one script only (`script.py`), Cantonese by characters that standard written Chinese
does not use: the everyday particles, pronouns and verbs of written Cantonese (嘅 possessive, 咗 perfective, 喺 at,
唔 not, 哋 plural, 佢 he or she, 嚟 come, 嗰 that, 啲 some, 噉 so, 冇 have not), which is ordinary knowledge of its
orthography.  In Cantonese prose they are about one character in ten; a quotation or a name does not reach a fiftieth.
"""

from __future__ import annotations

import re

from pipelines.language.script import LOOKED_AT_CHARACTERS, script_of

CANTONESE = "嘅咗喺唔哋佢嚟嗰啲噉冇"
MIN_CANTONESE_SHARE = 0.02  # of the Han characters
MIN_CANTONESE_KINDS = 3
_CHINESE = frozenset({"zh", "yue", "wuu"})
_MARKERS = re.compile(f"[{CANTONESE}]")
_HAN = re.compile("[\u3400-\u9fff\U00020000-\U0003134f]")


def variety_of(text: str | None, language: str) -> tuple[str, str | None]:
    """(language, script) of a text whose language is known: `zh` or `yue` with `Hans`, `Hant`, `mixed` or None.

    Other languages come back as they are, with no script.
    """
    if language not in _CHINESE or not text:
        return language, None
    return "yue" if _is_cantonese(text[:LOOKED_AT_CHARACTERS]) else "zh", script_of(text, "zh")


def route_of(language: str, script: str | None) -> str:
    """A name to route by: `zh-hans`, `zh-hant`, `zh-mixed`, `yue`, `en`; `zh` where no character tells."""
    return f"zh-{script.lower()}" if language == "zh" and script else language


def _is_cantonese(text: str) -> bool:
    found = _MARKERS.findall(text)
    if len(set(found)) < MIN_CANTONESE_KINDS:
        return False
    return len(found) >= MIN_CANTONESE_SHARE * len(_HAN.findall(text))
