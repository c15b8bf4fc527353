"""A small writer of token shards for tests: the four objects of a shard and a committed manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.datasets.manifest import PART_LIST, Manifest, commit_manifest, latest_manifest, put_part_list
from pipelines.datasets.store import Store

EOS, PAD, FILLER = 2, 3, 4
PAGE = 16 * 1024


def documents_of(seed: int, *, documents: int, vocab_size: int, mean_tokens: int = 60) -> list[int]:
    """Token runs with a structure that a model can learn: each token follows from the last by a fixed map."""
    rng = np.random.default_rng(seed)
    tokens: list[int] = []
    for _ in range(documents):
        token = int(rng.integers(8, vocab_size))
        for _ in range(int(rng.geometric(1 / mean_tokens)) + 1):
            tokens.append(token)
            jump = int(rng.integers(0, 3)) if rng.random() < 0.2 else 1
            token = 8 + (token * 5 + jump) % (vocab_size - 8)
        tokens.append(EOS)
    return tokens


def _documents(tokens: np.ndarray) -> bytes:
    """A docs table: documents end after EOS; their ids are of their tokens, 32 hex digits."""
    ends = [*(np.flatnonzero(tokens == EOS) + 1).tolist(), len(tokens)]
    starts = [0, *ends[:-1]]
    spans = [(a, b) for a, b in zip(starts, ends, strict=True) if b > a]
    ids = [hashlib.blake2b(tokens[a:b].tobytes(), digest_size=16).hexdigest() for a, b in spans]
    sink = pa.BufferOutputStream()
    numbers = {
        "row": range(len(spans)),
        "first_token": [a for a, _ in spans],
        "tokens": [b - a for a, b in spans],
    }
    columns = {name: pa.array(list(values), pa.int64()) for name, values in numbers.items()}
    pq.write_table(pa.table({"id": ids, "part": ["corpus"] * len(ids), **columns}), sink)
    return sink.getvalue().to_pybytes()


def write_tokens(
    store: Store,
    cells: Mapping[str, Sequence[Sequence[int]]],
    *,
    name: str = "tokens",
    vocab_size: int = 64,
    dtype: str = "uint16",
) -> Manifest:
    """Commit the next version of a token dataset: cells -> shards -> tokens."""
    rows: list[dict[str, Any]] = []
    for cell, shards in cells.items():
        for number, tokens in enumerate(shards):
            body = np.asarray(tokens, dtype=np.dtype(dtype).newbyteorder("<")).tobytes()
            crc = b"".join(
                crc32c.crc32c(body[i : i + PAGE]).to_bytes(4, "little") for i in range(0, len(body), PAGE)
            )
            unit = hashlib.blake2b(f"{cell}-{number}".encode(), digest_size=16).hexdigest()
            docs = _documents(np.asarray(tokens))
            for role, suffix, content in (("shard", ".bin", body), ("crc", ".crc", crc), ("docs", ".parquet", docs)):
                digest = hashlib.sha256(content).hexdigest()
                key = f"datasets/{name}/shards/{unit}-{digest[:16]}{suffix}"
                store.put(key, content)
                row = dict.fromkeys(PART_LIST.names)
                row.update(
                    role=role, key=key, unit=unit, input=f"{number:04d}", sha256=digest, bytes=len(content)
                )
                row.update(cell=cell, tokens=len(tokens), rows=len(tokens), generation=1, stage_id="0" * 32)
                rows.append(row)
    entry, head, _ = put_part_list(store, name, pa.Table.from_pylist(rows, schema=PART_LIST))
    last = latest_manifest(store, name)
    stats = {
        "tokenizer": {
            "name": "tokenizer",
            "version": 1,
            "manifest_sha256": "f" * 64,
            "vocab_size": vocab_size,
            "eos_id": EOS,
            "bos_id": 1,
            "pad_id": PAD,
            "filler_id": FILLER,
        },
        "dtype": dtype,
        "cells": {},
    }
    manifest = Manifest(
        name=name,
        version=last.version + 1 if last else 1,
        kind="tokens",
        parents=[],
        job={"name": "tokenize_documents", "stage_id": "0" * 32, "fingerprint": "0" * 32},
        books={},
        part_list=entry,
        head=head,
        schema=[],
        stats=stats,
        artifacts=[],
        content_sum="",
        created_at="2026-01-01T00:00:00Z",
    )
    committed = commit_manifest(store, manifest, writer="test")
    if committed is None:
        raise RuntimeError("the version exists already")
    return committed
