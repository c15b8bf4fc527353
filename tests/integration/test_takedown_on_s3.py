"""A takedown by Spark on a bucket that keeps every version of every object: nothing of the page is left in any."""

from __future__ import annotations

import random

import boto3
import pytest

from jobs import dedup_documents, dedup_substrings
from jobs.runtime.context import Context
from jobs.takedown_documents import apply, request
from jobs.takedown_purge import purge, verify
from pipelines.datasets import open_dataset
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.store import open_store
from pipelines.takedown.requests import targets
from tests.made_documents import commit_documents, join, prose

pytestmark = [pytest.mark.s3, pytest.mark.spark]

URL = "https://site1.example/crawl-0/1"


def crawl():
    rng = random.Random(8)
    shared = join(prose(rng, "en", 60))
    rows = [{"text": f"{join(prose(rng, ('zh', 'en')[i % 2]))}\n{shared}"} for i in range(12)]
    return {f"crawl-{file}": rows[file::2] for file in range(2)}


class Bucket:
    """All versions of all objects, by S3 itself."""

    def __init__(self, location):
        self.name = location.removeprefix("s3://").partition("/")[0]
        self.client = boto3.client("s3")

    def keep_versions(self):
        self.client.put_bucket_versioning(Bucket=self.name, VersioningConfiguration={"Status": "Enabled"})

    def versions(self):
        for page in self.client.get_paginator("list_object_versions").paginate(Bucket=self.name):
            for kind in ("Versions", "DeleteMarkers"):
                yield from ((v["Key"].removeprefix("prefix/"), v["VersionId"], kind) for v in page.get(kind, ()))

    def tells(self, text):
        """Keys of all versions in which this much of a text stands: in a table of texts, or in pieces of texts."""
        found = []
        for key, version, kind in self.versions():
            if kind == "Versions" and key.endswith(".parquet"):
                full = f"prefix/{key}"
                table = read_parquet(
                    self.client.get_object(Bucket=self.name, Key=full, VersionId=version)["Body"].read()
                )
                held = table["text"].to_pylist() if "text" in table.schema.names else []
                if "context" in table.schema.names:
                    held += [piece.decode("utf-32-le") for piece in table["context"].to_pylist()]
                found += [key] * any(text in each for each in held if each)
        return found


def test_every_version_and_mark_of_what_must_go_is_gone(s3_prefix):
    bucket = Bucket(s3_prefix)
    bucket.keep_versions()
    store = open_store(s3_prefix)
    ctx = Context(store=store, engine="process")
    commit_documents(ctx, crawl())
    dedup_documents.run(dedup_documents.Config(), ctx)
    dedup_substrings.run(dedup_substrings.Config(dedup=""), ctx)
    (page,) = [row for row in open_dataset(store, "documents").to_arrow().to_pylist() if row["url"] == URL]
    piece = page["text"][-150:-20]
    assert {key.split("/")[1] for key in bucket.tells(piece)} == {
        "documents",
        "substrings",
    }  # pieces in flight, deleted
    others = {row["id"] for row in open_dataset(store, "documents").to_arrow(["id"]).to_pylist()}

    request(ctx, targets("url", [URL], source="f"), "letter")
    spark = Context(store=store, engine="spark", spark_master="local[2,4]")
    try:
        done = apply(spark)
    finally:
        spark.close()
    assert done.found == {"url": 1} and done.rewritten == {"documents": 1, "signatures": 1}
    assert verify(ctx).left.num_rows == 0
    assert any(row["version"] for row in verify(ctx, all_objects=True).left.to_pylist())

    before = set(bucket.versions())
    told = purge(ctx)
    assert {v for v in before if "audit/" not in v[0]} <= set(bucket.versions())  # a dry run removes nothing
    named = {(v.key, v.version) for v in told.versions}
    assert any("/windows-" in key for key, _ in named) and any(v.is_mark for v in told.versions)
    assert all(key.startswith("datasets/documents/parts/") or "/signatures/" in key for key in told.keys)
    done = purge(ctx, delete=True)
    assert done.keys == told.keys and {(v.key, v.version) for v in done.versions} == named
    left = set(bucket.versions())
    assert not [v for v in left if v[0] in told.keys or (v[0], v[1]) in named or "/windows-" in v[0]]
    assert {key for key, _, _ in before - left} == {*told.keys, *(key for key, _ in named)}
    assert bucket.tells(page["text"][:100]) == []
    assert verify(ctx, all_objects=True).left.num_rows == 0
    rows = open_dataset(store, "documents").to_arrow().to_pylist()
    assert {row["id"] for row in rows} == others and sum(row["text"] is None for row in rows) == 1
