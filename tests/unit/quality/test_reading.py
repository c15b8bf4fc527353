import random
import tempfile
from pathlib import Path

import fasttext
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import IntegrityError
from pipelines.quality.reading import FACTS, read_texts, token_hashes
from pipelines.quality.vocabulary import LineModel, fnv, read_line_model
from pipelines.quality.words import MAX_CHARACTERS, tables, words

TOKENS = FACTS.index("tokens")
LINES = [
    "__label__good the river runs through old towns , 河 流 经 过",
    "__label__bad buy cheap casino bonus ! 点 击 领 取",
    "__label__good people kept records of floods . 城 镇",
]
HOSTILE = [
    "",
    "\n\n",
    "a" * 100,
    "İΣ ΑΣ. ΟΔΟΣ",
    "a\0b __label__bad </s> </s>",
    "中" * (2 * MAX_CHARACTERS),
    "the river " * 9000,
    "\u200b\ufeff\u2028x\u00a0y\x1cz",
    "ﬀ ŉ ǅ ẞ \U0001f600 \U00020000\U0001d400 \U000e0101",
]


@pytest.fixture(scope="module")
def library():
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "a.txt"), str(Path(folder, "m.bin"))
        source.write_text("\n".join(LINES * 20) + "\n", "utf-8")
        model = fasttext.train_supervised(
            input=str(source), dim=8, epoch=20, lr=0.5, wordNgrams=3, bucket=1000, minCount=1, thread=1, verbose=0
        )
        model.save_model(target)
        return model, Path(target).read_bytes()


def differences(library, texts):
    model, body = library
    line = read_line_model(body)
    sums, facts = read_texts(pa.array(texts, pa.large_string()), line)
    ours = line.probability(sums, "good")
    for text, p, fact in zip(texts, ours, facts, strict=True):
        prepared = words(text)
        assert fact[TOKENS] == len(prepared.split())
        if prepared:
            labels, probabilities = model.predict(prepared, k=2)
            yield abs(dict(zip(labels, probabilities, strict=True))["__label__good"] - 1e-5 - p)


def test_hostile_text_scores_as_by_the_library(library):
    rng = random.Random(1)
    scripts = [(1, 128), (0x400, 0x500), (0x4E00, 0x9FFF), (1, 0xD800), (0xE000, 0x110000)]
    mixed = [
        "".join(chr(rng.randrange(*rng.choice(scripts))) for _ in range(rng.randrange(1, 200))) for _ in range(200)
    ]
    vocabulary = " ".join(LINES).split()
    known = [" ".join(rng.choices(vocabulary, k=rng.randrange(1, 60))) for _ in range(100)]
    assert max(differences(library, HOSTILE + mixed + known)) < 1e-5  # the library sums in single precision


@given(st.lists(st.text(max_size=60), max_size=5))
def test_tokens_are_those_of_the_definition(texts):
    hashes, bounds = token_hashes(pa.array(texts, pa.large_string()))
    for at, text in enumerate(texts):
        assert hashes[bounds[at] : bounds[at + 1]].tolist() == [fnv(w.encode()) for w in words(text).split(" ") if w]


def test_the_tables_say_what_the_definition_says_for_every_character():
    kinds, lower = tables()
    spaced = {0: "a b", 1: "a{}b", 2: "a {} b", 3: "a {} b"}
    for code in [*range(1, 0xD800), *range(0xE000, 0x20000)]:
        assert words(f"a{chr(code)}b") == spaced[kinds[code] & 3].format(chr(lower[code])), hex(code)


def test_a_slice_and_a_chunked_array_read_the_same():
    texts = pa.array(["one two", None, "三四", "five"], pa.string())
    whole = read_texts(texts, LineModel.empty())[1]
    assert np.array_equal(read_texts(texts[1:3], LineModel.empty())[1], whole[1:3])
    assert np.array_equal(read_texts(pa.chunked_array([texts[:1], texts[1:]]), LineModel.empty())[1], whole)
    assert whole[1, TOKENS] == 0 and whole[:, TOKENS].tolist() == [2, 0, 2, 1]


def test_what_is_no_utf8_costs_no_neighbour():
    bounds = pa.py_buffer(np.array([0, 3, 6], np.int64))
    broken = pa.LargeStringArray.from_buffers(2, bounds, pa.py_buffer(b"a\xe4\xb8bcd"))
    assert read_texts(broken, LineModel.empty())[1][1, TOKENS] == 1


def test_a_cut_or_altered_model_is_refused_and_never_crashes(library):
    _, body = library
    for size in range(0, len(body), 997):
        with pytest.raises(IntegrityError):
            read_line_model(body[:size])
    rng = random.Random(3)
    for _ in range(300):
        altered = bytearray(body)
        altered[rng.randrange(120)] = rng.randrange(256)
        try:
            read_line_model(bytes(altered))
        except IntegrityError:
            continue
