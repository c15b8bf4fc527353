"""Make `evidence.txt`, how often letters occur by language: `python -m pipelines.crawl.evidence_build --help`.

Sources, both from the package index: jieba's word list with counts (jieba-0.42.1.tar.gz, MIT) for Chinese, put
into traditional characters by OpenCC for `zh-hant`; the translations of Django's messages
(django-5.2.8-py3-none-any.whl, BSD-3-Clause) for all other languages.  What is kept is a number a letter.
"""

from __future__ import annotations

import argparse
import math
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

TARGET = Path(__file__).with_name("evidence.txt")
QUARTERS = 4  # costs are quarter nats
_LANGUAGES = """
    af ar be bg bs ca cs cy da de el eo es et eu fa fi fr ga gl he hr hsb hu id is it lt lv mk nb nl pl pt ro ru
    sk sl sq sr sr_Latn sv th tr uk vi
"""
_MESSAGE = re.compile(r'^msgstr(?:\[\d\])? "(.*)"\n((?:^".*"\n)*)', re.MULTILINE)
_SIMPLIFIED, _TRADITIONAL = "zh-hans", "zh-hant"
_HEADER = """\
# How dear a letter is, by language: -ln of its share of all letters outside ASCII, in quarter nats, then the letters.
# Counted from jieba 0.42.1's word list (MIT; zh-hant by OpenCC) and Django 5.2.8's translations (BSD-3-Clause) by
# `python -m pipelines.crawl.evidence_build`.
"""


def main() -> None:
    """Read both archives, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jieba", type=Path, required=True, help="jieba-0.42.1.tar.gz")
    parser.add_argument("--django", type=Path, required=True, help="django-5.2.8-py3-none-any.whl")
    options = parser.parse_args()
    TARGET.write_text(_HEADER + "".join(lines(options.jieba, options.django)), "utf-8")


def lines(jieba: Path, django: Path) -> Iterable[str]:
    """The rows of the table, sorted by language and cost."""
    for language, shares in [*_chinese(jieba), *_translated(django)]:
        by_cost: dict[int, list[str]] = {}
        for char, share in shares.items():
            by_cost.setdefault(round(-math.log(share) * QUARTERS), []).append(char)
        for cost, chars in sorted(by_cost.items()):
            yield f"{language} {cost} {''.join(sorted(chars))}\n"


def _chinese(archive: Path) -> Iterable[tuple[str, dict[str, float]]]:
    from opencc import OpenCC

    with tarfile.open(archive) as packed:
        words = packed.extractfile("jieba-0.42.1/jieba/dict.txt").read().decode("utf-8").splitlines()  # type: ignore[union-attr]
    counted = [(word, int(count)) for word, count, *_ in (line.split(" ") for line in words)]
    traditional = OpenCC("s2t").convert("\n".join(word for word, _ in counted)).split("\n")
    yield _SIMPLIFIED, _shares(_weigh(counted), level(range(0xB0, 0xF8), "gb2312"), 0.02)
    pairs = [(word, count) for word, (_, count) in zip(traditional, counted, strict=True)]
    yield _TRADITIONAL, _shares(_weigh(pairs), level(range(0xA4, 0xC7), "big5"), 0.02)


def _translated(archive: Path) -> Iterable[tuple[str, dict[str, float]]]:
    with zipfile.ZipFile(archive) as packed:
        for language in _LANGUAGES.split():
            yield language, _shares(_messages(packed, language), "", 0.0)
        yield "ja", _shares(_messages(packed, "ja"), level(range(0xB0, 0xD0), "euc_jp"), 0.25)
        yield "ko", _shares(_messages(packed, "ko"), level(range(0xB0, 0xC9), "euc_kr"), 0.25)


def _messages(packed: zipfile.ZipFile, language: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name in packed.namelist():
        if f"/locale/{language}/LC_MESSAGES/" in name and name.endswith(".po"):
            body = packed.read(name).decode("utf-8").partition("\n\n")[2]  # the first entry names people
            for first, rest in _MESSAGE.findall(body):
                counts.update(first + rest)
    return counts


def _weigh(words: Iterable[tuple[str, int]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for word, count in words:
        for char in word:
            counts[char] += count
    return counts


def _shares(counts: Counter[str], evenly: str, weight: float) -> dict[str, float]:
    """Shares of the letters outside ASCII, `weight` of it spread over the letters of `evenly`."""
    kept = {char: count for char, count in counts.items() if char > "\x7f" and (char.isalpha() or char in "ー々")}
    total = sum(kept.values())
    shares = {char: (1 - weight) * count / total for char, count in kept.items() if char < "\U00010000"}
    for char in evenly:
        shares[char] = shares.get(char, 0.0) + weight / len(evenly)
    return shares


def level(leads: range, codec: str) -> str:
    """The characters of a double-byte codec under some lead bytes."""
    pairs = (bytes((lead, trail)) for lead in leads for trail in range(0x40, 0xFF))
    return "".join(char for pair in pairs if len(char := pair.decode(codec, "ignore")) == 1 and char > "\x7f")


if __name__ == "__main__":
    main()
