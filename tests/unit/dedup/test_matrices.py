import pyarrow as pa

from pipelines.dedup.matrices import as_rows, as_table

SCHEMA = pa.schema([("node", pa.int64()), ("keep", pa.bool_()), ("match", pa.int64()), ("similarity", pa.float64())])


def test_a_table_comes_back_from_its_rows_with_its_nulls():
    rows = [
        {"node": -(2**63), "keep": True, "match": None, "similarity": None},
        {"node": 2**63 - 1, "keep": False, "match": 0, "similarity": 0.1},
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    numbers = as_rows(table)
    assert numbers.shape == (2, 4) and numbers.dtype == "int64"
    assert as_table(numbers, SCHEMA, ("match", "similarity")).equals(table)
    assert as_table(as_rows(table.slice(1)), SCHEMA).to_pylist() == rows[1:]
    assert as_table(as_rows(SCHEMA.empty_table()), SCHEMA).equals(SCHEMA.empty_table())
