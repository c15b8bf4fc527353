"""From Arrow text to MinHash signatures: documents a second and core, and how near the estimate is to theory.

`python -m tests.benchmarks.signatures [--data FOLDER]` prints a table on stderr and one JSON line on stdout. Documents
are chunks of about 1.65 kB of the folder's prose (or made ones without it); ours gives 256 permutations and 32 band
digests, its own normalisation included. Peers, where installed: rensa's batch call on the same n-grams, its sets
included, and datatrove's signature stage with the word tokenizer of the language. `rmse_vs_theory` is the worst ratio
of the root mean square error to sqrt(J (1 - J) / 256) over languages, lengths and similarities.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.dedup.bands import BandPlan
from pipelines.dedup.signature import band_digests, exact_digests, signatures
from pipelines.dedup.verify import jaccards
from tests.benchmarks.filters import note, texts_of
from tests.pack import FOLDER

ROUNDS = 5
DOCUMENT_BYTES = 1650
PROSE = {"zh": ("zh_wiki", "zh_tech", "zh_literature"), "en": ("en_docs", "en_books")}
SIMILARITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
LENGTHS = (50, 100, 200, 700)  # characters


def prose(data: Path, language: str, count: int, characters: int, seed: int = 0) -> list[str]:
    """`count` pieces of natural text of that many characters, none twice while the folder has more."""
    pieces: list[str] = []
    for name in PROSE[language]:
        for text in texts_of(data, name):
            pieces += [text[at : at + characters] for at in range(0, len(text) - characters + 1, characters)]
    random.Random(seed).shuffle(pieces)
    return (pieces * (count // max(1, len(pieces)) + 1))[:count] if pieces else []


def documents(data: Path, language: str, count: int) -> list[str]:
    """Pieces whose UTF-8 is about DOCUMENT_BYTES on average."""
    pieces = prose(data, language, count, 600 if language == "zh" else DOCUMENT_BYTES)
    mean = sum(len(piece.encode()) for piece in pieces) / max(1, len(pieces))
    return prose(data, language, count, int((600 if language == "zh" else DOCUMENT_BYTES) * DOCUMENT_BYTES / mean))


def cpu_s(step: Callable[[], Any]) -> float:
    """CPU seconds of one call; the kernels run on one thread."""
    begun = time.process_time()
    step()
    return time.process_time() - begun


def rates(column: pa.Array, rounds: int) -> list[float]:
    """Documents a second and core, a figure a round."""
    plan = BandPlan()
    band_digests(column, plan)
    return [len(column) / cpu_s(lambda: band_digests(column, plan)) for _ in range(rounds)]


def shingle_lists(texts: list[str], language: str) -> list[list[str]]:
    """The n-grams as the peers take them, repeats dropped."""
    made = []
    for text in texts:
        units = list(text) if language == "zh" else text.split()
        join = "" if language == "zh" else " "
        made.append(list({join.join(units[i : i + 5]) for i in range(len(units) - 4)}))
    return made


def rensa_seconds(texts: list[str], language: str) -> float | None:
    """CPU seconds a document of rensa's batch call, 256 permutations, sets included."""
    try:
        from rensa import RMinHash
    except ImportError as error:
        note(f"rensa is not installed ({error}): its figure is null")
        return None

    def work() -> None:
        RMinHash.digests_from_token_sets(shingle_lists(texts, language), num_perm=256, seed=42)

    work()
    return statistics.median(cpu_s(work) for _ in range(3)) / len(texts)


def datatrove_seconds(texts: list[str], language: str) -> float | None:
    """CPU seconds a document of datatrove's signature: its n-grams of words, hashes, minima."""
    try:
        from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    except ImportError as error:
        note(f"datatrove is not installed ({error}): its figure is null")
        return None
    from datatrove.utils.typeshelper import Languages

    stage = MinhashDedupSignature(
        output_folder=os.path.join(os.environ.get("TMPDIR", "/tmp"), "datatrove-signatures"),  # noqa: PTH118
        config=MinhashConfig(num_buckets=32, hashes_per_bucket=8),
        language=Languages.mandarin_chinese if language == "zh" else Languages.english,
    )

    import xxhash

    stage._hash_func = lambda shingle: xxhash.xxh64_intdigest(shingle.encode())  # its own takes no string of xxhash 4

    def work(some: list[str]) -> None:
        for text in some:
            shingles = stage.get_shingles(text)
            if shingles.size != 0:
                stage.get_signature(shingles)

    work(texts[:20])
    return cpu_s(lambda: work(texts)) / len(texts)


def planted_pairs(pieces: list[str], language: str, target: float, rng: random.Random) -> tuple[list[str], list[str]]:
    """Pairs of a text and a copy with its end replaced by another text, near the wanted similarity."""
    left, right = [], []
    for i, piece in enumerate(pieces):
        other = pieces[(i + 1 + rng.randrange(len(pieces) - 2)) % len(pieces)]
        ours, theirs = (list(t) if language == "zh" else t.split() for t in (piece, other))
        shingles = max(1, min(len(ours), len(theirs)) - 4)
        shared = round(2 * target * shingles / (1 + target)) + 4  # s of n shingles shared: J = s / (2n - s)
        join = "" if language == "zh" else " "
        left.append(piece)
        right.append(join.join(ours[:shared] + theirs[shared : len(ours)]))
    return left, right


def error_ratios(data: Path, language: str, pairs: int) -> dict[str, float]:
    """{"length J": rmse over theory}; pairs without an overlap, or equal, have no error and do not count."""
    ratios = {}
    for length in LENGTHS:
        characters = length if language == "zh" or length < 700 else 2 * length
        pieces = prose(data, language, pairs, characters, seed=length)
        for target in SIMILARITIES:
            left, right = planted_pairs(pieces, language, target, random.Random(length))
            column = pa.array(left + right)
            exact = jaccards(column, np.arange(pairs), np.arange(pairs) + pairs)
            minima, _ = signatures(column, 256)
            estimate = (minima[:pairs] == minima[pairs:]).mean(axis=1)
            counts = (exact > 0) & (exact < 1)
            if counts.sum() < pairs // 4:
                continue  # so short that this similarity does not occur
            theory = np.sqrt((exact * (1 - exact))[counts].mean() / 256)
            ratios[f"{length} {target}"] = float(np.sqrt(((estimate - exact)[counts] ** 2).mean()) / theory)
    return ratios


def main() -> None:
    """Both languages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=FOLDER)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--peer-documents", type=int, default=5_000)
    parser.add_argument("--pairs", type=int, default=2_500, help="a value of J; a tenth or so has no overlap")
    options = parser.parse_args()
    result: dict[str, Any] = {"name": "signatures"}
    worst = 0.0
    for language in ("zh", "en"):
        texts = documents(options.data, language, options.documents)
        column = pa.array(texts)
        size = sum(len(text.encode()) for text in texts) / len(texts)
        found = rates(column, ROUNDS)
        rate = statistics.median(found)
        result[f"docs_per_s_core_{language}"] = round(rate)
        note(
            f"{language}  {len(texts)} documents of {size:.0f} bytes: {rate:,.0f} documents/s/core "
            f"({min(found):,.0f} to {max(found):,.0f})"
        )
        exact_us = cpu_s(lambda column=column: exact_digests(column)) / len(texts) * 1e6
        note(f"{language}  the exact digest beside it, which the job also takes: {exact_us:.1f} us")
        some = texts[: options.peer_documents]
        for name, peer in (("rensa", rensa_seconds), ("datatrove", datatrove_seconds)):
            seconds = peer(some, language)
            ratio = None if seconds is None else round(seconds * rate, 1)
            result[f"vs_{name}_{language}"] = ratio
            note(f"{language}  {name}: {'null' if seconds is None else f'{seconds * 1e6:,.0f} us, {ratio} times ours'}")
        ratios = error_ratios(options.data, language, options.pairs)
        for key, ratio in ratios.items():
            note(f"{language}  {key:>9}  rmse / theory {ratio:.3f}")
        worst = max(worst, *ratios.values())
    peers = [result["vs_rensa_zh"], result["vs_rensa_en"]]
    result["vs_rensa"] = None if None in peers else min(peers)
    result["rmse_vs_theory"] = round(worst, 3)
    result["versions"] = {"python": platform.python_version()}
    for name in ("numba", "numpy", "rensa", "datatrove"):
        try:
            result["versions"][name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            result["versions"][name] = None
    result |= {"machine": platform.processor() or platform.machine(), "load": os.getloadavg()[0]}
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
