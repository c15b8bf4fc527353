import hashlib
import random

import datasketch
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.bands import BandPlan
from pipelines.dedup.normalize import normal_forms
from pipelines.dedup.signature import band_digests, exact_digests, permutations, signatures

HAN = [chr(code) for code in range(0x4E00, 0x5600)]
WORDS = ["".join(letters) for letters in zip("abcdefghij" * 40, "klmnopqrst" * 40, "uvwxyzabcd" * 40, strict=True)]


def shingles(text):
    """Sets of strings by the definition: 5 characters where the form has no spaces, else 5 words."""
    form = normal_forms(pa.array([text]))[0].as_py()
    unspaced = any(0x3000 <= ord(c) <= 0x9FFF for c in form)
    units = list(form) if unspaced else form.split()
    return {tuple(units[i : i + 5]) for i in range(len(units) - 4)}


def jaccard(a, b):
    return len(a & b) / len(a | b)


def edited_pairs(language, pairs, seed):
    """Texts and copies with 0 to 40 scattered edits, as crawled copies have."""
    rng = random.Random(seed)
    originals, copies = [], []
    for _ in range(pairs):
        if language == "zh":
            units = [rng.choice(HAN) for _ in range(500)]
            join = ""
        else:
            units = [rng.choice(WORDS) + str(rng.randrange(50)) for _ in range(300)]
            join = " "
        copy = list(units)
        for _ in range(rng.randrange(40)):
            copy[rng.randrange(len(copy))] = rng.choice(HAN if language == "zh" else WORDS)
        originals.append(join.join(units))
        copies.append(join.join(copy))
    return originals, copies


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_estimate_has_the_bias_and_spread_of_theory(language):
    originals, copies = edited_pairs(language, 400, seed=7)
    exact = np.array([jaccard(shingles(a), shingles(b)) for a, b in zip(originals, copies, strict=True)])
    left, _ = signatures(pa.array(originals), 256)
    right, _ = signatures(pa.array(copies), 256)
    error = (left == right).mean(axis=1) - exact
    theory = np.sqrt((exact * (1 - exact)).mean() / 256)
    assert abs(error.mean()) < 4 * theory / np.sqrt(len(exact))
    assert 0.8 * theory < error.std() < 1.2 * theory


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_estimate_is_as_good_as_datasketch(language):
    originals, copies = edited_pairs(language, 60, seed=11)
    left, _ = signatures(pa.array(originals), 256)
    right, _ = signatures(pa.array(copies), 256)
    ours, theirs = [], []
    for i, (a, b) in enumerate(zip(originals, copies, strict=True)):
        sets = shingles(a), shingles(b)
        peers = [datasketch.MinHash(num_perm=256) for _ in sets]
        for peer, grams in zip(peers, sets, strict=True):
            peer.update_batch([repr(gram).encode() for gram in grams])
        exact = jaccard(*sets)
        ours.append(abs((left[i] == right[i]).mean() - exact))
        theirs.append(abs(peers[0].jaccard(peers[1]) - exact))
    assert np.mean(ours) < 1.25 * np.mean(theirs)


def test_a_minimum_is_that_of_wrapped_32_bit_products():
    multipliers, addends = permutations(256)
    assert (multipliers & 1).all() and len(set(multipliers.tolist())) == 256
    minima, counts = signatures(pa.array(["one two three four five"]), 256)
    assert counts.tolist() == [1]
    inverse = pow(int(multipliers[0]), -1, 2**32)
    shingle = (int(minima[0, 0]) - int(addends[0])) * inverse % 2**32
    expected = [(int(a) * shingle + int(b)) % 2**32 for a, b in zip(multipliers, addends, strict=True)]
    assert minima[0].tolist() == expected


def test_unlike_documents_share_no_band():
    rng = random.Random(3)
    texts = pa.array([" ".join(rng.choice(WORDS) + str(rng.randrange(99)) for _ in range(200)) for _ in range(2000)])
    for column in band_digests(texts, BandPlan()):
        assert len(set(column.to_pylist())) == 2000


def test_a_document_too_short_for_a_shingle_has_no_bands_but_an_exact_digest():
    texts = pa.array(["four words are few", "五个字以下"[:4], None, "", "now here are five words"])
    columns = band_digests(texts, BandPlan(num_bands=4, rows_per_band=4))
    assert all([value is None for value in column.to_pylist()] == [True, True, True, True, False] for column in columns)
    high, low = exact_digests(texts)
    assert [value is None for value in high.to_pylist()] == [False, False, True, True, False]
    assert low.null_count == 2


def test_equal_minima_in_two_bands_have_unlike_digests():
    columns = band_digests(pa.array(["five words and one more"]), BandPlan(num_bands=16, rows_per_band=4))
    assert len({column[0].as_py() for column in columns}) == 16


def test_the_exact_digest_is_blake2b_of_the_normal_form():
    high, low = exact_digests(pa.array(["Hello,  World!"]))
    expected = hashlib.blake2b(b"hello world", digest_size=16).digest()
    assert (
        high[0].as_py().to_bytes(8, "little", signed=True) + low[0].as_py().to_bytes(8, "little", signed=True)
        == expected
    )


def test_the_digests_of_a_known_text_never_change():
    """Stored signatures are compared across versions: a changed value here needs a raised stage version."""
    columns = band_digests(
        pa.array(["The quick brown fox jumps over the lazy dog", "敏捷的棕色狐狸跳过了懒狗"]), BandPlan()
    )
    assert [columns[0].to_pylist(), columns[31].to_pylist()] == GOLDEN


GOLDEN = [
    [-2358040255005950544, -5363122818178195246],
    [4270601277272429066, 4709075758562083789],
]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.one_of(st.none(), st.text(alphabet="ab c中文字符", min_size=0, max_size=40)), max_size=12),
    st.integers(0, 12),
)
def test_a_batch_may_be_cut_anywhere(texts, cut):
    plan = BandPlan(num_bands=8, rows_per_band=4)
    whole = pa.array(texts, pa.string())
    for column, first, second in zip(
        band_digests(whole, plan),
        band_digests(whole[:cut], plan),
        band_digests(whole[cut:], plan),
        strict=True,
    ):
        assert column.to_pylist() == first.to_pylist() + second.to_pylist()
    for half, first, second in zip(
        exact_digests(whole), exact_digests(whole[:cut]), exact_digests(whole[cut:]), strict=True
    ):
        assert half.to_pylist() == first.to_pylist() + second.to_pylist()
