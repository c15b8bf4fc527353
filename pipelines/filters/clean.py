"""What extraction takes out of a text before it is written: boilerplate lines, then personal data.

Both leave an account: characters_in = characters_out + the characters of every change, and the spans of what went. A
text that nothing is taken from is passed on as it is, without a Python object.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import ConfigError
from pipelines.filters.facts import Facts
from pipelines.filters.pii import KINDS, PLACEHOLDERS, Span

CHANGE_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int32()),
        pa.field("reason", pa.string()),
        pa.field("count", pa.int64()),
        pa.field("characters", pa.int64()),
        pa.field("detail", pa.string()),
    ]
)
LINE_TYPES = ("web",)  # source types whose lines are judged; books, code and answers keep theirs
MOST_SPANS_TOLD = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanRules:
    """What is taken out. `lines` None: where the source type is web; `pii`: kinds, none for an empty tuple."""

    lines: bool | None = None
    pii: tuple[str, ...] = KINDS

    def __post_init__(self) -> None:
        """ConfigError for a kind that is not known."""
        for kind in self.pii:
            if kind not in PLACEHOLDERS:
                raise ConfigError(f"No personal data is called {kind!r}.", mend=f"Known are {', '.join(KINDS)}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """`texts` as given but for what went; `changes` a row for each (text, reason), sorted by text, then reason.

    `characters` is what the text lost, negative where placeholders are longer. `detail` holds "from-to" spans in
    characters, never what stood there: of a line rule in the text as given, of personal data (`pii_...`) in the text
    after line rules, before masking. `facts` are of `texts`: `measure(done.texts, done.facts)` reads nothing again.
    """

    texts: pa.Array
    changes: pa.Table
    facts: Facts


def clean(
    texts: pa.Array | pa.ChunkedArray, languages: Sequence[str | None], *, source_type: str, rules: CleanRules
) -> Cleaned:
    """(n,) texts -> (n,) cleaned texts of the same type; a null text stays null.

    Line rules find their lines by script and phrase, so `languages` decides nothing today; it is part of the call so
    that a rule for one language needs no other one.
    """
    from pipelines.filters.pii import find, mask
    from pipelines.filters.pii_scan import find_places
    from pipelines.filters.reader import line_reasons, read_facts, read_facts_and_lines, utf8_of

    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    judge_lines = source_type in LINE_TYPES if rules.lines is None else rules.lines
    rows: list[tuple[int, str, int, int, str]] = []
    changed: dict[int, bytes] = {}
    data, offsets = utf8_of(array)
    facts, spans = read_facts_and_lines(array)
    if judge_lines:
        reasons = line_reasons()
        starts = np.flatnonzero(np.diff(spans[:, 0], prepend=-1))
        for group in np.split(spans, starts[1:]) if len(spans) else ():
            row = int(group[0, 0])
            whole = data[offsets[row] : offsets[row + 1]].tobytes()
            changed[row], told = _without_lines(whole, group)
            rows += [(row, reasons[rule], *told[rule]) for rule in told]
    if rules.pii:
        counts, places = find_places(data, offsets)
        ends = np.cumsum(counts)
        for row in np.flatnonzero(counts).tolist():
            whole, known = changed.get(row), None
            if whole is None:
                whole, known = (
                    data[offsets[row] : offsets[row + 1]].tobytes(),
                    places[ends[row] - counts[row] : ends[row]],
                )
            if found := find(whole, rules.pii, known):
                changed[row] = mask(whole.decode(), found).encode()
                rows += [(row, *told) for told in _told(found)]
    rows.sort(key=lambda r: (r[0], r[1]))
    changes = pa.table(
        [pa.array([r[at] for r in rows], field.type) for at, field in enumerate(CHANGE_SCHEMA)], schema=CHANGE_SCHEMA
    )
    if not changed:
        return Cleaned(texts=array, changes=changes, facts=facts)
    order = sorted(changed)
    new = pa.array([changed[row].decode() for row in order], array.type)
    where = np.zeros(len(array), np.bool_)
    where[order] = True
    replaced = pc.replace_with_mask(array, pa.array(where), new)
    return Cleaned(texts=replaced, changes=changes, facts=facts.with_rows(order, read_facts(new), replaced))


def _without_lines(text: bytes, spans: np.ndarray) -> tuple[bytes, dict[int, tuple[int, int, str]]]:
    """The text without the lines, each with one line end; (count, characters, detail) by rule."""
    pieces, at = [], 0
    told: dict[int, list[tuple[int, int]]] = defaultdict(list)
    lost: dict[int, int] = defaultdict(int)
    for _, rule, low, high, first, last, _ in spans.tolist():
        end = min(high + 1, len(text))  # with its line end
        pieces.append(text[at:low])
        gone = text[low:end]
        lost[rule] += len(gone.decode("utf-8", "replace"))
        told[rule].append((first, last))
        at = end
    pieces.append(text[at:])
    left = b"".join(pieces)
    if at == len(text) and left.endswith(b"\n"):  # the last line went: the line end before it goes too
        left = left[:-1]
        lost[rule] += 1
    return left, {rule: (len(told[rule]), lost[rule], _detail(told[rule])) for rule in told}


def _told(spans: Iterable[Span]) -> Iterable[tuple[str, int, int, str]]:
    by_kind: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        by_kind[span.kind].append(span)
    for kind, found in by_kind.items():
        lost = sum(span.end - span.start - len(PLACEHOLDERS[kind]) for span in found)
        yield f"pii_{kind}", len(found), lost, _detail([(span.start, span.end) for span in found])


def _detail(spans: Sequence[tuple[int, int]]) -> str:
    told = " ".join(f"{low}-{high}" for low, high in spans[:MOST_SPANS_TOLD])
    return told + (f" and {len(spans) - MOST_SPANS_TOLD} more" if len(spans) > MOST_SPANS_TOLD else "")
