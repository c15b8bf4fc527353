"""Near-duplicate detection: CPU a document of each step, and recall on planted copies, beside datasketch.

`python -m tests.benchmarks.minhash` prints a table on stderr and one JSON line on stdout. Texts are made, of 700 Han
characters or 280 English-like words; half have a copy with scattered edits. Similarity is the exact Jaccard similarity
of our own shingles; datasketch is given the same shingles as sets, and the time to build them is counted apart.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from pipelines.dedup.bands import BandPlan
from pipelines.dedup.components import star_edges
from pipelines.dedup.normalize import normal_forms
from pipelines.dedup.signature import band_digests, exact_digests, signatures
from pipelines.dedup.verify import jaccards

BINS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.01)


def planted(language: str, pairs: int, seed: int = 0) -> list[str]:
    """Texts in pairs: an original and its edited copy."""
    rng = random.Random(seed)
    letters = "etaoinshrdlucmfwypvbgk"
    words = ["".join(rng.choices(letters, k=rng.randrange(2, 10))) for _ in range(20_000)]
    units: list[str] = [chr(code) for code in range(0x4E00, 0x5E00)] if language == "zh" else words
    size, join = (700, "") if language == "zh" else (280, " ")
    texts = []
    for _ in range(pairs):
        original = rng.choices(units, k=size)
        copy = list(original)
        for at in rng.sample(range(size), rng.randrange(0, 50 if language == "zh" else 20)):
            copy[at] = rng.choice(units)
        texts += [join.join(original), join.join(copy)]
    return texts


def cpu_us(step: Callable[[], Any], count: int) -> tuple[float, Any]:
    """(CPU microseconds a document, result), after one run that compiles."""
    step()
    begun = time.process_time()
    result = step()
    return (time.process_time() - begun) / count * 1e6, result


def measure(language: str, pairs: int, peer_documents: int) -> dict[str, Any]:
    """Times and recall for one language."""
    texts = planted(language, pairs)
    column, count, plan = pa.array(texts), 2 * pairs, BandPlan()
    row: dict[str, Any] = {"documents": count, "bytes": sum(len(text.encode()) for text in texts) // count}
    row["normal_form_us"], _ = cpu_us(lambda: normal_forms(column), count)
    row["exact_digest_us"], _ = cpu_us(lambda: exact_digests(column), count)
    row["signature_112_us"], _ = cpu_us(lambda: signatures(column, 112), count)
    row["signature_256_us"], _ = cpu_us(lambda: signatures(column, 256), count)
    row["bands_32x8_us"], bands = cpu_us(lambda: band_digests(column, plan), count)

    def stars() -> np.ndarray:
        node, order = np.arange(count), np.zeros(count, np.int64)
        edges = [np.column_stack(star_edges(band.to_numpy(), order, node)) for band in bands]
        return np.unique(np.concatenate(edges), axis=0)

    row["buckets_us"], edges = cpu_us(stars, count)
    row["candidates_a_document"] = len(edges) / count
    row["verify_us_a_pair"], found = cpu_us(lambda: jaccards(column, edges[:, 0], edges[:, 1]), len(edges))
    kept = {tuple(edge) for edge in edges[found >= plan.min_similarity].tolist()}
    left = np.arange(0, count, 2)
    exact = jaccards(column, left, left + 1)
    row["recall"] = {}
    for low, high in itertools.pairwise(BINS):
        inside = np.flatnonzero((exact >= max(low, plan.min_similarity)) & (exact < high))
        hits = [(2 * i, 2 * i + 1) in kept for i in inside.tolist()]
        if hits:
            row["recall"][f"{low}-{high}"] = {"pairs": len(hits), "recall": round(float(np.mean(hits)), 4)}
    planted_pairs = {(2 * i, 2 * i + 1) for i in range(pairs)}
    row["pairs_not_planted"] = len(kept - planted_pairs)
    row["peer"] = _datasketch(language, texts[:peer_documents])
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}


def _datasketch(language: str, texts: list[str]) -> dict[str, Any]:
    import datasketch

    def sets() -> list[set[bytes]]:
        made = []
        for text in texts:
            units = list(text) if language == "zh" else text.split()
            join = "" if language == "zh" else " "
            made.append({join.join(units[i : i + 5]).encode() for i in range(len(units) - 4)})
        return made

    sets_us, grams = cpu_us(sets, len(texts))

    def sketch() -> list[Any]:
        return [datasketch.MinHash(num_perm=256) for _ in grams]

    def minhash() -> None:
        for peer, shingles in zip(sketch(), grams, strict=True):
            peer.update_batch(list(shingles))

    signature_us, _ = cpu_us(minhash, len(texts))
    return {
        "name": f"datasketch {datasketch.__version__}",
        "sets_us": round(sets_us, 1),
        "signature_256_us": round(signature_us, 1),
    }


def main() -> None:
    """Both languages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--peer-documents", type=int, default=500)
    options = parser.parse_args()
    results = {language: measure(language, options.pairs, options.peer_documents) for language in ("zh", "en")}
    for language, row in results.items():
        for name, value in row.items():
            sys.stderr.write(f"{language}  {name:24} {value}\n")
    machine = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    versions = {"python": platform.python_version(), "numba": numba.__version__, "numpy": np.__version__}
    sys.stdout.write(json.dumps({"name": "minhash", **machine, **versions, **results}) + "\n")


if __name__ == "__main__":
    main()
