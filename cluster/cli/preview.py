"""`gristmill preview FILTER.KEY --values ...`: what a threshold would keep, from stored annotations, before any run."""

from __future__ import annotations

import difflib
import heapq
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import click

from cluster.cli.options import clip, open_root, print_json, print_table, visible, with_json, with_root
from pipelines.datasets import Dataset, aligned_parts, open_dataset
from pipelines.errors import ConfigError, InputError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from pipelines.filters.rules import Rule

_READ_BYTES = 400_000_000  # parts beyond this are left out unless --all-parts is given, evenly over the list
_EXCERPT = 200
_ABOUT = ("id", "title", "url", "text", "language", "source_type")


@dataclass
class _Tally:
    """What one value of the bound keeps; `near` holds (side, -distance, number, sample) heaps of the border."""

    value: float
    is_now: bool
    documents: int = 0
    characters: int = 0
    documents_all: int = 0
    characters_all: int = 0
    near: dict[str, list[tuple[float, int, dict[str, Any]]]] = field(
        default_factory=lambda: {"kept": [], "dropped": []}
    )


@click.command(name="preview")
@click.argument("key", metavar="FILTER.KEY")
@click.option("--values", required=True, metavar="V,V,...", help="Bounds to try: 0.1,0.2")
@click.option("--side", type=click.Choice(["min", "max"]), help="Where no rule tells: is the bound a least or a most?")
@click.option("--samples", default=2, show_default=True, metavar="N", help="Documents shown on each side of a bound.")
@click.option("--documents", default="documents", show_default=True, metavar="NAME", help="The dataset of documents.")
@click.option("--filters", "family", default="filters", show_default=True, metavar="NAME", help="Its measures.")
@click.option("--all-parts", is_flag=True, help="Read all of a large dataset, not 400 MB of it.")
@with_root
@with_json
def command(
    key: str, values: str, side: str | None, samples: int, documents: str, family: str, all_parts: bool,
    root: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Tell how much each bound would keep. FILTER.KEY is a measure: gopher.dup_5_gram.

    Nothing is computed again and nothing is written: stored measures are compared with each value, by this rule alone
    and together with all other rules that drop, as they stand. Duplicates and the quality model are left aside.
    """
    store = open_root(root)
    found = _Question(key, _numbers(values), side, samples)
    dataset = open_dataset(store, documents)
    read, total = found.ask(dataset, open_dataset(store, family), None if all_parts else _READ_BYTES)
    if as_json:
        print_json({"root": store.location, **found.answer(), "parts": {"read": read, "all": total}})
        return
    click.echo(f"root: {store.location}")
    found.show(read, total)


def _numbers(text: str) -> list[float]:
    try:
        return sorted({float(part) for part in text.replace(" ", "").split(",") if part})
    except ValueError:
        raise ConfigError(f"--values: {text!r} holds what is no number.", mend="for example --values 0.1,0.2") from None


class _Question:
    """One rule, the values to try, and what they keep."""

    def __init__(self, key: str, values: list[float], side: str | None, samples: int) -> None:
        from pipelines.filters.measures import MEASURES
        from pipelines.filters.rules import Rule, default_rules

        column, _, last = key.rpartition(".")
        if last in ("min", "max") and column in MEASURES:
            side = last
        else:
            column = key
        if column not in MEASURES:
            near = difflib.get_close_matches(column, sorted(MEASURES), n=1, cutoff=0.0)[0]
            raise ConfigError(f"No filter is called {key!r}.", key=key, mend=f"The nearest is {near!r}.")
        of_column = [rule for rule in default_rules() if rule.column == column]
        sides = {rule.side for rule in of_column}
        if side is None and len(sides) != 1:
            raise ConfigError(
                f"{column} has {'both' if sides else 'no'} bounds.", key=column, mend="Add --side min or --side max."
            )
        self.column, self.side, self.samples = column, side or sides.pop(), max(0, samples)
        mine = [rule for rule in of_column if rule.side == self.side]
        mine = [rule for rule in mine if "web" in rule.types] or mine
        dropping = [rule for rule in mine if rule.action == "drop"]
        self.rules: list[Rule] = (dropping or mine)[:]
        if not self.rules:
            self.rules = [
                Rule(
                    reason="preview", column=column, side=self.side, spaced=0.0, unspaced=0.0, languages=None, source=""
                )
            ]
        self.others = [rule for rule in default_rules() if rule not in dropping and rule.action == "drop"]
        self.now = sorted(
            {b for rule in mine for b in (rule.spaced, rule.unspaced) if b is not None and rule.action == "drop"}
        )
        wanted = sorted({*values, *self.now})
        self.tallies = [_Tally(value=value, is_now=value in self.now) for value in wanted]
        self.total = {"documents": 0, "characters": 0}

    def ask(self, documents: Dataset, filters: Dataset, most_bytes: int | None) -> tuple[int, int]:
        """Read the parts; (parts read, parts there are)."""
        pairs = aligned_parts(documents, filters)
        chosen = pairs
        size = sum(mine["bytes"] for mine, _ in pairs)
        if most_bytes is not None and size > most_bytes:
            step = max(1, -(-size // most_bytes))
            chosen = pairs[::step]
        for number, (mine, theirs) in enumerate(chosen):
            measures = filters.read_part(theirs["key"])
            if self.column not in measures.schema.names:
                raise InputError(f"{filters.name} has no column {self.column!r}.", mend="run extract_crawl again")
            self._take(documents.read_part(mine["key"], list(_ABOUT)), measures, number)
        return len(chosen), len(pairs)

    def _take(self, about: pa.Table, measures: pa.Table, number: int) -> None:
        import numpy as np

        from pipelines.filters.rules import broken_rules

        asked = {"language": about["language"], "source_type": about["source_type"], "action": "drop"}
        none = np.zeros(measures.num_rows, bool)
        broken_by_others = np.logical_or.reduce([none, *broken_rules(measures, rules=self.others, **asked).values()])
        found = measures[self.column].to_numpy()
        characters = measures["text.characters"].to_numpy()
        self.total["documents"] += len(found)
        self.total["characters"] += int(characters.sum())
        for tally in self.tallies:
            moved = [
                replace(
                    rule,
                    action="drop",
                    spaced=None if rule.spaced is None else tally.value,
                    unspaced=None if rule.unspaced is None else tally.value,
                )
                for rule in self.rules
            ]
            broken = np.logical_or.reduce(
                [none, *(b for r in moved for b in broken_rules(measures, rules=(r,), **asked).values())]
            )
            kept, kept_all = ~broken, ~broken & ~broken_by_others
            tally.documents += int(kept.sum())
            tally.characters += int(characters[kept].sum())
            tally.documents_all += int(kept_all.sum())
            tally.characters_all += int(characters[kept_all].sum())
            self._keep_near(tally, found, kept, about, number)

    def _keep_near(self, tally: _Tally, found: np.ndarray, kept: np.ndarray, about: pa.Table, number: int) -> None:
        import numpy as np

        distance = np.abs(found - tally.value)
        for side, mask in (("kept", kept), ("dropped", ~kept)):
            rows = np.flatnonzero(mask)
            rows = rows[np.argsort(distance[rows], kind="stable")[: self.samples]]
            heap = tally.near[side]
            for row in rows.tolist():
                if len(heap) == self.samples and heap and -heap[0][0] <= distance[row]:
                    break
                one = about.slice(row, 1).to_pylist()[0]
                sample = {
                    "value": float(found[row]), "id": one["id"], "title": one["title"], "url": one["url"],
                    "excerpt": " ".join((one["text"] or "")[: 2 * _EXCERPT].split())[:_EXCERPT],
                }  # fmt: skip
                item = (-float(distance[row]), -(number << 32 | row), sample)
                heapq.heappush(heap, item) if len(heap) < self.samples else heapq.heappushpop(heap, item)

    def answer(self) -> dict[str, Any]:
        """For programs."""
        return {
            "filter": f"{self.column}.{self.side}", "now": self.now, "all": self.total,
            "values": [
                {
                    "value": t.value, "is_now": t.is_now,
                    "alone": {"documents": t.documents, "characters": t.characters},
                    "with_all_rules": {"documents": t.documents_all, "characters": t.characters_all},
                    "border": {side: [s for *_, s in sorted(heap, reverse=True)] for side, heap in t.near.items()},
                }
                for t in self.tallies
            ],
        }  # fmt: skip

    def show(self, read: int, total: int) -> None:
        """For people, within 80 columns."""
        documents, characters = self.total["documents"], self.total["characters"]
        word = "at least" if self.side == "min" else "at most"
        click.echo(f"{self.column} {word}; {documents:,} documents, {characters:,} characters")
        if read < total:
            click.echo(f"from {read} of {total} parts, evenly chosen (--all-parts reads all)")

        def share(part: int, whole: int) -> str:
            return f"{part:,} ({100 * part / whole:.1f} %)" if whole else f"{part:,}"

        print_table(
            ["value", "documents kept", "characters kept", "with all rules"],
            [
                [
                    f"{t.value:g}" + (" now" if t.is_now else ""),
                    share(t.documents, documents),
                    share(t.characters, characters),
                    share(t.documents_all, documents),
                ]
                for t in self.tallies
            ],
        )
        for t in self.tallies:
            for side, heap in t.near.items():
                for *_, sample in sorted(heap, reverse=True):
                    click.echo(clip(f"{t.value:g} {side}: {sample['value']:g}  {visible(sample['title'] or '-')}", 80))
                    click.echo(clip(f"  {visible(sample['url'] or sample['id'])}", 80))
                    click.echo(clip(f"  {visible(sample['excerpt'])}", 80))
