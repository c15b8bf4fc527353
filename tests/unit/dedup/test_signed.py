import numpy as np
import pyarrow as pa

from pipelines.dedup.bands import BandPlan
from pipelines.dedup.order import OrderRule
from pipelines.dedup.signature import sign
from pipelines.dedup.signed import band_columns, fixed_binary, fixed_numbers, sign_documents, signatures_schema
from pipelines.dedup.urls import url_digests

PLAN = BandPlan(num_bands=12, rows_per_band=4)


def documents(texts, dates=None, **columns):
    count = len(texts)
    return pa.table(
        {
            "id": [f"{i:032x}" for i in range(count)],
            "text": pa.array(texts, pa.string()),
            "date": pa.array(dates or [None] * count, pa.string()),
            "file": ["f"] * count,
            "offset": list(range(count)),
            "url": pa.array([f"http://www.site{i}.example/" for i in range(count)], pa.string()),
            **columns,
        }
    )


def test_signatures_have_a_row_for_each_document_in_its_order():
    texts = ["one two three four five six", None, "short", "一二三四五六七"]
    table = sign_documents(documents(texts), PLAN)
    assert table.schema.equals(signatures_schema(PLAN))
    assert band_columns(PLAN) == ["bands_000", "bands_008"]
    assert [len(value or b"") for value in table["bands_008"].to_pylist()] == [32, 0, 0, 32]
    assert [value is None for value in table["exact"].to_pylist()] == [False, True, False, False]
    urls = pa.array([f"https://site{i}.example" for i in range(4)])
    assert table["url_digest"].to_pylist() == url_digests(urls).to_pylist()
    signed = sign(pa.array(texts), PLAN)
    assert b"".join(table["bands_000"].to_pylist()[i] for i in (0, 3)) == signed.bands[[0, 3], :8].tobytes()
    assert table["sketch"].to_pylist()[3] == signed.sketches[3].tobytes()


def test_numbers_are_read_back_from_any_slice_of_a_column():
    values = np.arange(24, dtype=np.int64).reshape(8, 3)
    null = np.arange(8) % 3 == 0
    whole = pa.chunked_array([fixed_binary(values, null)])
    for column in (whole, whole.slice(2, 5), pa.chunked_array([whole.chunk(0)[2:4], whole.chunk(0)[4:7]])):
        found, valid = fixed_numbers(column, np.int64)
        first = 0 if column is whole else 2
        assert (found == values[first : first + len(found)]).all()
        assert (valid == ~null[first : first + len(found)]).all()
    assert fixed_numbers(whole.slice(0, 0), np.int64)[0].shape == (0, 3)


def test_a_score_and_a_preferred_domain_count_in_the_place():
    texts = ["a b c", "a b c d", "a b c", "a b c"]
    columns = {"score": [0.9, 0.1, None, 0.5], "domain": ["x", "x", "y", None]}
    by_score = sign_documents(documents(texts, **columns), PLAN, OrderRule(score="score"))["place"].to_numpy()
    assert np.argsort(by_score).tolist() == [0, 3, 1, 2]
    rule = OrderRule(preferred_domains=("y",))
    by_domain = sign_documents(documents(texts, **columns), PLAN, rule)["place"].to_numpy()
    assert np.argsort(by_domain)[:2].tolist() == [1, 2]
