"""Which charset do these bytes read best in: the cost, in nats, of what they say under each reading.

A reading turns the bytes into characters; its cost is the sum of -ln of the share of each character in a language
that is written in that charset.  All readings spell out the same bytes, so costs compare directly, and one number
weighs broken bytes, rare characters, kana among Han, wrong case and letters that no language uses.  Shares are in
`evidence.txt` (letters) and here (punctuation, and what the standards list beyond the everyday characters).
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from importlib.resources import files

import numpy as np

from pipelines.crawl.labels import MULTIBYTE

# Costs in nats.
_ASCII, _UNKNOWN, _BROKEN = 3.2, 13.5, 16.0
_SECOND_LEVEL = 12.0  # listed by a standard, met in no everyday text
_STRAY_LETTER = 7.5  # a letter of the right script that the language does not use
_ANY_LANGUAGE = 2.5
# A character of everyday Han text costs 6 to 8 on the mean, of bytes of another charset more than 8.6.
_PLAIN_COST, _PLAIN_CHARACTERS = 7.6, 64
_SAMPLE = 2_048  # tells double-byte charsets apart many times over
_LONG_SAMPLE = 8_192  # siblings such as windows-1253 and ISO 8859-7 differ in one rare letter
_WINDOW = 1 << 14
_WEST = "en mixed de fr es pt it nl sv da nb fi is ca gl et sq af ga id eu"
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
    "cp874": -1.0, "cp1257": -1.5, "iso8859-2": -1.5, "iso8859-5": -4.0, "iso8859-7": -6.0, "koi8-u": -2.0,
    "cp866": -6.0, "mac-roman": -30.0, "mac-cyrillic": -30.0,
}  # fmt: skip
_UNLIKELY = -12.0
# Punctuation and symbols: cost in Han text, then in alphabets; both standards of China, Japan's and Korea's have them.
_WIDE_MARKS = (
    (3.4, "，。、\u3000"), (4.6, "：；「」（）“”·・"), (5.2, "？！《》…—‘’【】『』"),
    (6.5, "～〈〉％①②③④⑤■●◆★→※○□▶◎☆△▲￥〇々±×"),
    (7.5, "０１２３４５６７８９ＡＢＣＤＥａｂｃｄｅ〔〕－＋／＝＆．，：⑥⑦⑧⑨⑩℃°←↑↓┌─│└├┐┘━┃"),
)  # fmt: skip
_NARROW_MARKS = (
    (3.0, "\xa0"), (4.0, "«»–’“”"), (4.6, "©—…·•„°‘"), (5.5, "®№€§£™×‹›´¶\xad"), (8.0, "±²³½¼¾µ¿¡¢¥ªº÷‚†‡‰¦¨¬¯¸¹¤"),
)  # fmt: skip
_CANTONESE = "嘅咗喺冇唔係乜哋佢嚟嗰啲噉咁睇攞嘢咩啦喎嘞"
# Share of letters outside ASCII with such a letter, an ASCII letter, or neither to their left.
_LEFT = {True: (0.05, 0.65, 0.30), False: (0.78, 0.02, 0.20)}  # by whether the script is Latin
_ALONE_LETTER, _JOINED_MARK = 3.0, 1.0  # a letter with no letter beside it, a mark with one
_CAPITALS = 4.0  # a page all in capitals
_NBSP = 0xA0
_WITHIN_WORDS = "’\xad"
_CASED = frozenset({"cp1251", "koi8-r", "koi8-u", "cp866", "iso8859-5", "mac-cyrillic", "cp1253", "iso8859-7"})
# A capital behind a small letter: what one script's capitals look like in the charset of another.
_CASE_TURNS = re.compile("[ά-ώа-џ](?=[Α-ΫА-ЯЀ-Џ])")
_CASE_TURN, _CLOSE = 3.0, 60.0
_LATIN = frozenset({
    "cp1252", "cp1250", "cp1254", "cp1257", "cp1258", "iso8859-2", "iso8859-3", "iso8859-4", "iso8859-10",
    "iso8859-13", "iso8859-14", "iso8859-15", "iso8859-16", "mac-roman",
})  # fmt: skip


def readings(body: bytes, declared: dict[str, float]) -> dict[str, float]:
    """Charset -> cost of reading the page in it, less what is known of the charset before any byte is read.

    `declared` is what a declaration is worth, in nats, for each charset that the page names.
    """
    sample = sample_of(body, _SAMPLE)
    for charset in (*(name for name in declared if name in MULTIBYTE), "gb18030", "big5hkscs"):
        cost, is_plain = _reads_plainly(sample, charset)
        if is_plain:
            return {charset: cost - _known(charset, declared)}
    found = costs(sample, declared)
    if min(found, key=found.__getitem__) not in _SINGLE:
        return found
    return _single_costs(sample_of(body, _LONG_SAMPLE), declared)


def _reads_plainly(sample: bytes, charset: str) -> tuple[float, bool]:
    """(cost, whether the sample reads as everyday text, which no other charset's text does in this one)."""
    text = sample.decode(charset, "replace")
    each = characters_cost(text, charset)
    wide = each[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32) >= 0x80]
    return float(each.sum()), len(wide) >= _PLAIN_CHARACTERS and float(wide.mean()) <= _PLAIN_COST


def sample_of(body: bytes, size: int) -> bytes:
    """The page's first bytes outside ASCII, each with its neighbours, about `size` in all."""
    kept: list[np.ndarray] = []
    got = 0
    for at in range(0, len(body), _WINDOW):
        piece = np.frombuffer(body, np.uint8, min(_WINDOW, len(body) - at), at)
        high = piece >= 0x80
        near = high.copy()
        near[1:] |= high[:-1]
        near[:-1] |= high[1:]
        kept.append(piece[near])
        got += len(kept[-1])
        if got >= size:
            break
    sample = np.concatenate(kept).tobytes() if kept else b""
    if len(sample) <= size:
        return sample
    # The cut goes where every charset begins anew.
    end = next((at for at in range(size, size - 512, -1) if sample[at] < 0x30), size)
    return sample[:end]


def costs(sample: bytes, declared: dict[str, float]) -> dict[str, float]:
    """`readings` of one sample, in every charset."""
    found = {charset: _multibyte_cost(sample, charset) - _known(charset, declared) for charset in (*MULTIBYTE, "utf-8")}
    return found | _single_costs(sample, declared)


def _single_costs(sample: bytes, declared: dict[str, float]) -> dict[str, float]:
    names, table, starts = _single_tables()
    histogram, left, apart = _contexts(np.frombuffer(sample, np.uint8))
    neighbours = {
        latin: apart - sum(n * math.log(share) for n, share in zip(left, shares, strict=True))
        for latin, shares in _LEFT.items()
    }
    best_row = np.minimum.reduceat(table @ histogram, starts).tolist()
    found = {
        name: cost + neighbours[name in _LATIN] - _known(name, declared)
        for name, cost in zip(names, best_row, strict=True)
    }
    best = min(found, key=found.__getitem__)
    return _with_case(found, sample[:_SAMPLE], found[best] + _CLOSE) if best in _CASED else found


def _with_case(found: dict[str, float], sample: bytes, bound: float) -> dict[str, float]:
    """The costs, with those of the near cased readings raised where capitals stand behind small letters."""
    turns = {name: len(_CASE_TURNS.findall(sample.decode(name, "replace"))) for name in _CASED if found[name] < bound}
    return {name: cost + _CASE_TURN * turns.get(name, 0) for name, cost in found.items()}


def _contexts(octets: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int], float]:
    """(how often each byte outside ASCII stands alone, then with a letter beside it: float32 [257], 1 last; how many
    have such a byte, an ASCII letter, neither to their left; the cost of the ASCII bytes)."""
    padded = np.concatenate((np.zeros(1, np.uint8), octets, np.zeros(1, np.uint8)))
    high = padded >= 0x80
    word = high & (padded != _NBSP)
    lower = padded | 0x20
    ascii_letter = ~high & (lower >= 0x61) & (lower <= 0x7A)
    near = word | ascii_letter
    beside = near[:-2] | near[2:]
    inside = high[1:-1]
    kinds = octets[inside].astype(np.int64) - 128 + 128 * beside[inside]
    histogram = np.append(np.bincount(kinds, minlength=256), 1).astype(np.float32)
    count = int(word[1:-1].sum())
    joined = int((word[1:-1] & word[:-2]).sum())
    after_ascii = int((word[1:-1] & ascii_letter[:-2]).sum())
    left = (joined, after_ascii, count - joined - after_ascii)
    return histogram, left, (len(octets) - int(inside.sum())) * _ASCII


def _known(charset: str, declared: dict[str, float]) -> float:
    prior = _PRIOR.get(charset, _UNLIKELY)
    return max(prior, 0.0) + declared[charset] if charset in declared else prior


def characters_cost(text: str, charset: str) -> np.ndarray:
    """Cost of each character of a text that was read in a multi-byte charset, or in `utf-8`."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return _table(charset).take(points, mode="clip")


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
    # The charsets of Romanian have the letters with cedillas only, as pages wrote them.
    found["ro"] |= {
        cedilla: found["ro"][comma] for comma, cedilla in zip("șțȘȚ", "şţŞŢ", strict=True) if comma in found["ro"]
    }
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
    text = "".join(bytes((lead, trail)).decode(charset, "ignore") for lead in leads for trail in range(0x40, 0xFF))
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
def _single_tables() -> tuple[list[str], np.ndarray, np.ndarray]:
    """(charsets, costs, first row of each charset): a row a language and, for scripts with capitals, one more.

    Costs are float32 [rows, 257]: by byte - 128 standing alone, then beside a letter, then what the row itself costs.
    """
    rows: list[list[float]] = []
    starts = []
    marks = {char: cost for cost, chars in reversed(_NARROW_MARKS) for char in chars}
    for charset, languages in _SINGLE.items():
        starts.append(len(rows))
        chars = [bytes((octet,)).decode(charset, "replace") for octet in range(128, 256)]
        for language in languages.split():
            letters = _mixed(languages) if language == "mixed" else _letters().get(language, {})
            for capitals in (False, True) if charset not in _LATIN and _has_capitals(letters) else (False,):
                used = _in_capitals(letters) if capitals else letters
                costs = [_narrow_cost(char, used, marks, charset in _LATIN) for char in chars]
                # A language without letters of its own outside ASCII has marks there and nothing else.
                cheaper = 0.0 if letters else 2.5
                alone = [cost + _ALONE_LETTER if char.isalpha() else cost - cheaper for char, cost in costs]
                beside = [cost + _joined(char) - (0.0 if char.isalpha() else cheaper) for char, cost in costs]
                rows.append([*alone, *beside, _CAPITALS if capitals else 0.0])
    return list(_SINGLE), np.array(rows, np.float32), np.array(starts)


def _in_capitals(letters: dict[str, float]) -> dict[str, float]:
    """A text all in capitals, where Greek loses its accents; what small letters remain cost what capitals did."""
    shares: dict[str, float] = {}
    for char, cost in letters.items():
        plain = unicodedata.normalize("NFD", char)[0] if "Ͱ" <= char <= "Ͽ" else char
        turned = plain.swapcase().replace("ς", "σ")
        shares[turned] = shares.get(turned, 0.0) + math.exp(-cost)
    return {char: -math.log(share) for char, share in shares.items()}


def _mixed(languages: str) -> dict[str, float]:
    """A page in several of these languages: the least cost of each letter, and something for not knowing which."""
    found: dict[str, float] = {}
    for language in languages.split():
        for char, cost in _letters().get(language, {}).items():
            found[char] = min(found.get(char, 99.0), cost + 1.2)
    return found


def _joined(char: str) -> float:
    return 0.0 if char.isalpha() or char in _WITHIN_WORDS else _JOINED_MARK


def _has_capitals(letters: dict[str, float]) -> bool:
    return any(char.isupper() for char in letters)


def _narrow_cost(char: str, letters: dict[str, float], marks: dict[str, float], latin: bool) -> tuple[str, float]:
    other = char.swapcase()
    if len(other) == 1 and (char in letters or other in letters):
        # The other case of a letter that the text holds, which the counted messages may not.
        return char, min(letters.get(char, 99.0), letters.get(other, 99.0) + 2.0) + 0.1
    if char in letters:
        return char, letters[char] + 0.1
    if char in marks:
        return char, marks[char]
    if char == "\ufffd":
        return char, _BROKEN
    if char.isalpha():
        return char, _STRAY_LETTER if latin or ord(char) > 0x250 else 10.0
    return char, 11.0 if char.isprintable() else _BROKEN
