"""Sets of hashes in sorted files."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.crawl.seen import SeenSet, hashes_of, write_seen
from pipelines.errors import InputError


def test_a_set_holds_what_was_written_and_nothing_else(tmp_path):
    urls = [f"https://mill.example/{n}" for n in range(5000)]
    entries = hashes_of(urls)
    count = write_seen(tmp_path / "a", [entries[:3000], entries[2000:4000], hashes_of([None])])
    known = SeenSet(tmp_path / "a")
    assert count == len(known) == 4000
    assert known.holds(entries).tolist() == [True] * 4000 + [False] * 1000
    assert not known.holds(hashes_of([None, None])).any()
    body = np.fromfile(tmp_path / "a", "<u8")
    assert (np.diff(body.astype(object)) > 0).all()


def test_sets_grow_by_what_is_new_and_leave_nothing_behind(tmp_path):
    write_seen(tmp_path / "a", [hashes_of(["x", "y"])])
    assert write_seen(tmp_path / "b", [hashes_of(["y", "z"])], earlier=[tmp_path / "a"]) == 3
    assert SeenSet(tmp_path / "b").holds(hashes_of(["x", "y", "z", "w"])).tolist() == [True, True, True, False]
    assert write_seen(tmp_path / "b", [], earlier=[tmp_path / "b"]) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_an_empty_set_holds_nothing_and_a_cut_file_is_refused(tmp_path):
    assert write_seen(tmp_path / "none", []) == 0
    assert not SeenSet(tmp_path / "none").holds(hashes_of(["x"])).any()
    (tmp_path / "cut").write_bytes(b"1234567")
    with pytest.raises(InputError):
        SeenSet(tmp_path / "cut")
