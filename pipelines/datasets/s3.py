"""S3 and what speaks it: boto3 resolves credentials, region and endpoint; obstore moves the bytes.

obstore costs a fifth of boto3's CPU for a ranged GET. Create-only puts are single requests with
`If-None-Match: *`, the one conditional write that every store of note offers; nothing else is relied on.
Endpoint and keys come from the usual AWS_* variables, profiles and roles, never from our own options.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import Any

import obstore
from obstore import exceptions as refused

from pipelines.datasets.store import ObjectInfo, OldVersion, check_key
from pipelines.errors import ConfigError, MissingObjectError, StoreError

_PUT_AT_ONCE = 32 * 1024 * 1024  # above: multipart, in parts of 8 MiB


class S3Store:
    """`s3://bucket/prefix`. Opened lazily; pickles by location and reopens with the worker's own credentials."""

    def __init__(self, location: str) -> None:
        bucket, _, prefix = location.removeprefix("s3://").partition("/")
        if not bucket:
            raise ConfigError(f"{location!r} names no bucket", mend="give s3://bucket or s3://bucket/prefix")
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self.location = f"s3://{bucket}/{self._prefix}" if self._prefix else f"s3://{bucket}"
        self._opened: Any = None

    def __reduce__(self) -> tuple[type, tuple[str]]:
        """Pickle by location."""
        return S3Store, (self.location,)

    @property
    def _store(self) -> Any:
        if self._opened is None:
            self._opened = _open_bucket(self._bucket, self._prefix)
        return self._opened

    def _call(self, key: str, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except (refused.NotFoundError, FileNotFoundError) as e:
            raise self._not_found(key, e) from None
        except refused.AlreadyExistsError:
            raise
        except refused.BaseError as e:
            raise _explained(self.location, key, e) from None
        except OSError as e:  # a body that broke off
            raise _explained(self.location, key, e) from None

    def _not_found(self, key: str, error: Exception) -> StoreError:
        if "NoSuchBucket" in str(error):
            return StoreError(
                f"there is no bucket {self._bucket!r} at {_endpoint()}",
                key=key,
                mend="create the bucket, or mend the name after s3:// or AWS_ENDPOINT_URL",
            )
        return MissingObjectError(f"no object {key} in {self.location}", key=key)

    def get(self, key: str) -> bytes:
        """Whole object."""
        check_key(key)
        return self._call(key, lambda: bytes(obstore.get(self._store, key).bytes()))

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """One ranged GET each, near ones merged."""
        check_key(key)
        if not ranges:
            return []
        starts, ends = [s for s, _ in ranges], [e for _, e in ranges]
        return [
            bytes(b) for b in self._call(key, lambda: obstore.get_ranges(self._store, key, starts=starts, ends=ends))
        ]

    async def get_range_async(self, key: str, start: int, end: int) -> bytes:
        """Bytes [start, end), cut short at the object's end; for callers that keep many requests in flight."""
        check_key(key)
        try:
            return bytes(await obstore.get_range_async(self._store, key, start=start, end=end))
        except (refused.NotFoundError, FileNotFoundError) as e:
            raise self._not_found(key, e) from None
        except (refused.BaseError, OSError) as e:
            raise _explained(self.location, key, e) from None

    def put(self, key: str, body: bytes, *, create_only: bool = False) -> bool:
        """Single request up to 32 MiB and always when create-only; multipart above."""
        check_key(key)
        multipart = len(body) > _PUT_AT_ONCE and not create_only
        mode = "create" if create_only else "overwrite"
        try:
            self._call(
                key,
                lambda: obstore.put(
                    self._store,
                    key,
                    body,
                    mode=mode,
                    use_multipart=multipart,
                    chunk_size=8 << 20,
                    max_concurrency=8,
                ),
            )
        except refused.AlreadyExistsError:
            return False
        except MissingObjectError:
            raise self._not_found(key, Exception("NoSuchBucket")) from None
        return True

    def head(self, key: str) -> ObjectInfo | None:
        """Size by HEAD."""
        check_key(key)
        try:
            return ObjectInfo(key=key, size_bytes=self._call(key, lambda: obstore.head(self._store, key))["size"])
        except MissingObjectError:
            return None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Pages of 1,000 keys, filtered to the string prefix (S3 clients list whole segments)."""
        folder = prefix.rpartition("/")[0]
        pages = obstore.list(self._store, prefix=folder or None, chunk_size=1000)
        while page := self._call(prefix, lambda: next(iter(pages), None)):
            for o in sorted(page, key=lambda o: o["path"]):
                if o["path"].startswith(prefix):
                    yield ObjectInfo(key=o["path"], size_bytes=o["size"])

    def delete(self, key: str) -> None:
        """Remove; absent is fine."""
        check_key(key)
        try:
            self._call(key, lambda: obstore.delete(self._store, key))
        except MissingObjectError:
            return

    def purge(self, key: str, version: str | None = None) -> None:
        """Remove every version and delete marker of the object, where the bucket keeps or once kept versions."""
        if version is None:
            self.delete(key)
            versions = [v for v, _, _, _ in self._versions(key) if v["Key"] == self._full(key)]
        else:
            versions = [{"Key": self._full(key), "VersionId": version}]
        with self._told(key):
            for found in versions:
                self._client.delete_object(Bucket=self._bucket, Key=found["Key"], VersionId=found["VersionId"])

    def old_versions(self, prefix: str) -> Iterator[OldVersion]:
        """Versions that are not current, and delete markers, current or not."""
        for found, key, is_mark, is_current in self._versions(prefix):
            if is_mark or not is_current:
                size = found.get("Size", 0)
                yield OldVersion(key=key, version=found["VersionId"], size_bytes=size, is_mark=is_mark)

    def get_version(self, key: str, version: str) -> bytes:
        """By version id."""
        with self._told(key):
            return self._client.get_object(Bucket=self._bucket, Key=self._full(key), VersionId=version)["Body"].read()

    def _versions(self, prefix: str) -> Iterator[tuple[Any, str, bool, bool]]:
        """(as S3 tells it, key, is a delete marker, is current) of all versions below a prefix."""
        pages = self._client.get_paginator("list_object_versions").paginate(
            Bucket=self._bucket, Prefix=self._full(prefix)
        )
        with self._told(prefix):
            for page in pages:
                for name, is_mark in (("Versions", False), ("DeleteMarkers", True)):
                    for found in page.get(name, ()):
                        key = found["Key"].removeprefix(f"{self._prefix}/" if self._prefix else "")
                        yield found, key, is_mark, found["IsLatest"]

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    @cached_property
    def _client(self) -> Any:
        """A client that knows versions, made where it is needed: workers get a store by its location."""
        import boto3

        return boto3.session.Session().client("s3")

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as e:
            raise StoreError(
                f"{self.location}: the versions of {key} cannot be listed, read or removed: {e}",
                key=key,
                mend="give these credentials s3:ListBucketVersions, s3:GetObjectVersion and s3:DeleteObjectVersion",
            ) from None


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "the region's AWS endpoint"


def _open_bucket(bucket: str, prefix: str) -> Any:
    import boto3
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import S3Store as Bucket

    try:
        session = boto3.session.Session()
        if session.get_credentials() is None:
            raise StoreError(
                f"no credentials for s3://{bucket} at {_endpoint()}",
                mend="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the machine a role",
            )
        client = session.client("s3")
    except (BotoCoreError, ValueError) as e:
        raise StoreError(f"s3://{bucket}: {e}", mend="mend the AWS_* variables or the profile") from None
    settings: dict[str, Any] = {"region": client.meta.region_name or "us-east-1"}
    options: dict[str, Any] = {"timeout": timedelta(seconds=120)}
    endpoint = client.meta.endpoint_url
    if "amazonaws.com" not in endpoint:
        settings |= {"endpoint": endpoint, "virtual_hosted_style_request": False}
        options["allow_http"] = endpoint.startswith("http://")
    return Bucket(
        bucket,
        prefix=prefix or None,
        config=settings,
        client_options=options,
        retry_config={"max_retries": 6, "retry_timeout": timedelta(seconds=90)},
        credential_provider=Boto3CredentialProvider(session),
    )


def _explained(location: str, key: str, error: Exception) -> StoreError:
    """One line of what the store said, and the mend for the refusals that people meet."""
    text = " ".join(str(error).split()).partition(" Debug source")[0]
    lower = text.lower()
    if "nosuchbucket" in lower:
        bucket = location.removeprefix("s3://").partition("/")[0]
        return StoreError(
            f"there is no bucket {bucket!r} at {_endpoint()}",
            key=key,
            mend="create it, or mend the name after s3://",
        )
    if any(x in lower for x in ("invalidaccesskeyid", "signaturedoesnotmatch", "accessdenied", "403", "401")):
        return StoreError(
            f"{_endpoint()} refused these credentials for {location}",
            key=key,
            mend="check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (or AWS_PROFILE) and the bucket's policy",
        )
    if any(x in lower for x in ("connect", "dns", "timed out", "timeout")):
        return StoreError(
            f"no answer from {_endpoint()} for {location}: {text[:300]}",
            key=key,
            mend="check AWS_ENDPOINT_URL and the network; the same command goes on where it stopped",
        )
    return StoreError(f"{location}: {key}: {text[:400]}", key=key)
