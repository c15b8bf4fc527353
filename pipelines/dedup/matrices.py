"""Tables of numbers as rows of 64-bit integers, as they travel, and back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def as_rows(table: pa.Table) -> np.ndarray:
    """(n, columns) int64 of integers (null: -1), booleans, and floats by their bits (null: NaN)."""
    columns = []
    for field in table.schema:
        column = table[field.name]
        if pa.types.is_floating(field.type):
            columns.append(column.to_numpy().astype(np.float64).view(np.int64))
        elif pa.types.is_boolean(field.type):
            columns.append(column.to_numpy(zero_copy_only=False).astype(np.int64))
        else:
            columns.append(column.fill_null(-1).to_numpy())
    return np.column_stack(columns) if columns else np.zeros((table.num_rows, 0), np.int64)


def as_table(rows: np.ndarray, schema: pa.Schema, nullable: tuple[str, ...] = ()) -> pa.Table:
    """The table again; -1 and NaN are null in the columns that are `nullable`."""
    arrays = []
    for number, field in enumerate(schema):
        column = np.ascontiguousarray(rows[:, number])
        if pa.types.is_floating(field.type):
            column = column.view(np.float64)
            absent = np.isnan(column)
        elif pa.types.is_boolean(field.type):
            column, absent = column.astype(bool), np.zeros(len(column), bool)
        else:
            absent = column == -1
        arrays.append(pa.array(column, field.type, mask=absent if field.name in nullable else None))
    return pa.Table.from_arrays(arrays, schema=schema)
