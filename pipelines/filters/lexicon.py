"""Word lists as data: `words/*.txt`, one list a file, found in one look-up a unit.

A list says in its head what it is for (`use: density` counts hits, `use: line` flags lines), its version and source.
An entry is a phrase; it is cut into units as texts are, so `terms of use` and 责任编辑 match whatever the case, the
width and the spaces. All phrases of all lists lie in one hash table; a small table of first units says which lengths
are worth looking up, so most units cost one load.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from pipelines.errors import ConfigError
from pipelines.filters.scan import CAPITAL, HAS_LETTER, L_UNIT, L_UNITS, L_WORDS, WORD
from pipelines.kernels import subkernel

BASE = np.uint64(0xD6E8FEB86659FD93)
PLACES = ("anywhere", "begin", "end", "whole", "counter", "label")
MOST_LISTS = 64
MOST_UNITS = 15
_HEAD_KEYS = {"name", "version", "use", "place", "longest", "bounded", "case", "source"}
_FIRST = 1 << 14
_FIRST_MASK = np.uint64(_FIRST - 1)
_HASH = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(20)


@dataclass(frozen=True, slots=True, kw_only=True)
class WordList:
    """One list. `longest` (units) and `place` say which lines a hit flags; `bounded` puts it under the 5 % rule.

    `lower_only`: a hit that begins with a capital letter does not count.
    """

    name: str
    version: int
    use: str
    place: str
    longest: int
    bounded: bool
    lower_only: bool
    source: str
    phrases: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexicon:
    """All lists, ready for the kernels; arrays are read-only."""

    lists: tuple[WordList, ...]
    first: np.ndarray
    keys: np.ndarray
    entries: np.ndarray
    bits: np.ndarray
    places: np.ndarray
    longest: np.ndarray
    is_line: np.ndarray
    is_lower: np.ndarray
    colon: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Names, in the order of the kernels' columns."""
        return tuple(each.name for each in self.lists)


def parse_list(text: str, where: str) -> WordList:
    """A list from its file; ConfigError names the line that is wrong."""
    head: dict[str, str] = {}
    phrases: list[str] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line.startswith("#"):
            key, colon, value = line[1:].partition(":")
            if colon and not phrases and key.strip() in _HEAD_KEYS:
                head[key.strip()] = value.strip()
        elif line:
            if len(line) > 100:
                raise ConfigError(f"{where}, line {number}: a phrase of {len(line)} characters.", mend="100 at most.")
            phrases.append(line)
    for key in ("name", "version", "use", "source"):
        if not head.get(key):
            raise ConfigError(f"{where} has no '# {key}: ...' in its head.", mend="See docs/filters.md, 'Word lists'.")
    place = head.get("place", "anywhere")
    if place not in PLACES or head["use"] not in ("density", "line"):
        wrong, known = (place, PLACES) if place not in PLACES else (head["use"], ("density", "line"))
        near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.0)[0]
        raise ConfigError(f"{where}: {wrong!r} is not known.", mend=f"The nearest is {near!r}.")
    return WordList(
        name=head["name"],
        version=int(head["version"]),
        use=head["use"],
        place=place,
        longest=int(head.get("longest", "1000000")),
        bounded=head.get("bounded", "no") == "yes",
        lower_only=head.get("case") == "lower",
        source=head["source"],
        phrases=tuple(dict.fromkeys(phrases)),
    )


@cache
def read_lists() -> tuple[WordList, ...]:
    """The lists that ship, by file name."""
    folder = files("pipelines.filters").joinpath("words")
    found = sorted((f for f in folder.iterdir() if f.name.endswith(".txt")), key=lambda f: f.name)
    return tuple(parse_list(f.read_text("utf-8"), f.name) for f in found)


def compile_lists(lists: tuple[WordList, ...]) -> Lexicon:
    """Arrays of the lists; ConfigError for too many lists, a name given twice, a phrase that is too long."""
    if len(lists) > MOST_LISTS:
        raise ConfigError(f"There are {len(lists)} word lists.", mend=f"{MOST_LISTS} at most: join some.")
    if len({each.name for each in lists}) < len(lists):
        raise ConfigError("Two word lists have one name.", mend="Names are unique.")
    from pipelines.filters.reader import units_of_lines

    bits: dict[tuple[int, int], int] = {}
    first = np.zeros(_FIRST, np.uint16)
    for number, each in enumerate(lists):
        for phrase, hashes in zip(each.phrases, units_of_lines(each.phrases), strict=True):
            if not 0 < len(hashes) <= MOST_UNITS:
                raise ConfigError(f"{each.name}: {phrase!r} has {len(hashes)} units.", mend=f"One to {MOST_UNITS}.")
            key = 0
            for unit in hashes:
                key = (key * int(BASE) + unit) % 2**64
            bits[(key, len(hashes))] = bits.get((key, len(hashes)), 0) | 1 << number
            first[hashes[0] & int(_FIRST_MASK)] |= np.uint16(1 << len(hashes))
    size = 16
    while size < 3 * len(bits):
        size *= 2
    keys, entries = np.zeros(size, np.uint64), np.full(size, -1, np.int32)
    for entry, (key, _) in enumerate(bits):
        slot = ((key * int(_HASH) % 2**64) >> int(_SHIFT)) & (size - 1)
        while entries[slot] >= 0:
            slot = (slot + 1) & (size - 1)
        keys[slot], entries[slot] = key, entry
    return Lexicon(
        lists=lists,
        first=first,
        keys=keys,
        entries=entries,
        bits=np.array(list(bits.values()), np.uint64),
        places=np.array([PLACES.index(each.place) for each in lists], np.int64),
        longest=np.array([each.longest for each in lists], np.int64),
        is_line=np.array([each.use == "line" for each in lists], np.bool_),
        is_lower=np.array([each.lower_only for each in lists], np.bool_),
        colon=units_of_lines([":"])[0][0],
    )


NO_LISTS = Lexicon(
    lists=(),
    first=np.zeros(_FIRST, np.uint16),
    keys=np.zeros(16, np.uint64),
    entries=np.full(16, -1, np.int32),
    bits=np.zeros(0, np.uint64),
    places=np.zeros(0, np.int64),
    longest=np.zeros(0, np.int64),
    is_line=np.zeros(0, np.bool_),
    is_lower=np.zeros(0, np.bool_),
)


@cache
def default_lexicon() -> Lexicon:
    """The lists that ship, compiled once a process."""
    return compile_lists(read_lists())


def versions(lists: tuple[WordList, ...] | None = None) -> Mapping[str, int]:
    """Version by list, for manifests."""
    return {each.name: each.version for each in (read_lists() if lists is None else lists)}


@subkernel
def match(  # noqa: C901
    lines, line_count, hashes, kinds, prefix, first, keys, entries, bits, places, longest, is_line, is_lower, powers,
    colon, seen, covered, words_hit, doc, line_bits, hits,
):  # fmt: skip
    """Hits of every list: `hits` (lists, 3) of the text, `line_bits` (lines,) the lists that flag a line.

    A list's hits do not overlap: the leftmost, of these the longest. `seen` (entries,) holds the last text that had an
    entry.
    """
    count = is_line.shape[0]
    mask = np.int64(keys.shape[0] - 1)
    covered[:] = 0  # units up to which a list's last hit reaches
    for line in range(line_count):
        line_bits[line] = np.uint64(0)
        begin, units = lines[line, L_UNIT], lines[line, L_UNITS]
        end = begin + units
        any_hit = False
        first_word, last_word = begin, end - 1
        for i in range(begin, end):
            lengths = np.int64(first[np.int64(hashes[i] & _FIRST_MASK)])
            if lengths == 0:
                continue
            if not any_hit:
                while first_word < end and not kinds[first_word] & WORD:
                    first_word += 1
                while last_word > begin and not kinds[last_word] & WORD:
                    last_word -= 1
            for size in range(15, 0, -1):
                if not lengths >> size & 1 or i + size > end:
                    continue
                key = prefix[i + size] - prefix[i] * powers[size]
                slot = np.int64((key * _HASH) >> _SHIFT) & mask
                while entries[slot] >= 0 and keys[slot] != key:
                    slot = (slot + 1) & mask
                entry = entries[slot]
                if entry < 0:
                    continue
                if not any_hit:
                    any_hit = True
                    words_hit[:] = 0
                of = bits[entry]
                counted = False
                for number in range(count):
                    if not of >> np.uint64(number) & np.uint64(1) or i < covered[number]:
                        continue
                    if is_lower[number] and kinds[i] & CAPITAL:
                        continue
                    covered[number] = i + size
                    counted = True
                    hits[number, 0] += 1
                    hits[number, 1] += size
                    if seen[entry] != doc:
                        hits[number, 2] += 1
                    if is_line[number] and units <= longest[number]:
                        place = places[number]
                        for unit in range(i, i + size):
                            if kinds[unit] & WORD:
                                words_hit[number] += 1
                        labels = place == 5 and i <= first_word and (i + size > last_word or hashes[i + size] == colon)
                        if (
                            place == 0
                            or labels
                            or (place == 1 and i <= first_word)
                            or (place == 2 and i + size > last_word)
                        ):
                            line_bits[line] |= np.uint64(1) << np.uint64(number)
                if counted:
                    seen[entry] = doc
        if any_hit:
            for number in range(count):
                if words_hit[number] == 0 or places[number] < 3 or places[number] > 4:
                    continue
                words = lines[line, L_WORDS]
                if places[number] == 3:
                    if 10 * words_hit[number] >= 8 * words:
                        line_bits[line] |= np.uint64(1) << np.uint64(number)
                else:
                    numbers = 0
                    for unit in range(begin, end):
                        if kinds[unit] & WORD and not kinds[unit] & HAS_LETTER:
                            numbers += 1
                    if numbers > 0 and words_hit[number] + numbers == words:
                        line_bits[line] |= np.uint64(1) << np.uint64(number)
