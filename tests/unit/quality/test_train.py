import random

import pyarrow as pa
import pytest

from pipelines.errors import ConfigError, InputError, IntegrityError
from pipelines.quality.score import QualityModel, score_column
from pipelines.quality.train import LabelledPage, QualityRules, is_test_domain, measure, train

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


RULES = QualityRules(epochs=5, buckets=1 << 12)


@pytest.fixture(scope="module")
def trained():
    return train(pages(), RULES)


def test_it_tells_prose_from_spam_on_domains_it_never_saw(trained):
    _, metrics = trained
    assert metrics["test_pages"] > 40
    assert metrics["precision"] > 0.95 and metrics["recall"] > 0.95
    assert set(metrics["by_language"]) == {"en", "zh"}
    assert metrics["learned_pages"] + metrics["test_pages"] == 400


def test_the_same_pages_in_any_order_give_the_same_bytes(trained):
    shuffled = pages()
    random.Random(5).shuffle(shuffled)
    assert train(shuffled, RULES)[0] == trained[0]


def test_a_domain_is_never_on_both_sides():
    rules = QualityRules(test_fraction=0.3)
    sides = [is_test_domain(f"site{i}.example", rules) for i in range(2000)]
    assert 0.25 < sum(sides) / 2000 < 0.35


def test_scores_are_on_the_grid_and_null_without_words(trained):
    model = QualityModel(trained[0])
    texts = pa.array(["the river runs", "click here free bonus", None, " ", "河流经过城镇"])
    scores = score_column(model, texts).to_pylist()
    assert scores[0] > 0.5 > scores[1] and scores[2] is scores[3] is None
    assert all(score == round(score, 4) and 0 <= score <= 1 for score in scores if score is not None)


def test_a_batch_may_be_cut_anywhere(trained):
    model = QualityModel(trained[0])
    texts = pa.array([page.text for page in pages(20, seed=3)])
    whole = score_column(model, texts).to_pylist()
    assert score_column(model, texts[:7]).to_pylist() + score_column(model, texts[7:]).to_pylist() == whole


def test_precision_and_recall_count_what_they_say(trained):
    model = QualityModel(trained[0])
    good, bad = pages(4)[0], pages(4)[2]
    lied = LabelledPage(text=bad.text, label="good", language="zh", domain="x")
    metrics = measure(model, [good, bad, lied])
    assert (metrics["precision"], metrics["recall"]) == (1.0, 0.5)
    assert measure(model, [])["precision"] is None


def test_data_without_one_of_the_labels_is_refused():
    with pytest.raises(InputError, match="bad"):
        train([page for page in pages() if page.label == "good"], RULES)
    with pytest.raises(InputError, match="labels"):
        train([LabelledPage(text="x", label="ugly", language="en", domain="d")], RULES)


def test_senseless_rules_are_refused():
    with pytest.raises(ConfigError):
        QualityRules(epochs=0)
    with pytest.raises(ConfigError):
        QualityRules(test_fraction=1.0)


def test_something_else_than_our_model_is_refused():
    with pytest.raises(IntegrityError):
        QualityModel(b"nonsense")
