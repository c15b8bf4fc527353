import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.order import capture_minutes, minute_texts, minutes_of, survivor_places, survivor_ties

DATES = st.sampled_from([None, "2026-11-03T10:00:00Z", "2026-11-03T10:01:00Z", "2025-01-01T00:00:00Z", "not a date"])
ROW = st.tuples(st.sampled_from([0.0, 0.5, 0.7001, 1.0]), st.integers(0, 5), st.booleans(), DATES)


@settings(deadline=None)
@given(st.lists(ROW, min_size=1, max_size=12))
def test_places_sort_by_score_length_domain_and_date(rows):
    score, length, preferred, date = zip(*rows, strict=True)
    place = survivor_places(
        pa.array(length), pa.chunked_array([pa.array(date, pa.string())]),
        score=np.array(score), preferred=np.array(preferred),
    )  # fmt: skip
    assert ((place >= 0) & (place < 1 << 63)).all()
    known = [when if when and when[0] == "2" else "9" for when in date]
    expected = [(-s, -n, not p, d) for s, n, p, d in zip(score, length, preferred, known, strict=True)]
    for i, mine in enumerate(expected):
        for j, other in enumerate(expected):
            assert (place[i] < place[j]) == (mine < other)


def test_lengths_and_dates_beyond_the_bounds_are_the_last():
    date = pa.chunked_array([["1970-01-01T00:00:00Z", "2100-01-01T00:00:00Z", "2026-01-01T00:00:59Z"]])
    place = survivor_places(pa.array([2**30, 2**23 - 1, 3]), date)
    assert place[0] < place[1] < place[2]
    assert minute_texts(minutes_of(place)).to_pylist() == ["1990-01-01T00:00:00Z", None, "2026-01-01T00:00:00Z"]
    assert (minutes_of(place) == capture_minutes(date)).all()


def test_ties_sort_by_id_and_tell_copies_of_one_id_apart():
    ids = ["0" * 32, "00000000ff" + "0" * 22, "f" * 32, "f" * 32, None, "not hex"]
    ties = survivor_ties(ids, ["a", "a", "a", "b", None, "a"], [0, 0, 0, 0, None, 1])
    assert ties[0] < ties[1] < ties[2] and len(set(ties.tolist())) == 6
    assert (ties >= 0).all()
    assert ties[3] == survivor_ties(["f" * 32], ["b"], [0])[0]
