import random

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipelines.decontamination.benchmarks import Example, read_benchmarks
from pipelines.decontamination.grams import MOST_SINGLES, SINGLES, WORDS, units_of, windows
from pipelines.decontamination.overlap import annotate, build_index, count_hits

ENGLISH = [f"word{i}" for i in range(400)]
HAN = [chr(code) for code in range(0x4E00, 0x5200)]


def english(rng, size=40):
    return " ".join(rng.choices(ENGLISH, k=size))


def chinese(rng, size=60):
    return "".join(rng.choices(HAN, k=size))


def texts(values):
    return pa.chunked_array([pa.array(values, pa.large_string())])


def test_units_are_words_and_single_characters_in_normal_form():
    assert units_of("Don't 读Python３.1, 中文!") == ["don", "t", "读", "python3", "1", "中", "文"]
    assert units_of("\u200b") == []


PIECES = st.one_of(st.sampled_from(["Wort ", "中", "é", "a1.", "\U00020001", "\U0001f600"]), st.text(max_size=3))


@given(st.lists(PIECES))
def test_the_kernel_finds_the_windows_of_the_definition(pieces):
    text = "".join(pieces) * 3
    units = units_of(text)
    found = windows(texts([text]))
    assert found.units[0] == len(units)
    wanted = []
    for size, fits in ((WORDS, lambda w, n: n <= MOST_SINGLES), (SINGLES, lambda w, n: 2 * n >= w)):
        for at in range(len(units) - size + 1):
            alone = sum(_single(unit) for unit in units[at : at + size])
            if fits(size, alone):
                wanted.append((at, size, tuple(units[at : at + size])))
    assert [(int(p), int(s)) for p, s in zip(found.place, found.size, strict=True)] == [w[:2] for w in wanted]
    by_digest = {}
    for value, (_, _, gram) in zip(found.value.tolist(), wanted, strict=True):
        assert by_digest.setdefault(value, gram) == gram


def _single(unit):
    from pipelines.dedup.normalize import fold_table

    code = ord(unit[0])
    return len(unit) == 1 and (int(fold_table()[code]) >> 31 if code < 0x10000 else 0x20000 <= code < 0x40000)


def test_planted_overlaps_are_found_whatever_stands_around_them():
    rng = random.Random(1)
    examples = [Example(benchmark="en", name=f"q:{i}", text=english(rng)) for i in range(20)]
    examples += [Example(benchmark="zh", name=f"q:{i}", text=chinese(rng)) for i in range(20)]
    index = build_index(examples)
    words = examples[3].text.split()
    leaks = {
        "whole": examples[3].text,
        "in Chinese": chinese(rng, 200) + "。" + ", ".join(words[5:20]).upper() + chinese(rng, 200),
        "13 words": english(rng) + " " + " ".join(words[10:23]),
        "12 words": english(rng, 30) + " other " + " ".join(words[10:22]) + " other " + english(rng, 30),
        "30 characters": english(rng) + "“" + "，".join(examples[25].text[10:40]) + "”" + english(rng),
        "29 characters": "甲" + examples[25].text[10:39] + "乙" + chinese(rng, 10),
        "none": english(rng, 300) + chinese(rng, 300),
    }
    documents = texts(list(leaks.values()))
    rows = annotate(texts(list(leaks)), documents, index, np.zeros(len(index.digests), bool)).to_pylist()
    found = {row["id"]: row for row in rows}
    assert found["whole"]["contamination.hits"] == 28 and found["whole"]["contamination.share"] == 1.0
    assert found["whole"]["contamination.example"] == "en/q:3" and found["whole"]["contamination.example_share"] == 1.0
    assert found["in Chinese"]["contamination.hits"] == 3 and found["13 words"]["contamination.hits"] == 1
    assert found["30 characters"]["contamination.benchmark"] == "zh"
    for name in ("12 words", "29 characters", "none"):
        assert found[name]["contamination.hits"] == 0 and found[name]["contamination.benchmark"] is None


def test_a_digest_alone_condemns_nobody():
    rng = random.Random(2)
    index = build_index([Example(benchmark="b", name="q:0", text=english(rng))])
    index.units[0] = ["other"] * 40  # as if another n-gram had the same digest
    table = annotate(texts(["a"]), texts([index.examples[0].text]), index, np.zeros(len(index.digests), bool))
    assert table["contamination.hits"].to_pylist() == [0]


def test_documents_are_counted_once_an_n_gram_and_copies_not_at_all():
    rng = random.Random(3)
    index = build_index([Example(benchmark="b", name="q:0", text=english(rng, 13))])
    text = index.examples[0].text
    rows, counts = count_hits(texts([text + " | " + text, text, "no", text]), np.array([1, 1, 1, 0], bool), index)
    assert rows.tolist() == [0] and counts.tolist() == [2]


def test_benchmarks_are_read_in_their_makers_forms(tmp_path):
    import gzip
    import io
    import tarfile

    import zstandard

    (tmp_path / "one.jsonl").write_text('{"q": "first", "options": ["A", "B"], "n": 3}\n\n{"q": "second"}\n')
    (tmp_path / "two.jsonl.gz").write_bytes(gzip.compress(b'{"q": "x"}\n'))
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "part.csv").write_text('"a, b",c\n')
    (tmp_path / "three" / "list.json").write_text('{"data": [{"q": "in a list"}]}')
    (tmp_path / "README.md").write_text("no examples")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo("dev/x.txt")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"plain"))
    (tmp_path / "four.tar.zst").write_bytes(zstandard.compress(packed.getvalue()))
    found = {(e.benchmark, e.name): e.text for e in read_benchmarks(tmp_path)}
    assert found == {
        ("one", "one.jsonl:0"): "first\nA\nB", ("one", "one.jsonl:1"): "second", ("two", "two.jsonl:0"): "x",
        ("three", "part.csv:0"): "a, b\nc", ("three", "list.json:0"): "in a list", ("four", "dev/x.txt:0"): "plain",
    }  # fmt: skip
