import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.normalize import normal_forms
from pipelines.dedup.verify import jaccards, similarities

TEXT = st.one_of(st.text(alphabet="ab ", max_size=60), st.text(alphabet="中文字", max_size=40))


def reference(a, b, measure="jaccard"):
    sets = []
    for form in normal_forms(pa.array([a, b])).to_pylist():
        units = list(form) if any(ord(c) > 0x3000 for c in form) else form.split()
        sets.append({tuple(units[i : i + 5]) for i in range(len(units) - 4)})
    whole = len(sets[0] | sets[1]) if measure == "jaccard" else min(map(len, sets))
    return len(sets[0] & sets[1]) / whole if whole else 0.0


@settings(deadline=None)
@given(st.lists(TEXT, min_size=2, max_size=6))
def test_the_kernel_gives_the_similarity_of_the_sets_by_either_measure(texts):
    pairs = [(i, j) for i in range(len(texts)) for j in range(len(texts))]
    left, right = np.array(pairs).T
    for measure in ("jaccard", "containment"):
        expected = [reference(texts[i], texts[j], measure) for i, j in pairs]
        assert similarities(pa.array(texts), left, right, measure=measure).tolist() == expected
    assert (jaccards(pa.array(texts), left, right) == similarities(pa.array(texts), left, right)).all()


def test_a_text_that_repeats_itself_counts_its_shingles_once():
    once, thrice = "a b c d e ", "a b c d e " * 3
    assert jaccards(pa.array([once, thrice]), np.array([0]), np.array([1]))[0] == 1 / 5


def test_texts_without_a_shingle_are_not_alike():
    assert jaccards(pa.array(["", None, "a b"]), np.array([0, 2]), np.array([1, 2])).tolist() == [0.0, 0.0]


def test_the_order_of_the_pairs_does_not_matter():
    texts = pa.array([f"one two three four five six seven {i % 3} {i}" for i in range(9)])
    left, right = np.arange(9).repeat(9), np.tile(np.arange(9), 9)
    shuffled = np.random.default_rng(0).permutation(81)
    whole = jaccards(texts, left, right)
    assert (jaccards(texts, left[shuffled], right[shuffled]) == whole[shuffled]).all()
    assert (whole.reshape(9, 9) == whole.reshape(9, 9).T).all()


def test_a_long_pair_after_short_ones_has_its_table_grown():
    words = [f"w{i}" for i in range(30_000)]
    texts = pa.array(["a b c d e f", " ".join(words), " ".join(words[100:]), "a b c d e g"])
    left, right = np.array([0, 1, 0]), np.array([3, 2, 3])
    expected = [1 / 3, (29_900 - 4) / (30_000 - 4), 1 / 3]
    assert jaccards(texts, left, right).tolist() == expected
