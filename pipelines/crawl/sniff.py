"""A look at a page before the dear work: is there text, and can it be in a wanted language?

Drops only where it is sure.  Scripts are counted first, which decides most pages for a tenth of a millisecond; the
language model is asked, if the rules say so, where a wanted and an unwanted language share a script, on the page's
longest stretches of text, which are its paragraphs if it has any.  The margins are those at which folds of labelled
pages lost no more than one wanted page in a thousand against full extraction (docs/extraction.md).
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

import numpy as np

from pipelines.crawl.decode import decode
from pipelines.language.identify import Identifier, open_identifier

_MARKUP_CHARACTERS = 1 << 20
_RUNS = 3_000
_MAIN_CHARACTERS = 700
_MAIN_RUNS = 16
_CHINESE_SHARE, _KANA_SHARE = 0.5, 0.03
# What is in other elements that browsers hide (noscript, template) may be all the text that a page has.
_HIDDEN = re.compile(r"<(?:(!--)|(?i:(script|style)(?=[\s/>])))")
_HIDDEN_END = {name: re.compile(f"</(?i:{name})") for name in ("script", "style")}
_BETWEEN = re.compile(r">\s*+([^<\s][^<]*+)")
# Lead bytes of UTF-8 -> script; the letters of a language are in its script's row.
_LEADS = {
    "han": range(0xE4, 0xEA), "kana": range(0xE3, 0xE4), "hangul": range(0xEA, 0xEE), "cyrillic": range(0xD0, 0xD4),
    "greek": range(0xCE, 0xD0), "hebrew": range(0xD6, 0xD8), "arabic": range(0xD8, 0xDC), "indic": range(0xE0, 0xE1),
}  # fmt: skip
_WRITTEN_IN = {
    "han": "zh yue wuu", "han kana": "ja", "hangul": "ko", "greek": "el", "hebrew": "he yi",
    "arabic": "ar fa ur ps ug ku sd ckb", "cyrillic": "ru uk be bg sr mk kk ky tg mn tt ba cv",
    "indic": "hi mr ne bn ta te kn ml gu pa th lo my si or sa",
}  # fmt: skip
_SCRIPTS_OF = {name: frozenset(scripts.split()) for scripts, names in _WRITTEN_IN.items() for name in names.split()}
_LATIN = frozenset({"latin"})
# Letters of English that say as much as one of the script; half a word against a syllable or a word.
_WEIGHT = {"han": 3.0, "hangul": 2.0, "kana": 2.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class SniffRules:
    """What is dropped before extraction.  The defaults drop nothing.

    `languages` are those wanted (None: all).  A page is dropped where letters of their scripts are fewer than
    `min_wanted_letters`, or a smaller share than `min_wanted_share` of all and the model finds another language; or
    where that language is written in the same script, the model gives it more than `min_other_chance` and all wanted
    ones together less than `max_wanted_chance`.  `min_letters` is the least number of letters outside tags, scripts
    and styles.  Letters are weighed: a Han character counts as three.  `ask_model` False leaves it at counting.
    """

    languages: frozenset[str] | None = None
    ask_model: bool = True
    min_letters: int = 0
    min_wanted_letters: int = 20
    min_wanted_share: float = 0.1
    max_wanted_chance: float = 0.005
    min_other_chance: float = 0.85
    min_model_letters: int = 200  # with less to read the model is not asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a page is not worth extracting: ledger reason, what was measured, the bound, the language or script found."""

    reason: str
    value: float
    threshold: float
    detail: str | None = None


def sniff(
    body: bytes,
    *,
    url: str | None = None,
    content_type: str | None = None,
    rules: SniffRules,
    identifier: Identifier | None = None,
) -> Refusal | None:
    """Why the page is dropped before extraction, or None.  Never raises on page bytes.

    Time is linear; a page of more than 2**20 characters is left to extraction.

    `identifier` is the language model (the shipped one without).
    """
    scripts = _scripts_of(rules.languages)
    is_counted = scripts is not None and (rules.ask_model or "latin" not in scripts)
    if not is_counted and rules.min_letters <= 0:
        return None
    markup = decode(body, content_type).text
    if len(markup) > _MARKUP_CHARACTERS:  # not seen whole, so not sure
        return None
    if scripts is not None and rules.min_letters <= 0 and "latin" not in scripts and "&#" not in markup:
        # Tags are ASCII, so letters of another script can be counted with them in the way.
        here = letter_counts(markup)
        wanted = sum(here[script] for script in scripts)
        if wanted < rules.min_wanted_letters:
            return _few(wanted, rules, here)
        if not rules.ask_model:
            return None
    runs = text_runs(markup)
    letters = letter_counts("".join(runs))
    total = sum(letters.values())
    if total < rules.min_letters:
        return Refusal(reason="sniffed_short", value=total, threshold=rules.min_letters)
    return _language(runs, letters, rules, scripts, identifier) if scripts is not None else None


def text_runs(markup: str) -> list[str]:
    """Stretches of text between tags, outside scripts, styles and comments; at most 3,000."""
    found: list[str] = []
    at = 0
    while at < len(markup) and len(found) < _RUNS:
        match = _HIDDEN.search(markup, at)
        until = match.start() if match else len(markup)
        if until > at:
            # One character back, for the ">" that the text follows.
            found += _BETWEEN.findall(markup, max(at - 1, 0), until)
        if match is None:
            break
        if match.group(1):
            end = markup.find("-->", match.end())
            at = end + 3 if end >= 0 else len(markup)
        else:
            closing = _HIDDEN_END[match.group(2).lower()].search(markup, match.end())
            at = closing.end() if closing else len(markup)
    found = found[:_RUNS]
    return [html.unescape(run) if "&#" in run else run for run in found]


def letter_counts(text: str) -> dict[str, int]:
    """Letters by script; `latin` counts ASCII letters and the letters of Latin-1 and Latin Extended."""
    octets = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    counts = np.bincount(octets, minlength=256)
    found = {script: int(counts[leads.start : leads.stop].sum()) for script, leads in _LEADS.items()}
    if found["kana"]:  # the same lead byte begins 。 and 「
        found["kana"] -= int(np.count_nonzero((octets[:-1] == 0xE3) & (octets[1:] == 0x80)))
    found["latin"] = int(counts[0x41:0x5B].sum() + counts[0x61:0x7B].sum() + counts[0xC3:0xC6].sum())
    return found


def main_runs(runs: list[str]) -> str:
    """The longest stretches in page order, about 700 characters."""
    longest = sorted(range(len(runs)), key=lambda at: -len(runs[at]))[:_MAIN_RUNS]
    kept: list[int] = []
    size = 0
    for at in longest:
        kept.append(at)
        size += len(runs[at])
        if size >= _MAIN_CHARACTERS:
            break
    return " ".join(runs[at][:_MAIN_CHARACTERS] for at in sorted(kept))


def _scripts_of(languages: frozenset[str] | None) -> frozenset[str] | None:
    if languages is None:
        return None
    return frozenset[str]().union(*(_SCRIPTS_OF.get(language, _LATIN) for language in languages))


def _language(
    runs: list[str],
    letters: dict[str, int],
    rules: SniffRules,
    scripts: frozenset[str],
    identifier: Identifier | None,
) -> Refusal | None:
    languages = rules.languages or frozenset()
    wanted = sum(letters[script] for script in scripts)
    if wanted < rules.min_wanted_letters:
        return _few(wanted, rules, letters)
    if not rules.ask_model or sum(letters.values()) < rules.min_model_letters:
        return None
    weight = sum(count * _WEIGHT.get(script, 1.0) for script, count in letters.items())
    share = sum(letters[script] * _WEIGHT.get(script, 1.0) for script in scripts) / weight
    if "zh" in languages and _is_plainly_chinese(letters, weight):
        return None
    shares = (identifier or open_identifier()).shares(main_runs(runs), 5)
    if not shares or shares[0][0] in languages or shares[0][1] < rules.min_other_chance:
        return None
    other = shares[0][0]
    if share < rules.min_wanted_share:
        return Refusal(
            reason="sniffed_language",
            value=round(share, 4),
            threshold=rules.min_wanted_share,
            detail=f"language {other}",
        )
    if not _SCRIPTS_OF.get(other, _LATIN) & scripts:
        return None
    chance = round(sum(share for language, share in shares if language in languages), 4)
    if chance >= rules.max_wanted_chance:
        return None
    return Refusal(
        reason="sniffed_language", value=chance, threshold=rules.max_wanted_chance, detail=f"language {other}"
    )


def _is_plainly_chinese(letters: dict[str, int], weight: float) -> bool:
    """Mostly Han and next to no kana: not worth asking the model, which takes most of the time."""
    han = letters["han"]
    return han * _WEIGHT["han"] > _CHINESE_SHARE * weight and letters["kana"] < _KANA_SHARE * han


def _few(wanted: int, rules: SniffRules, letters: dict[str, int]) -> Refusal:
    most = max(letters, key=letters.__getitem__)
    return Refusal(reason="sniffed_language", value=wanted, threshold=rules.min_wanted_letters, detail=f"script {most}")
