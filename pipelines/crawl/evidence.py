"""Which charset do these bytes read best in: the cost, in nats, of what they say under each reading.

A reading turns the bytes into characters; its cost is the sum of -ln of the share of each character in a language
that is written in that charset.  All readings spell out the same bytes, so costs compare directly, and one number
weighs broken bytes, rare characters, kana among Han, wrong case and letters that no language uses.  Shares are in
`evidence.txt` (letters) and here (punctuation, and what the standards list beyond the everyday characters).
"""

from __future__ import annotations

import functools
from importlib.resources import files

import numpy as np

from pipelines.crawl.labels import MULTIBYTE

# Costs in nats.
_ASCII, _UNKNOWN, _BROKEN = 3.2, 13.5, 14.0
_SECOND_LEVEL = 12.0  # listed by a standard, met in no everyday text
_STRAY_LETTER = 7.5  # a letter of the right script that the language does not use
_ANY_LANGUAGE = 2.5
_SAMPLE = 4_096
_WINDOW = 1 << 16
_WEST = "en de fr es pt it nl sv da nb fi is ca gl et sq af ga id eu"
_EAST = "pl cs sk hu ro sl hr bs sr_Latn hsb sq de"
_SLAVIC = "ru uk bg sr mk be"
# Charset -> languages written in it. The first ones of a script are met without a declaration.
_SINGLE = {
    "cp1252": _WEST, "cp1250": _EAST, "cp1251": _SLAVIC, "cp1253": "el", "cp1254": "tr", "cp1255": "he",
    "cp1256": "ar fa", "cp1257": "lt lv et", "cp1258": "vi", "cp874": "th", "koi8-r": "ru bg", "koi8-u": "uk ru",
    "cp866": "ru uk bg be", "iso8859-2": _EAST, "iso8859-3": "eo", "iso8859-4": "lt lv et", "iso8859-5": _SLAVIC,
    "iso8859-6": "ar fa", "iso8859-7": "el", "iso8859-8": "he", "iso8859-10": "lt lv et is", "iso8859-13": "lt lv et",
    "iso8859-14": "cy ga", "iso8859-15": _WEST, "iso8859-16": "ro", "mac-roman": _WEST, "mac-cyrillic": _SLAVIC,
}  # fmt: skip
# What is known before any byte is read: how much likelier than the rest.  Windows' charsets hold nearly every
# byte of their ISO siblings, so these must bring evidence.
_PRIOR = {
    "utf-8": 3.0, "cp1252": 3.0, "cp1251": 1.0, "gb18030": 1.0, "cp932": 0.0, "big5hkscs": 0.0, "euc_jp": 0.0,
    "cp949": 0.0, "koi8-r": -1.0, "cp1250": -1.0, "cp1253": -1.0, "cp1254": -1.0, "cp1255": -1.0, "cp1256": -1.0,
    "cp874": -1.0, "cp1257": -1.5, "iso8859-2": -1.5, "iso8859-5": -2.0, "iso8859-7": -2.0, "koi8-u": -2.0, "cp866": -2.0,
}  # fmt: skip
_UNLIKELY = -8.0
# Punctuation and symbols: cost in Han text, then in alphabets; both standards of China, Japan's and Korea's have them.
_WIDE_MARKS = (
    (3.4, "，。、\u3000"), (4.6, "：；「」（）“”·・"), (5.2, "？！《》…—‘’【】『』"), (6.5, "～〈〉％①②③④⑤■●◆★→※○□▶◎☆△▲￥〇々±×"),
    (7.5, "０１２３４５６７８９ＡＢＣＤＥａｂｃｄｅ〔〕－＋／＝＆．，：⑥⑦⑧⑨⑩℃°←↑↓┌─│└├┐┘━┃"),
)  # fmt: skip
_NARROW_MARKS = (
    (3.0, "\xa0"), (4.0, "«»–’“”"), (4.6, "©—…·•„°‘"), (5.5, "®№€§£™×‹›´"), (8.0, "±²³½¼¾µ¶¿¡¢¥ªº÷‚†‡‰¦¨¬¯¸¹¤"),
)  # fmt: skip
_CANTONESE = "嘅咗喺冇唔係乜哋佢嚟嗰啲噉咁睇攞嘢咩啦喎嘞"
_JOINED = {"latin": 0.05, "script": 0.85}  # share of letters outside ASCII whose right neighbour is one too
_LATIN = frozenset(
    "cp1252 cp1250 cp1254 cp1257 cp1258 iso8859-2 iso8859-3 iso8859-4 iso8859-10 iso8859-13 iso8859-14 "
    "iso8859-15 iso8859-16 mac-roman".split()
)


def sample_of(body: bytes) -> bytes:
    """Bytes outside ASCII with one neighbour on each side, in order, from the page's beginning, about 6 KB at most."""
    kept: list[np.ndarray] = []
    size = 0
    for at in range(0, len(body), _WINDOW):
        piece = np.frombuffer(body, np.uint8, min(_WINDOW, len(body) - at), at)
        high = piece >= 0x80
        near = high.copy()
        near[1:] |= high[:-1]
        near[:-1] |= high[1:]
        kept.append(piece[near])
        size += len(kept[-1])
        if size >= _SAMPLE:
            break
    sample = np.concatenate(kept).tobytes() if kept else b""
    if len(sample) <= _SAMPLE:
        return sample
    # The cut goes where every charset begins anew.
    end = next((at for at in range(_SAMPLE, _SAMPLE - 512, -1) if sample[at] < 0x30), _SAMPLE)
    return sample[:end]


def costs(sample: bytes, wanted: frozenset[str] | None = None) -> dict[str, float]:
    """Charset -> cost of reading the sample in it, the prior included; all charsets, or those wanted."""
    found: dict[str, float] = {}
    for charset in (*MULTIBYTE, "utf-8"):
        if wanted is None or charset in wanted:
            found[charset] = _multibyte_cost(sample, charset) - _PRIOR[charset]
    names, table, kinds = _single_tables()
    octets = np.frombuffer(sample, np.uint8)
    high = octets >= 0x80
    count = int(high.sum())
    joined = int((high[1:] & high[:-1]).sum())
    histogram = np.bincount(octets[high], minlength=256)[128:].astype(np.float32)
    apart = (len(octets) - count) * _ASCII
    alphabets = table @ histogram
    neighbours = {
        kind: -joined * float(np.log(share)) - (count - joined) * float(np.log(1 - share))
        for kind, share in _JOINED.items()
    }
    for name, kind, cost in zip(names, kinds, alphabets.tolist(), strict=True):
        if wanted is None or name in wanted:
            whole = cost + apart + neighbours[kind] - _PRIOR.get(name, _UNLIKELY)
            found[name] = min(whole, found.get(name, whole))
    return found


def characters_cost(text: str, charset: str) -> np.ndarray:
    """Cost of each character of a text that was read in a multi-byte charset, or in `utf-8`."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return _table(charset)[np.minimum(points, 0xFFFF)]


def _multibyte_cost(sample: bytes, charset: str) -> float:
    text = sample.decode(charset, "replace")
    # What a neighbour outside ASCII is worth in an alphabet, so that one character here counts like one there.
    return float(characters_cost(text, charset).sum()) + 0.2 * len(text)


@functools.cache
def _letters() -> dict[str, dict[str, float]]:
    """Language -> letter -> cost in nats."""
    found: dict[str, dict[str, float]] = {}
    for line in files("pipelines.crawl").joinpath("evidence.txt").read_text("utf-8").splitlines():
        if not line.startswith("#"):
            language, cost, chars = line.split(" ")
            found.setdefault(language, {}).update(dict.fromkeys(chars, int(cost) / 4))
    return found


@functools.cache
def _table(charset: str) -> np.ndarray:
    """Cost by code point, float32 [65536], of a multi-byte charset; `utf-8` may hold any language."""
    if charset == "utf-8":
        return _any_table()
    table = np.full(0x10000, _UNKNOWN, np.float32)
    table[:0x80] = _ASCII
    table[0xFFFD] = _BROKEN
    for leads, cost in _LEVELS[charset]:
        _lower(table, _row(charset, leads), cost)
    letters = _letters()
    for language, extra in _WRITTEN[charset]:
        for char, cost in letters[language].items():
            _lower(table, char, cost + 0.15 + extra)
    for cost, marks in _WIDE_MARKS:
        _lower(table, marks, cost)
    if charset == "big5hkscs":
        _lower(table, _CANTONESE, 8.0)
    if charset in ("gb18030", "big5hkscs"):
        _lower(table, "的", 3.3)
    return table


# Lead bytes -> cost of what the standard lists there: kana and alphabets, the first level, the second.
_LEVELS = {
    "gb18030": ((range(0xA1, 0xAA), 10.0), (range(0xB0, 0xD8), 10.5), (range(0xD8, 0xF8), _SECOND_LEVEL)),
    "big5hkscs": ((range(0xA1, 0xA4), 10.0), (range(0xA4, 0xC7), 10.5), (range(0xC9, 0xFA), _SECOND_LEVEL)),
    "cp932": ((range(0x81, 0x85), 9.5), (range(0x88, 0x98), 10.5), (range(0x98, 0xA0), _SECOND_LEVEL)),
    "euc_jp": ((range(0xA1, 0xA9), 9.5), (range(0xB0, 0xD0), 10.5), (range(0xD0, 0xF5), _SECOND_LEVEL)),
    "cp949": ((range(0xA1, 0xAD), 10.0), (range(0xB0, 0xC9), 10.5), (range(0xCA, 0xFE), _SECOND_LEVEL)),
}
# Charset -> languages with what they cost more: a traditional page in GB is rarer than a simplified one.
_WRITTEN = {
    "gb18030": (("zh-hans", 0.0), ("zh-hant", 1.5)),
    "big5hkscs": (("zh-hant", 0.0),),
    "cp932": (("ja", 0.0),),
    "euc_jp": (("ja", 0.0),),
    "cp949": (("ko", 0.0),),
}


def _row(charset: str, leads: range) -> str:
    text = "".join(
        bytes((lead, trail)).decode(charset, "ignore") for lead in leads for trail in range(0x40, 0xFF)
    )
    return "".join(char for char in text if "\x7f" < char < "\U00010000")


def _any_table() -> np.ndarray:
    """For UTF-8: the least cost in any language, and something for not knowing which."""
    table = np.full(0x10000, _UNKNOWN, np.float32)
    for charset in MULTIBYTE:
        np.minimum(table, _table(charset) + _ANY_LANGUAGE, out=table)
    for language in {name for names in _SINGLE.values() for name in names.split()}:
        for char, cost in _letters().get(language, {}).items():
            _lower(table, char, cost + _ANY_LANGUAGE)
    for cost, marks in _NARROW_MARKS:
        _lower(table, marks, cost)
    table[:0x80] = _ASCII
    table[0xFFFD] = _BROKEN
    return table


def _lower(table: np.ndarray, chars: str, cost: float) -> None:
    for char in chars:
        table[ord(char)] = min(table[ord(char)], cost)


@functools.cache
def _single_tables() -> tuple[list[str], np.ndarray, list[str]]:
    """(charset of each row, cost by byte - 128 as float32 [rows, 128], how its letters join), one row a language."""
    names, rows = [], []
    marks = {char: cost for cost, chars in reversed(_NARROW_MARKS) for char in chars}
    for charset, languages in _SINGLE.items():
        chars = [bytes((octet,)).decode(charset, "replace") for octet in range(128, 256)]
        for language in languages.split():
            letters = _letters().get(language, {})
            latin = charset in _LATIN
            rows.append([_narrow_cost(char, letters, marks, latin) for char in chars])
            names.append(charset)
    kinds = ["latin" if name in _LATIN else "script" for name in names]
    return names, np.array(rows, np.float32), kinds


def _narrow_cost(char: str, letters: dict[str, float], marks: dict[str, float], latin: bool) -> float:
    if char in letters:
        return letters[char] + 0.1
    if char in marks:
        return marks[char]
    if char == "\ufffd":
        return _BROKEN
    if char.isalpha():
        return _STRAY_LETTER if char.isascii() is False and (latin or ord(char) > 0x250) else 10.0
    return 11.0 if char.isprintable() else _BROKEN
