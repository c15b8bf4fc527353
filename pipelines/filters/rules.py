"""Rules: bounds over stored measures.

A rule never sees text, so moving a bound costs a scan of small columns.  The bounds lie in thresholds.yaml
with their sources.  A null measure breaks no rule.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.errors import ConfigError
from pipelines.filters.measures import MEASURES, UNSPACED_SHARE

VERDICT_SCHEMA = pa.schema(
    [
        pa.field("reason", pa.string()),
        pa.field("column", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("threshold", pa.float64()),
    ]
)
_KEYS = {"reason", "column", "side", "spaced", "unspaced", "languages", "source"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One bound: `side` is min or max; None for `spaced` or `unspaced` leaves those texts alone."""

    reason: str
    column: str
    side: str
    spaced: float | None
    unspaced: float | None
    languages: tuple[str, ...] | None
    source: str

    @property
    def name(self) -> str:
        """What a setting calls it."""
        return f"{self.column}.{self.side}"


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
    return tuple(_rule(number, entry) for number, entry in enumerate(loaded.get("rules") or [], start=1))


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
    measures: pa.Table | pa.RecordBatch, language: pa.Array | pa.ChunkedArray, rules: Iterable[Rule]
) -> pa.Table:
    """(n,) rows of VERDICT_SCHEMA: the first rule each document breaks; all null where it stays."""
    count = measures.num_rows
    reason = np.full(count, None, dtype=object)
    column = np.full(count, None, dtype=object)
    value, threshold = np.full(count, np.nan), np.full(count, np.nan)
    is_open = np.ones(count, dtype=bool)
    unspaced = _numbers(measures, "text.unspaced_fraction") >= UNSPACED_SHARE
    languages = np.array(language.to_pylist(), dtype=object) if count else np.empty(0, dtype=object)
    for rule in rules:
        found = _numbers(measures, rule.column)
        bound = np.where(unspaced, _or_nan(rule.unspaced), _or_nan(rule.spaced))
        with np.errstate(invalid="ignore"):
            breaks = (found < bound) if rule.side == "min" else (found > bound)
        hit = is_open & breaks
        if rule.languages is not None:
            hit &= np.isin(languages.astype(str), rule.languages)
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
    languages = entry.get("languages")
    return Rule(
        reason=str(entry["reason"]),
        column=str(entry["column"]),
        side=entry["side"],
        spaced=None if entry.get("spaced") is None else float(entry["spaced"]),
        unspaced=None if entry.get("unspaced") is None else float(entry["unspaced"]),
        languages=None if languages is None else tuple(languages),
        source=str(entry["source"]),
    )
