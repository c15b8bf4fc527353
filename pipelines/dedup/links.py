"""Verified links as they are kept: beside the part of the worse document, so that an appended crawl changes none.

A link names the better document by its part and row, which no other crawl can move; node numbers are found again when
it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.datasets.parts import read_parquet
from pipelines.datasets.ranged import read_columns
from pipelines.datasets.store import Store
from pipelines.dedup.nodes import owners
from pipelines.dedup.rounds import UNLIKE
from pipelines.dedup.survivors import LINKS
from pipelines.errors import IntegrityError


def _field(name: str, kind: pa.DataType, doc: str) -> pa.Field:
    return pa.field(name, kind, metadata={"doc": doc})


PAIRS = pa.schema(
    [
        _field("row", pa.int64(), "row of the worse document in the part of documents"),
        _field("place", pa.int64(), "its place in the survivor order"),
        _field("tie", pa.int64(), "its order where places are equal"),
        _field("other_input", pa.string(), "input of the better document's part"),
        _field("other_unit", pa.string(), "unit of that part"),
        _field("other_row", pa.int64(), "row in it"),
        _field("other_place", pa.int64(), "place of the better document"),
        _field("other_tie", pa.int64(), "its tie"),
        _field("similarity", pa.float64(), "exact similarity of the two; 1 for an exact copy; null for a capture"),
        _field("round", pa.int64(), "round that compared them; 0 for an exact copy, -1 for captures of one URL"),
        _field("alike", pa.bool_(), "whether they are alike; the others are kept so as not to be read again"),
    ]
)
EARLIER = pa.schema(
    [
        ("annotations", pa.string()),
        ("pairs", pa.string()),
        ("links", pa.int64()),
        ("first_node", pa.int64()),
        ("rows", pa.int64()),
    ]
)


KNOWN = pa.schema([("pairs", pa.string()), ("first_node", pa.int64())])


def part_pairs(links: pa.Table, parts: pa.Table, first_node: int) -> pa.Table:
    """PAIRS of a part that starts at `first_node`, from the LINKS whose worse document is in it."""
    owner = pa.array(owners(parts, links["centre"].to_numpy()))
    firsts = parts["first_node"].to_numpy()
    number = links["round"].to_numpy()
    columns = {
        "row": links["member"].to_numpy() - first_node,
        "place": links["member_place"],
        "tie": links["member_tie"],
        "other_input": parts["input"].take(owner),
        "other_unit": parts["unit"].take(owner),
        "other_row": links["centre"].to_numpy() - firsts[owner.to_numpy()],
        "other_place": links["centre_place"],
        "other_tie": links["centre_tie"],
        "similarity": pa.array(np.round(links["similarity"].to_numpy(), 4), from_pandas=True),
        "round": np.where(number >= UNLIKE, number - UNLIKE, number),
        "alike": number < UNLIKE,
    }
    return pa.table(columns, schema=PAIRS)


def earlier_links(store: Store, earlier: Sequence[dict[str, Any]], parts: pa.Table) -> pa.Table:
    """LINKS of the documents that earlier versions decided, from rows of EARLIER."""
    tables = [LINKS.empty_table()]
    for row in earlier:
        links, lost = compared_links(store, row, parts)
        if lost:
            raise IntegrityError(f"{row['pairs']} links to {lost[0]}, which is no part of the documents")
        tables.append(links.filter(pa.array(links["round"].to_numpy() < UNLIKE)))
    return pa.concat_tables(tables)


def compared_links(
    store: Store, row: dict[str, Any], parts: pa.Table
) -> tuple[pa.Table, list[tuple[str | None, str | None]]]:
    """(LINKS of a part of pairs, with UNLIKE where they are; the other parts that are gone, whose links are left out).

    `row` has `pairs`, its key, and `first_node` of its documents now.
    """
    columns = (parts[name].to_pylist() for name in ("input", "unit", "first_node"))
    firsts = {(name, unit): first for name, unit, first in zip(*columns, strict=True)}
    table = read_parquet(store.get(row["pairs"]))
    named = list(zip(table["other_input"].to_pylist(), table["other_unit"].to_pylist(), strict=True))
    lost = sorted({name for name in named if name not in firsts})
    starts = np.array([firsts.get(name, -1) for name in named], np.int64)
    table, starts = table.filter(pa.array(starts >= 0)), starts[starts >= 0]
    unlike = UNLIKE * ~table["alike"].to_numpy(zero_copy_only=False)
    made = {
        "centre": starts + table["other_row"].to_numpy(),
        "member": table["row"].to_numpy() + row["first_node"],
        "centre_place": table["other_place"],
        "centre_tie": table["other_tie"],
        "member_place": table["place"],
        "member_tie": table["tie"],
        "similarity": table["similarity"],
        "round": table["round"].to_numpy() + unlike,
    }
    return pa.table(made, schema=LINKS), lost


def earlier_states(store: Store, earlier: Sequence[dict[str, Any]], count: int) -> np.ndarray:
    """(count,) uint8 `dedup.state` of all documents; 0 for those that are not decided yet."""
    states = np.zeros(count, np.uint8)
    for row in earlier:
        found = read_columns(store, row["annotations"], ["dedup.state"])["dedup.state"].fill_null(0).to_numpy()
        if len(found) != row["rows"]:
            raise IntegrityError(f"{row['annotations']} has {len(found)} rows, its documents {row['rows']}")
        states[row["first_node"] : row["first_node"] + row["rows"]] = found
    return states
