"""Tables that the compiled passes read: tags, named characters, and automata over the word lists.

Tag names, their kinds and the named characters follow the HTML Standard (WHATWG); the word lists are `words.yaml`.
"""

from __future__ import annotations

import functools
import html.entities
from importlib.resources import files
from typing import NamedTuple

import numpy as np

# How the scanner treats a tag.
INLINE, BLOCK, BREAK, RAW, VOID = range(5)
_BLOCKS = [
    "address",
    "article",
    "aside",
    "blockquote",
    "body",
    "caption",
    "center",
    "dd",
    "details",
    "dialog",
    "dir",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "frameset",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hgroup",
    "html",
    "legend",
    "li",
    "main",
    "menu",
    "nav",
    "ol",
    "p",
    "pre",
    "search",
    "section",
    "summary",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "tr",
    "ul",
    "head",
    "button",
    "label",
    "noframes",
]
_BREAKS = ["br", "hr"]
_RAW = [
    "script",
    "style",
    "template",
    "svg",
    "select",
    "textarea",
    "title",
    "iframe",
    "noembed",
    "noscript",
    "canvas",
    "object",
    "audio",
    "video",
    "datalist",
    "math",
    "xmp",
    "plaintext",
]
_VOIDS = ["area", "base", "col", "embed", "img", "input", "link", "meta", "param", "source", "track", "wbr"]
_INLINES = [
    "a",
    "b",
    "strong",
    "i",
    "em",
    "font",
    "span",
    "code",
    "time",
    "sup",
    "sub",
    "big",
    "u",
    "s",
    "small",
    "cite",
    "tt",
    "kbd",
    "samp",
    "var",
    "q",
    "abbr",
    "ins",
    "del",
    "mark",
    "option",
]
TAGS: tuple[str, ...] = ("?", *_BLOCKS, *_BREAKS, *_RAW, *_VOIDS, *_INLINES)
TAG = {name: number for number, name in enumerate(TAGS)}
KIND = np.array(
    [
        BLOCK if n in _BLOCKS else BREAK if n in _BREAKS else RAW if n in _RAW else VOID if n in _VOIDS else INLINE
        for n in TAGS
    ],
    np.uint8,
)
_NAME_BYTES = 16


class Automaton(NamedTuple):
    """Aho-Corasick as a full DFA: `step[state, classes[byte]]` follows, `found[state]` has the bits of what ends."""

    classes: np.ndarray  # (256,) uint8
    step: np.ndarray  # (states, classes) int16
    found: np.ndarray  # (states,) uint32


class Tables(NamedTuple):
    """Everything `scan` needs that is no page."""

    tag_keys: np.ndarray  # (512,) uint64, open addressing by `name_hash`; 0 is empty
    tag_ids: np.ndarray  # (512,) uint8
    kinds: np.ndarray  # (tags,) uint8
    entity_keys: np.ndarray  # (8192,) uint64
    entity_at: np.ndarray  # (8192,) int32 into entity_bytes
    entity_size: np.ndarray  # (8192,) uint8
    entity_bytes: np.ndarray  # uint8
    cp1252: np.ndarray  # (32,) uint16: what &#128; to &#159; mean
    attributes: Automaton


def name_hash(name: bytes) -> int:
    """FNV-1a of 64 bits, never 0; the kernels compute the same."""
    value = 0xCBF29CE484222325
    for byte in name:
        value = ((value ^ byte) * 0x100000001B3) & (2**64 - 1)
    return value or 1


def _addressed(keys: list[int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """(size,) keys and (size,) index of each, by linear probing."""
    table, index = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    for number, key in enumerate(keys):
        slot = key & (size - 1)
        while table[slot]:
            slot = (slot + 1) & (size - 1)
        table[slot], index[slot] = key, number
    return table, index


def automaton(patterns: list[tuple[bytes, int]]) -> Automaton:
    """The DFA of (pattern, bits) pairs (Aho and Corasick 1975)."""
    used = sorted({byte for pattern, _ in patterns for byte in pattern})
    classes = np.zeros(256, np.uint8)
    classes[used] = np.arange(1, len(used) + 1)
    children: list[dict[int, int]] = [{}]
    found = [0]
    for pattern, bits in patterns:
        state = 0
        for byte in pattern:
            following = children[state].get(int(classes[byte]))
            if following is None:
                following = len(children)
                children[state][int(classes[byte])] = following
                children.append({})
                found.append(0)
            state = following
        found[state] |= bits
    step = np.zeros((len(children), len(used) + 1), np.int16)
    fail = [0] * len(children)
    for symbol, child in children[0].items():
        step[0, symbol] = child
    queue = list(children[0].values())
    for state in queue:
        found[state] |= found[fail[state]]
        step[state] = step[fail[state]]
        for symbol, child in children[state].items():
            fail[child] = int(step[fail[state], symbol])
            step[state, symbol] = child
            queue.append(child)
    return Automaton(classes, step, np.array(found, np.uint32))


@functools.cache
def word_lists() -> dict[str, dict[str, list[str]]]:
    """The word lists by kind and category."""
    import yaml

    return yaml.safe_load(files("pipelines.crawl.html").joinpath("words.yaml").read_text("utf-8"))


@functools.cache
def categories(kind: str) -> tuple[str, ...]:
    """Names of the bits of one kind of words, `attributes` or `phrases`."""
    return tuple(word_lists()[kind])


@functools.cache
def automaton_of(kind: str) -> Automaton:
    """The automaton of one kind of words; bit n is category n.

    Kernels fold the case of ASCII only, so a word that begins with another letter is looked for with a capital, too.
    """
    lists = word_lists()[kind]
    return automaton(
        [
            (form.encode(), 1 << bit)
            for bit, words in enumerate(lists.values())
            for word in words
            for form in sorted({word, word if word[0].isascii() else word[0].upper() + word[1:]})
        ]
    )


@functools.cache
def tables() -> Tables:
    """Built once a process, in about 20 ms."""
    tag_keys, tag_ids = _addressed([name_hash(n.encode()) for n in TAGS[1:]], 512)
    names = sorted({name.rstrip(";") for name in html.entities.html5})
    values = [(html.entities.html5.get(name + ";") or html.entities.html5[name]).encode() for name in names]
    entity_keys, entity_index = _addressed([name_hash(n.encode()) for n in names], 8192)
    ends = np.cumsum([0, *map(len, values)])
    cp1252 = [ord(bytes([n]).decode("cp1252", "replace")) for n in range(128, 160)]
    return Tables(
        tag_keys=tag_keys,
        tag_ids=np.where(tag_keys > 0, tag_ids + 1, 0).astype(np.uint8),
        kinds=KIND,
        entity_keys=entity_keys,
        entity_at=ends[entity_index].astype(np.int32),
        entity_size=np.diff(ends)[entity_index].astype(np.uint8),
        entity_bytes=np.frombuffer(b"".join(values), np.uint8),
        cp1252=np.array(cp1252, np.uint16),
        attributes=automaton_of("attributes"),
    )
