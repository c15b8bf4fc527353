"""Texts on which filter rules fire: natural pages, each with one fault of random strength.

A published rule rarely fires on clean text and never at its edge; so each page is given one fault (lines repeated,
words cut, bullets, marks dropped, ...) whose strength is drawn evenly over a range that holds the published bound well
inside. Seeded: the same pages give the same texts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def _words(text: str, unspaced: bool) -> list[str]:
    """Words; where the text is written without spaces, clauses, marks and blanks, so that no word is cut in two."""
    return re.findall(r"[^，。！？；：、\s]+|\s|\S", text) if unspaced else text.split()


def _phrase(rng: random.Random, words: list[str], size: int, unspaced: bool) -> list[str]:
    """`size` words of the text; without spaces the first characters of a clause, as many as make such words."""
    if unspaced:
        runs = re.findall("[\u4e00-\u9fff]{4,}", "，".join(words)) or ["磨坊主人"]
        return [rng.choice(runs)[: round(1.7 * size)], "，"]
    at = rng.randrange(max(1, len(words) - size))
    return words[at : at + size]


def _join(unspaced: bool) -> str:
    return "" if unspaced else " "


def repeat_lines(rng: random.Random, text: str, unspaced: bool) -> str:
    """Some lines come again, some of them often."""
    lines = _lines(text)
    for _ in range(int(len(lines) * rng.uniform(0.05, 1.2)) + 1):
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines[: max(3, len(lines) // 3)]))
    return "\n".join(lines)


def repeat_paragraphs(rng: random.Random, text: str, unspaced: bool) -> str:
    """Blocks of two lines, parted by empty lines, of which some come again."""
    lines = _lines(text)
    blocks = ["\n".join(lines[at : at + 2]) for at in range(0, len(lines), 2)]
    for _ in range(int(len(blocks) * rng.uniform(0.05, 1.0)) + 1):
        blocks.insert(rng.randrange(len(blocks) + 1), rng.choice(blocks))
    return "\n\n".join(blocks)


def repeat_phrase(rng: random.Random, text: str, unspaced: bool) -> str:
    """One phrase of the text comes again and again."""
    words = _words(text, unspaced)
    size = rng.randrange(2, 7)
    phrase = _phrase(rng, words, size, unspaced)
    for _ in range(int(len(words) * rng.uniform(0.02, 0.4) / (1 if unspaced else size)) + 1):
        place = rng.randrange(len(words) + 1)
        words[place:place] = phrase
    return _join(unspaced).join(words)


def repeat_pair(rng: random.Random, text: str, unspaced: bool) -> str:
    """Two to four words of the text come again all the time."""
    words = _words(text, unspaced)
    size = rng.randrange(2, 5)
    pair = _phrase(rng, words, size, unspaced)
    most = 2.5 if unspaced else 0.9
    for _ in range(int(len(words) * rng.uniform(0.05, most) / (1 if unspaced else size)) + 1):
        place = rng.randrange(len(words) + 1)
        words[place:place] = pair
    return _join(unspaced).join(words)


def repeat_passages(rng: random.Random, text: str, unspaced: bool) -> str:
    """Passages of 8 to 40 words come again."""
    words = _words(text, unspaced)
    wanted = int(len(words) * rng.uniform(0.03, 0.9))
    while wanted > 0:
        size = rng.randrange(1, 5) if unspaced else rng.randrange(8, 40)
        at = rng.randrange(max(1, len(words) - size))
        place = rng.randrange(len(words) + 1)
        words[place:place] = words[at : at + size]
        wanted -= size
    return _join(unspaced).join(words)


def cut_short(rng: random.Random, text: str, unspaced: bool) -> str:
    """Only the first words are left."""
    words = _words(text, unspaced)
    return _join(unspaced).join(words[: rng.randrange(10, 110)])


def few_sentences(rng: random.Random, text: str, unspaced: bool) -> str:
    """Only the first sentences are left."""
    sentences = re.split(r"(?<=[.!?。！？])", text)
    return "".join(sentences[: rng.randrange(1, 11)]).strip()


def bullets(rng: random.Random, text: str, unspaced: bool) -> str:
    """Most lines begin with a bullet."""
    share = rng.uniform(0.75, 1.0)
    return "\n".join(("- " if rng.random() < share else "") + line for line in _lines(text))


def ellipses(rng: random.Random, text: str, unspaced: bool) -> str:
    """Lines end in an ellipsis."""
    share, mark = rng.uniform(0.1, 0.6), rng.choice(["...", "…"])
    return "\n".join(line.rstrip(".。") + mark if rng.random() < share else line for line in _lines(text))


def hashes(rng: random.Random, text: str, unspaced: bool) -> str:
    """Hash signs or ellipses before words."""
    share, mark = rng.uniform(0.02, 0.3), rng.choice(["#", "# ", "... "])
    return _join(unspaced).join(mark + w if rng.random() < share else w for w in _words(text, unspaced))


def numbers(rng: random.Random, text: str, unspaced: bool) -> str:
    """Words give way to numbers."""
    share = rng.uniform(0.0, 0.5)
    join = " "
    return join.join(str(rng.randrange(10000)) if rng.random() < share else w for w in _words(text, unspaced))


def short_words(rng: random.Random, text: str, unspaced: bool) -> str:
    """Words lose their ends."""
    share = rng.uniform(0.2, 1.0)
    return " ".join(w[: rng.randrange(1, 3)] if rng.random() < share else w for w in text.split())


def long_words(rng: random.Random, text: str, unspaced: bool) -> str:
    """Words run together."""
    share = rng.uniform(0.1, 0.9)
    return "".join(w + ("" if rng.random() < share else " ") for w in text.split())


def no_stop_words(rng: random.Random, text: str, unspaced: bool) -> str:
    """Function words go, nearly all."""
    kept = rng.sample(["the", "be", "to", "of", "and", "that", "have", "with"], rng.randrange(0, 4))
    gone = {"the", "be", "to", "of", "and", "that", "have", "with"} - set(kept)
    words = [w for w in text.split(" ") if re.sub(r"\W", "", w.lower()) not in gone]
    return " ".join(words)


def no_line_ends(rng: random.Random, text: str, unspaced: bool) -> str:
    """Lines lose their closing marks."""
    share = rng.uniform(0.7, 1.0)
    return "\n".join(re.sub(r"[^\w]+$", "", line) if rng.random() < share else line for line in _lines(text))


def short_lines(rng: random.Random, text: str, unspaced: bool) -> str:
    """Part of the text is broken into short lines."""
    share = rng.uniform(0.0, 0.8)
    size = 12 if unspaced else 26
    broken = []
    for line in _lines(text):
        if rng.random() < share:
            broken += [line[at : at + size] for at in range(0, min(len(line), 200), size)]
        else:
            broken.append(line)
    return "\n".join(broken)


def word_lines(rng: random.Random, text: str, unspaced: bool) -> str:
    """A line end after every few words."""
    share = rng.uniform(0.02, 0.7)
    words = _words(text, unspaced)
    return "".join(w + ("\n" if rng.random() < share else _join(unspaced)) for w in words)


def curly_brackets(rng: random.Random, text: str, unspaced: bool) -> str:
    """A line of code, as prose or by itself."""
    lines = _lines(text)
    if rng.random() < 0.6:
        line = rng.choice(
            ["if (a) { return b; } else stop.", "Write { and } around it.", "f(x) {", "{", "see {this} here"]
        )
        lines.insert(rng.randrange(len(lines) + 1), line)
    return "\n".join(lines)


def filler(rng: random.Random, text: str, unspaced: bool) -> str:
    """The filler of templates, now and then."""
    lines = _lines(text)
    if rng.random() < 0.6:
        lines.insert(
            rng.randrange(len(lines) + 1),
            rng.choice(["Lorem ipsum dolor sit amet, consetetur elitr.", "This lorem ipsum text is filler."]),
        )
    return "\n".join(lines)


FAULTS: dict[str, Callable[[random.Random, str, bool], str]] = {
    fault.__name__: fault
    for fault in (
        repeat_lines, repeat_paragraphs, repeat_phrase, repeat_pair, repeat_passages, cut_short, few_sentences, bullets,
        ellipses, hashes, numbers, short_words, long_words, no_stop_words, no_line_ends, short_lines, word_lines,
        curly_brackets, filler,
    )
}  # fmt: skip


def perturb(
    pages: Sequence[str], faults: Sequence[str], *, unspaced: bool, times: tuple[int, int] = (1, 1), seed: int = 0
) -> list[tuple[str, str]]:
    """(fault, text): every page with each fault in turn, once, or as often as `times` (least, most) draws.

    Texts of fewer than 20 characters are left out; a text stops growing at 12,000.
    """
    made = []
    for number, page in enumerate(pages):
        rng = random.Random(f"{seed} {number}")
        for fault in faults:
            text = page
            for _ in range(rng.randint(*times)):
                if len(text) <= 12_000 and text:
                    text = re.sub(r"[ \t]+\n", "\n", FAULTS[fault](rng, text, unspaced)).strip()
            if len(text) >= 20:
                made.append((fault, text))
    return made
