import json
import random

import numpy as np
import pyarrow as pa
import pytest

from pipelines.errors import ConfigError, InputError, IntegrityError
from pipelines.quality.examples import LabelledPage, folds_of, is_test_side, without_copies
from pipelines.quality.scorers import open_scorer
from pipelines.quality.train import QualityRules, measure, train

PROSE = {
    "en": [
        "the",
        "river",
        "runs",
        "through",
        "old",
        "towns",
        "where",
        "people",
        "kept",
        "records",
        "of",
        "floods",
        "and",
        "harvests",
    ],
    "zh": list("河流经过古老的城镇人们在那里记录洪水与收成并且写下书信"),
}
SPAM = {
    "en": [
        "buy",
        "cheap",
        "casino",
        "bonus",
        "click",
        "here",
        "free",
        "spins",
        "win",
        "now",
        "best",
        "price",
        "discount",
    ],
    "zh": list("点击领取彩金免费注册博彩娱乐城优惠返利代理开户"),
}


def pages(count=400, seed=0):
    rng = random.Random(seed)
    made = []
    for i in range(count):
        language, good = ("zh", "en")[i % 2], i % 4 < 2
        units = (PROSE if good else SPAM)[language]
        text = ("" if language == "zh" else " ").join(rng.choices(units, k=60))
        made.append(
            LabelledPage(
                text=text,
                label="good" if good else "bad",
                language=language,
                domain=f"site{rng.randrange(80)}.example",
            )
        )
    return made


RULES = QualityRules(epochs=3, buckets=1 << 12, folds=2)


def opened(files):
    return open_scorer(files, files.__getitem__)


@pytest.fixture(scope="module")
def trained():
    return train(pages(), RULES)


def test_it_tells_prose_from_spam_on_domains_it_never_saw(trained):
    _, metrics = trained
    assert metrics["test_pages"] > 40
    assert metrics["precision"] > 0.85 and metrics["recall"] > 0.95 and metrics["auc"] > 0.98
    assert set(metrics["by_language"]) == {"en", "zh"}
    assert metrics["learned_pages"] + metrics["test_pages"] + metrics["near_copies"] == 400
    assert metrics["folds"]["pages"] == metrics["learned_pages"] and 0 < metrics["cut"] < 1
    assert 2 <= len(metrics["by_length"]) <= 4 and metrics["calibration"]["ece"] < 0.5


def test_the_same_pages_in_any_order_give_the_same_files(trained):
    shuffled = pages()
    random.Random(5).shuffle(shuffled)
    assert train(shuffled, RULES)[0] == trained[0]


def test_a_domain_is_never_on_both_sides():
    sides = [is_test_side(f"site{i}.example", 0.3, 0) for i in range(2000)]
    assert 0.25 < sum(sides) / 2000 < 0.35
    found = folds_of(pages(), 4, 0)
    by_side = {}
    for page, fold in zip(pages(), found.tolist(), strict=True):
        assert by_side.setdefault(page.side, fold) == fold
    assert np.bincount(found).min() > 60


def test_scores_are_on_the_grid_and_null_without_words(trained):
    model = opened(trained[0])
    texts = pa.array([" ".join(PROSE["en"] * 3), " ".join(SPAM["en"] * 3), None, " ", "".join(PROSE["zh"])])
    scores = model.scores(texts).to_pylist()
    assert scores[0] > scores[1] and scores[2] is scores[3] is None
    assert all(score == round(score, 4) and 0 <= score <= 1 for score in scores if score is not None)


def test_a_batch_may_be_cut_anywhere(trained):
    model = opened(trained[0])
    texts = pa.array([page.text for page in pages(20, seed=3)])
    whole = model.scores(texts).to_pylist()
    assert model.scores(texts[:7]).to_pylist() + model.scores(texts[7:]).to_pylist() == whole


def test_copies_are_learned_once_and_texts_under_both_labels_never():
    page = {"language": "en", "domain": "d"}
    long = " ".join(f"word{i}" for i in range(300))
    given = [
        LabelledPage(text="One text. ", label="good", **page),
        LabelledPage(text="one TEXT", label="good", **page),
        LabelledPage(text="doubted", label="good", **page),
        LabelledPage(text="Doubted!", label="bad", **page),
        LabelledPage(text=long, label="bad", **page),
        LabelledPage(text=long + " more", label="bad", **page),
        LabelledPage(text="...", label="bad", **page),
    ]
    kept, gone = without_copies(given)
    assert gone == {"exact_copies": 1, "near_copies": 1, "two_labels": 2, "empty": 1} and len(kept) == 2
    assert len(without_copies(given, near=1.0)[0]) == 3


def test_precision_and_recall_count_what_they_say(trained):
    model = opened(trained[0])
    good, bad = pages(4)[0], pages(4)[2]
    lied = LabelledPage(text=bad.text, label="good", language="zh", domain="x")
    metrics = measure(model, [good, bad, lied], model.cut)
    assert (metrics["precision"], metrics["recall"]) == (1.0, 0.5)
    assert measure(model, [], 0.5)["precision"] is None


def test_word_order_counts_where_the_words_are_the_same():
    rng = random.Random(1)
    chain = {w: rng.sample(PROSE["en"], 2) for w in PROSE["en"]}

    def walk(size=80):
        word = rng.choice(PROSE["en"])
        made = []
        for _ in range(size):
            made.append(word)
            word = rng.choice(chain[word])
        return made

    made = []
    for i in range(240):
        units = walk()
        if i % 2:
            rng.shuffle(units)
        label = "bad" if i % 2 else "good"
        made.append(LabelledPage(text=" ".join(units), label=label, language="en", domain=f"{label}{i % 20}"))
    with_form = train(made, QualityRules(epochs=2, word_ngrams=1, folds=2))[1]
    without = train(made, QualityRules(epochs=2, word_ngrams=1, folds=2, form=False))[1]
    assert with_form["auc"] > 0.95 > 0.8 > without["auc"]


def test_data_without_one_of_the_labels_is_refused():
    with pytest.raises(InputError, match="bad"):
        train([page for page in pages() if page.label == "good"], RULES)
    with pytest.raises(InputError, match="labels"):
        train([LabelledPage(text="x", label="ugly", language="en", domain="d")], RULES)


def test_senseless_rules_are_refused():
    for wrong in ({"epochs": 0}, {"test_fraction": 1.0}, {"folds": 1}, {"target_precision": 0.0}):
        with pytest.raises(ConfigError):
            QualityRules(**wrong)


def test_something_else_than_our_model_is_refused(trained):
    files = dict(trained[0])
    for name, body in (("model.bin", b"nonsense"), ("quality.json", b"{}"), ("order.bin", b"short")):
        with pytest.raises(IntegrityError):
            opened(files | {name: body})
    told = json.loads(files["quality.json"])
    told["head"]["features"] = ["another"]
    with pytest.raises(IntegrityError, match="features"):
        opened(files | {"quality.json": json.dumps(told).encode()})
