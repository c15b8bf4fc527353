"""Object stores behind one small protocol: a folder, S3, or memory.

The one guarantee that commits rest on is `put(..., create_only=True)`: exactly one writer of a key
gets True. A folder gives it by a hard link of a finished file, S3 by a single-request
`If-None-Match: *`, memory by a lock. A store that ignores it is refused (`check_create_only`).
"""

from __future__ import annotations

import errno
import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar, Protocol

from pipelines.errors import ConfigError, MissingObjectError, StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What a listing tells of one object."""

    key: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OldVersion:
    """A version of an object that is not the current one; or a mark of its deletion, which has no bytes."""

    key: str
    version: str
    size_bytes: int
    is_mark: bool = False


class Store(Protocol):
    """Keys are relative to `location`, with `/` between segments. Stores pickle by their location."""

    location: str

    def get(self, key: str) -> bytes:
        """Whole object; MissingObjectError if absent."""
        ...

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Bytes [start, end) of each range, cut short at the object's end."""
        ...

    def put(self, key: str, body: bytes, *, create_only: bool = False) -> bool:
        """Write; with `create_only`, False (and nothing written) where the key exists."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """Size, or None where absent."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key starts with `prefix`, in key order."""
        ...

    def delete(self, key: str) -> None:
        """Remove; an absent key is fine."""
        ...

    def purge(self, key: str, version: str | None = None) -> None:
        """Remove with all older versions of the object that the store may have kept; an absent key is fine.

        With `version` only that one goes.
        """
        ...

    def old_versions(self, prefix: str) -> Iterator[OldVersion]:
        """What the store keeps under this prefix beside the objects that can be read: older ones, marks of deletion."""
        ...

    def get_version(self, key: str, version: str) -> bytes:
        """The bytes of an older version."""
        ...


def open_store(location: str | os.PathLike[str]) -> Store:
    """A store for a folder path, `s3://bucket/prefix`, or `memory://name` (one process only)."""
    text = os.fspath(location)
    if text.startswith("s3://"):
        from pipelines.datasets.s3 import S3Store

        return S3Store(text)
    if text.startswith("memory://"):
        return MemoryStore(text)
    if "://" in text:
        raise ConfigError(
            f"no store for {text!r}",
            mend="give a folder or s3://bucket/prefix (endpoint by AWS_ENDPOINT_URL)",
        )
    return FolderStore(text)


def check_key(key: str) -> str:
    """The key; StoreError for what could leave the root or name nothing."""
    if not key or key.startswith("/") or "\0" in key or any(s in ("", ".", "..") for s in key.split("/")):
        raise StoreError(f"{key!r} is no object key", key=key, mend="keys are relative, without '..' or empty parts")
    return key


def check_create_only(store: Store) -> None:
    """Prove on the store itself that a create-only put is refused the second time; StoreError if not.

    Writes two small objects under `_probe/` and removes them; eight threads race for the second, one must win.
    """
    key = f"_probe/{uuid.uuid4().hex}"
    try:
        first, second = (
            store.put(key, b"first", create_only=True),
            store.put(key, b"second", create_only=True),
        )
        kept = store.get(key)
        wins: list[bool] = []
        threads = [
            threading.Thread(target=lambda i=i: wins.append(store.put(f"{key}-race", b"%d" % i, create_only=True)))
            for i in range(8)
        ]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        store.delete(key)
        store.delete(f"{key}-race")
    if not (first and not second and kept == b"first" and sum(wins) == 1 and len(wins) == 8):
        raise StoreError(
            f"{store.location} does not honour create-only puts (If-None-Match: *): two writers could both commit",
            mend="use another bucket (unversioned) or store, or say --single-writer and run one job at a time",
        )


class FolderStore:
    """A folder. Files appear under their final name only when they are whole."""

    def __init__(self, location: str) -> None:
        self.location = str(Path(location).expanduser().absolute())
        self._root = Path(self.location)

    def __reduce__(self) -> tuple[type, tuple[str]]:
        """Pickle by location."""
        return FolderStore, (self.location,)

    def _path(self, key: str) -> Path:
        return self._root / PurePosixPath(check_key(key))

    def get(self, key: str) -> bytes:
        """Whole file."""
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise _missing(self.location, key) from None
        except OSError as e:
            raise _os_error(self.location, key, e) from e

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Positioned reads of one open file."""
        try:
            fd = os.open(self._path(key), os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            raise _missing(self.location, key) from None
        try:
            return [os.pread(fd, max(0, end - start), start) for start, end in ranges]
        finally:
            os.close(fd)

    def put(self, key: str, body: bytes, *, create_only: bool = False) -> bool:
        """Temporary file, then a hard link (create-only, synced to disk) or a rename."""
        final = self._path(key)
        temporary = self._root / ".tmp" / f"{os.getpid()}-{uuid.uuid4().hex}"
        try:
            if create_only and final.exists():
                return False
            self._write(temporary, body, sync=create_only)
            try:
                self._publish(temporary, final, create_only)
            except FileNotFoundError:
                final.parent.mkdir(parents=True, exist_ok=True)
                self._publish(temporary, final, create_only)
        except FileExistsError:
            temporary.unlink(missing_ok=True)
            return False
        except OSError as e:
            temporary.unlink(missing_ok=True)
            raise _os_error(self.location, key, e) from e
        return True

    def _write(self, temporary: Path, body: bytes, *, sync: bool) -> None:
        try:
            f = temporary.open("wb")
        except FileNotFoundError:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            f = temporary.open("wb")
        with f:
            f.write(body)
            if sync:
                f.flush()
                os.fsync(f.fileno())

    def _publish(self, temporary: Path, final: Path, create_only: bool) -> None:
        if create_only:
            os.link(temporary, final)  # fails if the name exists: the only atomic create-only a folder has
            temporary.unlink()
        else:
            temporary.replace(final)

    def head(self, key: str) -> ObjectInfo | None:
        """Size of the file."""
        try:
            return ObjectInfo(key=key, size_bytes=self._path(key).stat().st_size)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Walk the folder that the prefix names, in key order; unfinished files are not objects."""
        folder = prefix.rpartition("/")[0]
        start = self._root / PurePosixPath(check_key(folder)) if folder else self._root
        yield from _walk(start, f"{folder}/" if folder else "", prefix)

    def delete(self, key: str) -> None:
        """Remove the file."""
        self._path(key).unlink(missing_ok=True)

    def purge(self, key: str, version: str | None = None) -> None:
        """Remove the file: a folder keeps no versions (snapshots of the file system are not ours to see)."""
        if version is None:
            self.delete(key)

    def old_versions(self, prefix: str) -> Iterator[OldVersion]:
        """None."""
        return iter(())

    def get_version(self, key: str, version: str) -> bytes:
        """None is there."""
        raise _missing(self.location, key)


def _walk(folder: Path, base: str, prefix: str) -> Iterator[ObjectInfo]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name + "/" if e.is_dir() else e.name for e in entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        key = base + name
        if name.endswith("/"):
            if key == ".tmp/":
                continue
            if key.startswith(prefix) or prefix.startswith(key):
                yield from _walk(folder / name, key, prefix)
        elif key.startswith(prefix):
            try:
                yield ObjectInfo(key=key, size_bytes=(folder / name).stat().st_size)
            except FileNotFoundError:  # deleted while we walk
                continue


class MemoryStore:
    """A dict, shared by all stores of one name in this process; for tests and small tools."""

    _shared: ClassVar[dict[str, dict[str, bytes]]] = {}
    _lock = threading.Lock()

    def __init__(self, location: str | None = None) -> None:
        self.location = location or f"memory://{uuid.uuid4().hex}"
        self.objects = self._shared.setdefault(self.location, {})

    def __reduce__(self) -> tuple[type, tuple[str]]:
        """Pickle by location (same process only)."""
        return MemoryStore, (self.location,)

    def get(self, key: str) -> bytes:
        """The bytes."""
        try:
            return self.objects[check_key(key)]
        except KeyError:
            raise _missing(self.location, key) from None

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Slices."""
        body = self.get(key)
        return [body[start:end] for start, end in ranges]

    def put(self, key: str, body: bytes, *, create_only: bool = False) -> bool:
        """Set, under a lock."""
        with self._lock:
            if create_only and check_key(key) in self.objects:
                return False
            self.objects[check_key(key)] = bytes(body)
        return True

    def head(self, key: str) -> ObjectInfo | None:
        """Length."""
        body = self.objects.get(check_key(key))
        return None if body is None else ObjectInfo(key=key, size_bytes=len(body))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Sorted keys of now."""
        for key in sorted(k for k in list(self.objects) if k.startswith(prefix)):
            if (body := self.objects.get(key)) is not None:
                yield ObjectInfo(key=key, size_bytes=len(body))

    def delete(self, key: str) -> None:
        """Forget."""
        self.objects.pop(check_key(key), None)

    def purge(self, key: str, version: str | None = None) -> None:
        """Forget."""
        if version is None:
            self.delete(key)

    def old_versions(self, prefix: str) -> Iterator[OldVersion]:
        """None."""
        return iter(())

    def get_version(self, key: str, version: str) -> bytes:
        """None is there."""
        raise _missing(self.location, key)


def _missing(location: str, key: str) -> MissingObjectError:
    return MissingObjectError(f"no object {key} in {location}", key=key)


def _os_error(location: str, key: str, error: OSError) -> StoreError:
    mends = {
        errno.ENOSPC: "free some disk, then run the same command again: finished work is kept",
        errno.EACCES: "give this user write access to the folder, or choose another root",
        errno.EROFS: "choose a root on a writable file system",
        errno.EPERM: "this file system has no hard links, which commits need: choose another folder or S3",
        errno.ENOTSUP: "this file system has no hard links, which commits need: choose another folder or S3",
    }
    return StoreError(f"{location}: {key}: {error.strerror or error}", key=key, mend=mends.get(error.errno or 0))
