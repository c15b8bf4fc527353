"""Filters and personal data: CPU beside datatrove, agreement rule by rule, what stays of clean text, spam and pages.

`python -m tests.benchmarks.filters --data FOLDER` prints tables on stderr and one JSON line on stdout. CPU is this
process's user and system time: one warm-up, ours and the peer in turn, five rounds, median. The peer's row is FineWeb's
(English) and FineWeb-2's (Mandarin) with its formatter for personal data, each text until the first filter drops it;
language identification is left out on both sides. Where the peer is not installed its figures are null.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import json
import os
import platform
import random
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zstandard

from pipelines.filters.clean import CleanRules, clean
from pipelines.filters.measures import measure
from pipelines.filters.rules import broken_rules, default_rules, first_broken_rule
from tests.benchmarks.filter_agreement import EN, LEAST_FIRED, ZH, agreement
from tests.benchmarks.perturbed import FAULTS, perturb
from tests.pack import FOLDER

ROUNDS = 5
_SPACED_ONLY = ("short_words", "long_words", "no_stop_words", "curly_brackets", "filler", "few_sentences")
_VERSIONS = (
    "version 1.10.20.30",
    "OpenSSL 3.0.13.4",
    "v8.4.12.99",
    "版本 115.236.118.11",
    "Chrome/120.0.99.110",
    "build 1.2.3.4.5",
    "固件版本：36.110.22.8",
    "release 11.22.33.44",
    "10.2.3.400",
)


def note(line: str) -> None:
    """One line of the table."""
    sys.stderr.write(line + "\n")


def texts_of(data: Path, name: str) -> list[str]:
    """Texts of one file of the folder `text`."""
    with (data / "text" / f"{name}.jsonl.zst").open("rb") as file:
        body = zstandard.ZstdDecompressor().stream_reader(file).read()
    return [json.loads(line)["text"] for line in body.decode().splitlines() if line]


def crawl_rows(data: Path, wanted: Callable[[dict[str, Any]], bool]) -> Iterator[tuple[dict[str, Any], str]]:
    """(row of the index, main text) of the pages of the crawl that are wanted; "" where extraction gives none."""
    from pipelines.crawl.document import DocumentRules, outcome_of
    from pipelines.crawl.sources import MemorySource
    from pipelines.crawl.warc import Record, read_warc

    folder = data / "crawl"
    with gzip.open(folder / "records.jsonl.gz") as file:
        rows = [json.loads(line) for line in file]
    by_place = {(row["file"], row["offset"]): row for row in rows if row["status"] == 200 and wanted(row)}
    for name in sorted({row["file"] for row in rows}):
        for item in read_warc(MemorySource((folder / name).read_bytes())):
            row = by_place.get((name, item.offset)) if isinstance(item, Record) else None
            if row is not None:
                document = outcome_of(item, name, DocumentRules()).document
                yield row, (document or {}).get("text") or ""


def ours(texts: Sequence[str], language: str) -> tuple[pa.Array, np.ndarray]:
    """(cleaned texts, (n,) bool: kept) by the rules that drop; the marking ones are computed too."""
    languages = pa.array([language] * len(texts))
    done = clean(pa.array(texts, pa.large_string()), languages.to_pylist(), source_type="web", rules=CleanRules())
    table = measure(done.texts, done.facts)
    verdict = first_broken_rule(table, languages, default_rules())
    broken_rules(table, languages, default_rules(), action="mark")
    return done.texts, np.asarray(verdict["reason"].is_null())


def peer_row(language: str) -> Callable[[str], bool] | None:
    """datatrove's filters and its formatter, or None where it is not installed."""
    try:
        from datatrove.data import Document
        from datatrove.pipeline.filters import (
            C4QualityFilter,
            FineWebQualityFilter,
            GopherQualityFilter,
            GopherRepetitionFilter,
        )
        from datatrove.pipeline.formatters import PIIFormatter
    except ImportError as error:
        note(f"datatrove is not installed ({error}): its figures are null")
        return None
    if language == "en":
        filters = [
            GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(filter_no_terminal_punct=False),
            FineWebQualityFilter(),
        ]  # fmt: skip
    else:
        code, stop_words = "cmn_Hani", list("的是在了和有不我他这就也人到说要会都与及為與")
        filters = [
            GopherRepetitionFilter(
                language=code, dup_para_frac=0, dup_line_char_frac=0, dup_para_char_frac=0, dup_line_frac=0.287,
                top_n_grams=((2, 0.256), (3, 0.201), (4, 0.171)),
                dup_n_grams=((5, 0.198), (6, 0.182), (7, 0.167), (8, 0.154), (9, 0.140), (10, 0.127)),
            ),
            FineWebQualityFilter(
                language=code, short_line_thr=999, char_duplicates_ratio=0.1, line_punct_thr=0.106, new_line_ratio=0.178
            ),
            GopherQualityFilter(
                language=code, min_avg_word_length=1, max_avg_word_length=5, max_non_alpha_words_ratio=0.735,
                stop_words=stop_words, min_stop_words=2,
            ),
        ]  # fmt: skip
    formatter = PIIFormatter()

    def row(text: str) -> bool:
        document = Document(text=text, id="")
        for each in filters:
            verdict = each.filter(document)
            if not (verdict[0] if isinstance(verdict, tuple) else verdict):
                return False
        formatter.format(document.text)
        return True

    return row


def cpu(language: str, texts: Sequence[str], rounds: int) -> dict[str, Any]:
    """Milliseconds of CPU a kB of UTF-8, ours and the peer's, in turn."""
    peer = peer_row(language)
    size = sum(len(text.encode()) for text in texts) / 1000
    ours(texts[:20], language)
    if peer is not None:
        for text in texts[:5]:
            peer(text)
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(rounds):
        begun = time.process_time()
        ours(texts, language)
        times["ours"].append((time.process_time() - begun) * 1000 / size)
        if peer is not None:
            begun = time.process_time()
            kept = sum(peer(text) for text in texts)
            times["peer"].append((time.process_time() - begun) * 1000 / size)
    mine = statistics.median(times["ours"])
    found = {
        "documents": len(texts),
        "kb": round(size, 1),
        "ours_ms_a_kb": round(mine, 5),
        "spread": _spread(times["ours"]),
    }
    if peer is not None:
        theirs = statistics.median(times["peer"])
        found |= {
            "peer_ms_a_kb": round(theirs, 4), "peer_spread": _spread(times["peer"]), "ratio": round(mine / theirs, 5),
            "peer_kept": round(kept / len(texts), 4),
        }  # fmt: skip
    note(f"cpu {language}: {found}")
    return found


def _spread(values: Sequence[float]) -> list[float]:
    return [round(min(values), 5), round(max(values), 5)]


def han_share(text: str) -> float:
    """Han characters over letters and digits."""
    return sum("\u4e00" <= c <= "\u9fff" for c in text) / max(1, sum(map(str.isalnum, text)))


def agreements(data: Path, pages: int, real: dict[str, list[str]]) -> dict[str, Any]:
    """Rule by rule in both languages, on natural texts with one fault each: once, near the bounds (`edge`), and for
    Chinese also three to six times, as where the rule is meant to fire."""
    found: dict[str, Any] = {}
    for name, language, files, rules, low, high, times in (
        ("en", "en", ("en_docs", "en_books"), EN, 400, 8000, (1, 1)),
        ("zh", "zh", ("zh_tech", "zh_wiki"), ZH, 200, 4000, (3, 6)),
        ("zh_edge", "zh", ("zh_tech", "zh_wiki"), ZH, 200, 4000, (1, 1)),
    ):
        natural = [t for file in files for t in texts_of(data, file)] + real[language]
        natural = [t for t in natural if low < len(t) < high and (language == "en" or han_share(t) >= 0.5)]
        drawn = random.Random(1).sample(natural, min(pages, len(natural)))
        faults = [fault for fault in FAULTS if language == "en" or fault not in _SPACED_ONLY]
        texts = perturb(drawn, faults, unspaced=language == "zh", times=times)
        note(f"agreement {name}: {len(drawn)} pages, {len(texts)} texts")
        try:
            found[name] = agreement(rules, texts, "en" if language == "en" else "cmn_Hani", note)
        except ImportError as error:
            note(f"  no peer ({error})")
            found[name] = None
    return found


def kept_shares(data: Path, real: dict[str, list[str]]) -> dict[str, Any]:
    """Share of documents kept, by set; and the peer's on the Chinese ones."""
    found: dict[str, Any] = {}
    peer = peer_row("zh")
    for name, language, texts in (
        ("zh_wiki", "zh", texts_of(data, "zh_wiki")),
        ("zh_tech", "zh", texts_of(data, "zh_tech")),
        ("en_docs", "en", texts_of(data, "en_docs")),
        ("crawl_zh", "zh", real["zh"]),
        ("crawl_en", "en", real["en"]),
    ):
        _, kept = ours(texts, language)
        found[name] = {"documents": len(texts), "kept": round(float(kept.mean()), 4)}
        if peer is not None and language == "zh":
            sample = random.Random(2).sample(texts, min(200, len(texts)))
            found[name]["peer_kept"] = round(sum(map(peer, sample)) / len(sample), 4)
        note(f"kept {name}: {found[name]}")
    return found


def planted(data: Path) -> dict[str, Any]:
    """Spam and junk kept, by kind; personal data found; lookalikes masked. A page without text is not kept."""
    with gzip.open(data / "crawl" / "truth.jsonl.gz") as file:
        truth = {row["id"]: row for row in map(json.loads, file) if row["kind"] in ("spam", "junk", "pii")}
    spam: dict[str, list[bool]] = defaultdict(list)
    spans, hits, masked, absent = Counter(), Counter(), Counter(), Counter()
    for row, text in crawl_rows(data, lambda r: r["id"] in truth):
        planted_row = truth[row["id"]]
        language = "zh" if row["lang"].startswith("zh") else "en"
        if planted_row["kind"] != "pii":
            kind = planted_row.get("spam_kind") or planted_row["junk_kind"]
            spam[f"{planted_row['kind']}:{kind}"].append(bool(text) and bool(ours([text], language)[1][0]))
            continue
        left = ours([text], language)[0][0].as_py()
        for span in planted_row["spans"]:
            if span["value"] not in text:
                absent[span["type"]] += 1
                continue
            spans[span["type"]] += 1
            hits[span["type"]] += text.count(span["value"]) > left.count(span["value"])
        for other in planted_row["lookalikes"]:
            masked[other["looks_like"]] += other["value"] in text and other["value"] not in left
    versions = clean(pa.array(_VERSIONS), ["en"] * len(_VERSIONS), source_type="qa", rules=CleanRules()).texts
    kept = {kind: round(sum(found) / len(found), 3) for kind, found in sorted(spam.items())}
    everything = [one for found in spam.values() for one in found]
    answer = {
        "spam_kept": round(sum(everything) / len(everything), 4), "spam_pages": len(everything), "by_kind": kept,
        "pii_found": round(sum(hits.values()) / max(1, sum(spans.values())), 4),
        "pii_by_type": {kind: [hits[kind], spans[kind]] for kind in sorted(spans)}, "pii_not_extracted": dict(absent),
        "lookalikes_masked": sum(masked.values()),
        "versions_masked": sum(a != b for a, b in zip(versions.to_pylist(), _VERSIONS, strict=True)),
    }  # fmt: skip
    note(f"planted: {answer}")
    return answer


def languages(data: Path) -> dict[str, Any]:
    """Accuracy of our language identification and of the bare model on texts whose language their source tells."""
    from pipelines.language.identify import _model, identify

    right = Counter()
    total = 0
    for name, language in (("zh_wiki", "zh"), ("zh_tech", "zh"), ("en_docs", "en"), ("en_books", "en")):
        for text in texts_of(data, name):
            total += 1
            right["ours"] += identify(text)[0] == language
            label, _ = _model().predict(text[:1500].replace("\n", " "))
            right["bare"] += label[0].removeprefix("__label__") == language
    found = {side: round(right[side] / total, 4) for side in ("ours", "bare")} | {"documents": total}
    note(f"language: {found}")
    return found


def main() -> None:  # noqa: C901 - one branch a part
    """Everything, or the parts that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=FOLDER, help="the folder of the test data")
    parser.add_argument(
        "--pages", type=int, default=150, help="natural pages of the agreement set, each with every fault"
    )
    parser.add_argument("--documents", type=int, default=150, help="documents of the CPU figures")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--parts", default="cpu,agreement,kept,planted,language")
    options = parser.parse_args()
    parts = set(options.parts.split(","))
    real: dict[str, list[str]] = {"en": [], "zh": []}
    if parts & {"cpu", "agreement", "kept"}:
        for row, text in crawl_rows(options.data, lambda r: r["kind"] == "base" and r["lang"][:2] in ("zh", "en")):
            if text:
                real[row["lang"][:2]].append(text)
    answer: dict[str, Any] = {"name": "filters", "load": os.getloadavg()[0], "machine": platform.machine()}
    for name in ("numba", "numpy", "pyarrow", "datatrove", "spacy", "jieba"):
        try:
            answer[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            answer[name] = None
    if "cpu" in parts:
        for language, name in (("zh", "zh_tech"), ("en", "en_docs")):
            natural = [t for t in texts_of(options.data, name) + real[language] if 300 < len(t) < 20_000]
            drawn = random.Random(0).sample(natural, min(options.documents, len(natural)))
            answer[f"cpu_{language}"] = cpu(language, drawn, options.rounds)
            answer[f"cpu_vs_datatrove_{language}"] = answer[f"cpu_{language}"].get("ratio")
    if "agreement" in parts:
        for language, found in agreements(options.data, options.pages, real).items():
            answer[f"agreement_by_rule_{language}"] = found
            often = [r["agreement"] for r in (found or {}).values() if max(r["peer"], r["ours"]) >= LEAST_FIRED]
            answer[f"agreement_{language}"] = min(often) if often else None
            answer[f"rules_{language}"] = [len(often), len(found or {})]
    if "kept" in parts:
        answer["kept"] = kept_shares(options.data, real)
        answer["clean_zh_kept"] = min(answer["kept"][name]["kept"] for name in ("zh_wiki", "zh_tech"))
    if "planted" in parts:
        answer |= planted(options.data)
    if "language" in parts:
        answer["language"] = languages(options.data)
    sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
