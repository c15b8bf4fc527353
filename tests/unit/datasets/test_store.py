"""One contract, every store; the S3 one runs where a real server is at hand."""

from __future__ import annotations

import pickle
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule

from pipelines.datasets.store import FolderStore, MemoryStore, check_create_only, open_store
from pipelines.errors import ConfigError, MissingObjectError, StoreError


@pytest.fixture(params=["memory", "folder", pytest.param("s3", marks=pytest.mark.s3)])
def store(request, tmp_path):
    if request.param == "memory":
        return MemoryStore()
    if request.param == "folder":
        return open_store(tmp_path / "目录 with space")
    return open_store(request.getfixturevalue("s3_prefix"))


def test_what_is_put_is_got(store):
    assert store.put("a/b", b"one") and store.put("a/b", b"two")
    assert store.get("a/b") == b"two"
    assert store.get_ranges("a/b", [(0, 1), (1, 99)]) == [b"t", b"wo"]
    assert store.head("a/b").size_bytes == 3


def test_an_absent_object_is_an_error_to_read_and_none_to_look_for(store):
    with pytest.raises(MissingObjectError, match="a/b"):
        store.get("a/b")
    with pytest.raises(MissingObjectError):
        store.get_ranges("a/b", [(0, 1)])
    assert store.head("a/b") is None
    store.delete("a/b")


def test_create_only_keeps_the_first(store):
    assert store.put("k", b"1", create_only=True)
    assert not store.put("k", b"2", create_only=True)
    assert store.get("k") == b"1"
    check_create_only(store)


def test_sixteen_creators_of_one_key_have_one_winner(store):
    for n in range(5):
        wins = []
        threads = [
            threading.Thread(target=lambda i=i, n=n: wins.append(store.put(f"r/{n}", b"%d" % i, create_only=True)))
            for i in range(16)
        ]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert sum(wins) == 1


def test_a_listing_is_sorted_and_takes_any_prefix(store):
    keys = ["d/a.json", "d/a/x", "d/ab", "d/b/y", "e"]
    for k in reversed(keys):
        store.put(k, k.encode())
    assert [o.key for o in store.list("d/")] == sorted(keys[:4])
    assert [o.key for o in store.list("d/a")] == ["d/a.json", "d/a/x", "d/ab"]
    assert [(o.key, o.size_bytes) for o in store.list("e")] == [("e", 1)]
    assert list(store.list("nothing/")) == []


@pytest.mark.parametrize("key", ["../x", "/etc/passwd", "a//b", "a/../b", "", "a\0b", "."])
def test_a_key_that_could_leave_the_root_is_refused(store, key):
    with pytest.raises(StoreError):
        store.put(key, b"")


def test_a_store_travels_by_its_location(store):
    store.put("k", b"v")
    assert pickle.loads(pickle.dumps(store)).get("k") == b"v"


def test_an_unknown_scheme_is_a_config_error():
    with pytest.raises(ConfigError, match="gs://"):
        open_store("gs://bucket")


def test_a_half_written_file_is_no_object(tmp_path):
    store = FolderStore(str(tmp_path))
    (tmp_path / ".tmp").mkdir()
    (tmp_path / ".tmp" / "1-dead").write_bytes(b"half")
    assert list(store.list("")) == []


class Model(RuleBasedStateMachine):
    """A folder store against a dict."""

    keys = Bundle("keys")

    @initialize()
    def begin(self):
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.store, self.model = FolderStore(self.folder.name), {}

    @rule(target=keys, key=st.from_regex(r"[ab]{1,2}d(/[ab]{1,2}d){0,1}/[ab]{1,2}|[ab]{1,2}", fullmatch=True))
    def name(self, key):
        return key

    @rule(key=keys, body=st.binary(max_size=4), create_only=st.booleans())
    def put(self, key, body, create_only):
        expected = not (create_only and key in self.model)
        assert self.store.put(key, body, create_only=create_only) == expected
        if expected:
            self.model[key] = body

    @rule(key=keys)
    def delete(self, key):
        self.store.delete(key)
        self.model.pop(key, None)

    @rule(key=keys)
    def get(self, key):
        if key in self.model:
            assert self.store.get(key) == self.model[key]
        else:
            assert self.store.head(key) is None

    @rule(prefix=st.sampled_from(["", "a", "b/", "a./", "ab"]))
    def list(self, prefix):
        assert [o.key for o in self.store.list(prefix)] == sorted(k for k in self.model if k.startswith(prefix))

    def teardown(self):
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
