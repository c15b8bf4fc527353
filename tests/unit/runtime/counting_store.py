"""A store that counts calls and dies before or after call number k: the rest of its life every call dies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipelines.datasets.store import MemoryStore, ObjectInfo
from pipelines.errors import StoreError


class Killed(BaseException):
    """Stands for kill -9: no handler of the code under test may catch it as an error."""


class CountingStore:
    def __init__(self, inner: MemoryStore, *, die_at: int | None = None, after: bool = False) -> None:
        self.inner, self.location = inner, inner.location
        self._die_at, self._after = die_at, after
        self.calls = 0
        self.log: list[str] = []

    def _call(self, name, key, action):
        self.calls += 1
        self.log.append(f"{name} {key}")
        if self._die_at is not None and self.calls > self._die_at:
            raise Killed
        if self.calls == self._die_at and not self._after:
            raise Killed
        result = action()
        if self.calls == self._die_at:
            raise Killed
        return result

    def get(self, key: str) -> bytes:
        return self._call("get", key, lambda: self.inner.get(key))

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return self._call("get_ranges", key, lambda: self.inner.get_ranges(key, ranges))

    def put(self, key: str, body: bytes, *, create_only: bool = False) -> bool:
        return self._call("put", key, lambda: self.inner.put(key, body, create_only=create_only))

    def head(self, key: str) -> ObjectInfo | None:
        return self._call("head", key, lambda: self.inner.head(key))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        yield from self._call("list", prefix, lambda: list(self.inner.list(prefix)))

    def delete(self, key: str) -> None:
        self._call("delete", key, lambda: self.inner.delete(key))


class LostReplyStore(MemoryStore):
    """The first create-only put of a key that ends in `suffix` succeeds and its reply is lost.

    `refusal`: the client retried by itself and was told "exists"; else it got an error of unknown outcome.
    """

    def __init__(self, suffix: str, *, refusal: bool) -> None:
        super().__init__()
        self._suffix, self._refusal, self.lost = suffix, refusal, 0

    def put(self, key: str, body: bytes, *, create_only: bool = False) -> bool:
        done = super().put(key, body, create_only=create_only)
        if create_only and done and key.endswith(self._suffix) and not self.lost:
            self.lost += 1
            if self._refusal:
                return False
            raise StoreError("the connection broke", key=key)
        return done
