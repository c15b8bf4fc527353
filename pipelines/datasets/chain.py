"""A create-only chain: numbered JSON objects, each written once, by exactly one writer.

Manifests, leases and run logs are such chains. A writer may create only the number after the last it has
read, so losing a race is an ordinary answer. Object stores retry by themselves, so a writer can be told
"exists" for its own bytes: after a refusal or an unknown outcome the object is read back, and the
`writer` id inside says whose it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from pipelines.datasets.store import Store
from pipelines.errors import MissingObjectError, StoreError


class Chain:
    """Objects `<prefix>/<letter><number>.json`, numbers from 1, zero-padded to `width`."""

    def __init__(self, store: Store, prefix: str, *, width: int = 6, letter: str = "") -> None:
        self._store = store
        self._prefix = prefix
        self._width = width
        self._letter = letter
        self._pattern = re.compile(re.escape(f"{prefix}/{letter}") + r"(\d+)\.json")

    def key(self, number: int) -> str:
        """Key of one entry."""
        return f"{self._prefix}/{self._letter}{number:0{self._width}d}.json"

    def numbers(self) -> list[int]:
        """The numbers that exist, in order."""
        found = (self._pattern.fullmatch(o.key) for o in self._store.list(f"{self._prefix}/"))
        return sorted(int(m[1]) for m in found if m)

    def read(self, number: int) -> dict[str, Any]:
        """One entry."""
        return json.loads(self._store.get(self.key(number)))

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """The highest entry, or None for an empty chain."""
        numbers = self.numbers()
        return (numbers[-1], self.read(numbers[-1])) if numbers else None

    def entries(self, after: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """Entries with a number above `after`, in order."""
        for number in self.numbers():
            if number > after:
                yield number, self.read(number)

    def append(self, number: int, body: dict[str, Any], writer: str) -> bool:
        """Create entry `number`; True where it is ours, also when the reply of our put was lost."""
        encoded = dumps({**body, "writer": writer})
        key = self.key(number)
        failure: StoreError | None = None
        for _ in range(3):
            try:
                if self._store.put(key, encoded, create_only=True):
                    return True
            except StoreError as e:  # unknown outcome: the object itself knows
                failure = e
            try:
                return json.loads(self._store.get(key)).get("writer") == writer
            except MissingObjectError:
                continue
        raise failure or StoreError(f"{key}: the put was refused, yet there is no object", key=key)


def dumps(body: dict[str, Any]) -> bytes:
    """JSON that a person can read in a browser on the bucket; the same value gives the same bytes."""
    return (json.dumps(body, ensure_ascii=False, indent=1) + "\n").encode()
