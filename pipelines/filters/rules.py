"""Rules: bounds over stored measures.

A rule never sees text, so moving a bound costs a scan of small columns. The bounds lie in thresholds.yaml with their
sources and calibration, by script, language and source type: what is asked of a web page is not asked of a book. A rule
drops or marks; a mark is counted and nothing else. A null measure breaks no rule.
"""

from __future__ import annotations

import difflib
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.errors import ConfigError
from pipelines.filters.facts import UNSPACED_SHARE
from pipelines.filters.measures import MEASURES

VERDICT_SCHEMA = pa.schema(
    [
        pa.field("reason", pa.string()),
        pa.field("column", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("threshold", pa.float64()),
    ]
)
SOURCE_TYPES = ("web", "code", "book", "qa")
ACTIONS = ("drop", "mark")
_KEYS = {"reason", "column", "side", "spaced", "unspaced", "languages", "types", "action", "source", "calibration"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One bound: `side` is min or max; None for `spaced` or `unspaced` leaves those texts alone.

    `languages` None: of any language; `types`: the source types it is asked of; `action`: drop, or mark.
    """

    reason: str
    column: str
    side: str
    spaced: float | None
    unspaced: float | None
    languages: tuple[str, ...] | None
    source: str
    types: tuple[str, ...] = ("web",)
    action: str = "drop"
    calibration: str = ""

    @property
    def name(self) -> str:
        """What a setting calls it: `text.words.min`; `code.longest_line.max@code` where web pages are not asked; and
        `text.words.min.mark` of a rule that marks."""
        types = "" if "web" in self.types else f"@{'+'.join(self.types)}"
        return f"{self.column}.{self.side}{types}" + (".mark" if self.action == "mark" else "")


@functools.cache
def default_rules() -> tuple[Rule, ...]:
    """The rules of thresholds.yaml, in order."""
    return parse_rules(files("pipelines.filters").joinpath("thresholds.yaml").read_text("utf-8"))


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Rules from YAML; ConfigError names the entry, what is wrong with it and what would be right."""
    import yaml

    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"The rules are no YAML: {error}", mend="Mend the line that is named.") from None
    if not isinstance(loaded, dict) or loaded.get("format") != "gristmill.thresholds/1":
        raise ConfigError(
            f"The rules have format {loaded.get('format') if isinstance(loaded, dict) else None!r}.",
            mend="Begin the file with 'format: gristmill.thresholds/1'.",
        )
    rules = tuple(_rule(number, entry) for number, entry in enumerate(loaded.get("rules") or [], start=1))
    for name, group in itertools.groupby(sorted(rules, key=lambda r: r.name), key=lambda r: r.name):
        taken: set[tuple[str, str, str]] = set()
        for rule in group:
            for script in (s for s in ("spaced", "unspaced") if getattr(rule, s) is not None):
                for key in itertools.product([script], rule.types, rule.languages or ("",)):
                    if key in taken:
                        raise ConfigError(f"The rule {name} is given twice for {key}.", key=name, mend="Keep one.")
                    taken.add(key)
    return rules


def with_bounds(rules: Sequence[Rule], bounds: Mapping[str, float | None]) -> tuple[Rule, ...]:
    """The rules with other bounds, by rule name (`text.characters.min`); None takes a rule out."""
    names = {rule.name for rule in rules}
    for name in bounds:
        if name not in names:
            near = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.0)
            raise ConfigError(f"No rule is called {name!r}.", key=name, mend=f"The nearest is {near[0]!r}.")
    changed = [
        replace(
            rule,
            spaced=None if rule.spaced is None else bounds[rule.name],
            unspaced=None if rule.unspaced is None else bounds[rule.name],
        )
        if rule.name in bounds
        else rule
        for rule in rules
    ]
    return tuple(rule for rule in changed if rule.spaced is not None or rule.unspaced is not None)


def first_broken_rule(
    measures: pa.Table | pa.RecordBatch,
    language: pa.Array | pa.ChunkedArray,
    rules: Iterable[Rule],
    source_type: pa.Array | pa.ChunkedArray | None = None,
) -> pa.Table:
    """(n,) rows of VERDICT_SCHEMA: the first rule that drops each document; all null where it stays.

    A document without a source type is judged as a web page.
    """
    count = measures.num_rows
    reason = np.full(count, None, dtype=object)
    column = np.full(count, None, dtype=object)
    value, threshold = np.full(count, np.nan), np.full(count, np.nan)
    is_open = np.ones(count, dtype=bool)
    for rule, found, bound, breaks in _judged(measures, language, source_type, rules, "drop"):
        hit = is_open & breaks
        reason[hit], column[hit] = rule.reason, rule.column
        value[hit], threshold[hit] = found[hit], bound[hit]
        is_open &= ~hit
    return pa.table(
        [
            pa.array(reason, pa.string()),
            pa.array(column, pa.string()),
            pa.array(value, pa.float64(), mask=is_open),
            pa.array(threshold, pa.float64(), mask=is_open),
        ],
        schema=VERDICT_SCHEMA,
    )


def broken_rules(
    measures: pa.Table | pa.RecordBatch,
    language: pa.Array | pa.ChunkedArray,
    rules: Iterable[Rule],
    source_type: pa.Array | pa.ChunkedArray | None = None,
    *,
    action: str,
) -> dict[str, np.ndarray]:
    """(n,) bool by rule name: every rule of that action that a document breaks, whatever the others say."""
    found: dict[str, np.ndarray] = {}
    for rule, _, _, breaks in _judged(measures, language, source_type, rules, action):
        found[rule.name] = found[rule.name] | breaks if rule.name in found else breaks
    return found


def _judged(
    measures: pa.Table | pa.RecordBatch,
    language: pa.Array | pa.ChunkedArray,
    source_type: pa.Array | pa.ChunkedArray | None,
    rules: Iterable[Rule],
    action: str,
) -> Iterator[tuple[Rule, np.ndarray, np.ndarray, np.ndarray]]:
    """(rule, values, bounds, is broken) of each rule of an action, in order."""
    count = measures.num_rows
    unspaced = _numbers(measures, "text.unspaced_fraction") >= UNSPACED_SHARE
    languages = _strings(language, count)
    types = np.full(count, "web") if source_type is None else _strings(source_type, count, "web")
    columns: dict[str, np.ndarray] = {}
    of_types: dict[tuple[str, ...], np.ndarray] = {}
    of_languages: dict[tuple[str, ...] | None, np.ndarray] = {None: np.ones(count, dtype=bool)}
    for rule in rules:
        if rule.action != action:
            continue
        if rule.column not in columns:
            columns[rule.column] = _numbers(measures, rule.column)
        if rule.types not in of_types:
            of_types[rule.types] = np.isin(types, rule.types)
        if rule.languages not in of_languages:
            of_languages[rule.languages] = np.isin(languages, rule.languages or ())
        found = columns[rule.column]
        bound = np.where(unspaced, _or_nan(rule.unspaced), _or_nan(rule.spaced))
        with np.errstate(invalid="ignore"):
            breaks = (found < bound) if rule.side == "min" else (found > bound)
        yield rule, found, bound, breaks & of_types[rule.types] & of_languages[rule.languages]


def _strings(values: pa.Array | pa.ChunkedArray, count: int, default: str = "") -> np.ndarray:
    return np.array([value or default for value in values.to_pylist()], dtype=str) if count else np.empty(0, dtype=str)


def _numbers(measures: pa.Table | pa.RecordBatch, name: str) -> np.ndarray:
    if name not in measures.schema.names:
        raise ConfigError(
            f"The annotations have no column {name!r}.",
            key=name,
            mend="Run the job that writes it, or drop the rule.",
        )
    column = measures.column(name)
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.to_numpy(zero_copy_only=False).astype(np.float64)


def _or_nan(bound: float | None) -> float:
    return float("nan") if bound is None else float(bound)


def _rule(number: int, entry: Any) -> Rule:
    where = f"Rule {number}"
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} is no mapping but {entry!r}.", mend="Write reason, column, side, bound.")
    unknown = sorted(set(entry) - _KEYS)
    if unknown:
        near = difflib.get_close_matches(unknown[0], sorted(_KEYS), n=1, cutoff=0.0)
        raise ConfigError(f"{where} has an unknown key {unknown[0]!r}.", mend=f"The nearest is {near[0]!r}.")
    missing = [key for key in ("reason", "column", "side", "source") if not entry.get(key)]
    if missing or ("spaced" not in entry and "unspaced" not in entry):
        lacks = missing[0] if missing else "spaced or unspaced"
        raise ConfigError(f"{where} has no {lacks}.", mend="A rule has reason, column, side, bound, source.")
    if entry["column"] not in MEASURES:
        near = difflib.get_close_matches(str(entry["column"]), sorted(MEASURES), n=1, cutoff=0.0)
        raise ConfigError(f"{where}: no measure {entry['column']!r}.", mend=f"The nearest is {near[0]!r}.")
    if entry["side"] not in ("min", "max"):
        raise ConfigError(f"{where}: side is {entry['side']!r}.", mend="Write min or max.")
    languages, types, action = entry.get("languages"), entry.get("types", ["web"]), entry.get("action", "drop")
    if action not in ACTIONS:
        raise ConfigError(f"{where}: action is {action!r}.", mend="Write drop or mark.")
    if not isinstance(types, list) or not types or set(types) - set(SOURCE_TYPES):
        raise ConfigError(f"{where}: types is {types!r}.", mend=f"A list of some of {', '.join(SOURCE_TYPES)}.")
    return Rule(
        reason=str(entry["reason"]),
        column=str(entry["column"]),
        side=entry["side"],
        spaced=None if entry.get("spaced") is None else float(entry["spaced"]),
        unspaced=None if entry.get("unspaced") is None else float(entry["unspaced"]),
        languages=None if languages is None else tuple(languages),
        source=str(entry["source"]),
        types=tuple(types),
        action=action,
        calibration=str(entry.get("calibration", "")),
    )
