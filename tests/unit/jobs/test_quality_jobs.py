import dataclasses
import json
import random
import uuid

import pytest
import zstandard

from jobs import combine_scores, score_quality, train_quality
from jobs.runtime.context import Context
from pipelines.datasets import aligned_parts, open_dataset
from pipelines.datasets.store import open_store
from pipelines.errors import ConfigError, GristmillError, InputError
from tests.made_documents import commit_documents

GOOD = {
    "en": ["the", "river", "runs", "through", "old", "towns", "where", "people", "kept", "records", "of", "floods"],
    "zh": list("河流经过古老的城镇"),
}
BAD = {
    "en": ["buy", "cheap", "casino", "bonus", "click", "here", "free", "spins", "win", "now"],
    "zh": list("点击领取彩金免费注册博彩"),
}


def page(rng, i):
    language, good = ("zh", "en")[i % 2], i % 4 < 2
    units = rng.choices((GOOD if good else BAD)[language], k=40)
    return {
        "text": ("" if language == "zh" else " ").join(units),
        "label": "good" if good else "bad",
        "language": language,
        "domain": f"site{rng.randrange(50)}.example",
    }


def labels(path, seed=0, count=200):
    rng = random.Random(seed)
    body = "".join(json.dumps(page(rng, i), ensure_ascii=False) + "\n" for i in range(count)).encode()
    path.write_bytes(zstandard.compress(body) if path.suffix == ".zst" else body)
    return str(path)


def context(store=None):
    return Context(store=store or open_store(f"memory://{uuid.uuid4().hex}"), engine="process", flush_seconds=0.0)


def train(path):
    return train_quality.Config(examples=path, epochs=5, buckets=4096)


def test_a_model_is_trained_measured_and_scores_every_document(tmp_path):
    ctx = context()
    (model,) = train_quality.run(train(labels(tmp_path / "pages.jsonl.zst")), ctx)
    assert model.stats["precision"] > 0.9 and model.stats["recall"] > 0.9
    rng = random.Random(9)
    pages = [page(rng, i) for i in range(30)]
    rows = [{"text": p["text"]} for p in pages] + [{"text": None}, {"text": ""}]
    commit_documents(ctx, {"a": rows[:10], "b": rows[10:]})
    (made,) = score_quality.run(score_quality.Config(), ctx)
    documents, quality = open_dataset(ctx.store, "documents"), open_dataset(ctx.store, "quality")
    scores = {}
    for mine, theirs in aligned_parts(documents, quality):
        texts = documents.read_part(mine["key"])["text"].to_pylist()
        scores |= dict(zip(texts, quality.read_part(theirs["key"])["quality.fasttext"].to_pylist(), strict=True))
    right = [(scores[p["text"]] >= 0.5) == (p["label"] == "good") for p in pages]
    assert sum(right) > 27
    assert scores[None] is None and scores[""] is None
    assert made.books["documents"]["annotated"] == 32 and made.stats["without_score"] == 2
    assert made.artifacts[0]["sha256"] and {p["role"] for p in made.parents} == {"input", "model"}


def test_running_again_writes_nothing_and_other_labels_make_another_model(tmp_path):
    ctx = context()
    path = labels(tmp_path / "pages.jsonl")
    (first,) = train_quality.run(train(path), ctx)
    (again,) = train_quality.run(train(path), ctx)
    assert again.sha256 == first.sha256
    commit_documents(ctx, {"a": [{"text": "the river runs"}]})
    (scored,) = score_quality.run(score_quality.Config(), ctx)
    assert score_quality.run(score_quality.Config(), ctx)[0].sha256 == scored.sha256
    labels(tmp_path / "pages.jsonl", seed=1)
    (other,) = train_quality.run(train(path), ctx)
    assert other.version == 2
    (rescored,) = score_quality.run(score_quality.Config(), ctx)
    assert rescored.version == 2 and rescored.stage_id != scored.stage_id


def test_the_same_labels_give_the_same_content_anywhere(tmp_path):
    path = labels(tmp_path / "pages.jsonl")
    assert len({train_quality.run(train(path), context())[0].content_sum for _ in range(2)}) == 1


def test_an_append_scores_only_what_is_new(tmp_path):
    ctx = context()
    train_quality.run(train(labels(tmp_path / "pages.jsonl")), ctx)
    commit_documents(ctx, {"a": [{"text": "the river"}]})
    (early,) = score_quality.run(score_quality.Config(), ctx)
    commit_documents(ctx, {"a": [{"text": "the river"}], "b": [{"text": "click here"}]})
    (late,) = score_quality.run(score_quality.Config(), ctx)
    assert late.extends["version"] == early.version
    keys = [set(open_dataset(ctx.store, "quality", v).parts()["key"].to_pylist()) for v in (1, 2)]
    assert keys[0] < keys[1]


@pytest.mark.parametrize("body", [b"nonsense\n", b'{"text": "a"}\n', b"[1]\n"])
def test_a_bad_line_is_named(tmp_path, body):
    path = tmp_path / "pages.jsonl"
    path.write_bytes(b"\n" + body)
    with pytest.raises(InputError, match="line 2"):
        train_quality.run(train(str(path)), context())


def test_a_missing_or_broken_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no file"):
        train_quality.run(train(str(tmp_path / "none.jsonl")), context())
    (tmp_path / "bad.jsonl.zst").write_bytes(b"not zstd")
    with pytest.raises(InputError, match="zstd"):
        train_quality.run(train(str(tmp_path / "bad.jsonl.zst")), context())


def scored(ctx, name):
    dataset = open_dataset(ctx.store, name)
    return [row for key in dataset.parts()["key"].to_pylist() for row in dataset.read_part(key).to_pylist()]


def test_scores_of_two_models_become_equal_mass_buckets(tmp_path):
    ctx = context()
    train_quality.run(train(labels(tmp_path / "pages.jsonl")), ctx)
    train_quality.run(dataclasses.replace(train(labels(tmp_path / "b.jsonl", seed=4)), output="other"), ctx)
    rng = random.Random(9)
    commit_documents(ctx, {"a": [{"text": page(rng, i)["text"]} for i in range(60)] + [{"text": None}]})
    score_quality.run(score_quality.Config(), ctx)
    score_quality.run(score_quality.Config(model="other", output="others", name="other"), ctx)
    members = ["quality", "others"]
    combine_scores.run(combine_scores.Config(members=members, buckets=4), ctx)
    ensemble = score_quality.Config(model="quality_ensemble", output="both", name="both")
    (made,) = score_quality.run(ensemble, ctx)
    first, second, both = (scored(ctx, name) for name in (*members, "both"))
    assert {p["role"] for p in made.parents} == {"input", "model", "scores"}
    assert both[-1]["quality.both"] is None
    ranks = {row["quality.both"] for row in both[:-1]}
    assert ranks <= {0.0, 0.3333, 0.6667, 1.0} and {0.0, 1.0} <= ranks
    top = max(range(60), key=lambda i: first[i]["quality.fasttext"])
    assert both[top]["quality.both"] == 1.0
    low = min(range(60), key=lambda i: first[i]["quality.fasttext"] + second[i]["quality.other"])
    assert both[low]["quality.both"] < 1.0


def test_low_sentences_are_spans_that_a_filter_can_cut(tmp_path):
    ctx = context()
    words_alone = dataclasses.replace(train(labels(tmp_path / "pages.jsonl")), form=False)
    train_quality.run(words_alone, ctx)
    good = "The river runs through old towns where people kept records. "
    bad = "Buy cheap casino bonus click here now. "
    commit_documents(ctx, {"a": [{"text": good * 3 + bad * 2 + good}, {"text": good}, {"text": None}]})
    config = score_quality.Config(sentences="low", sentence_cut=0.5)
    scores, low = score_quality.run(config, ctx)
    rows = scored(ctx, "low")
    text = good * 3 + bad * 2 + good
    (start, end) = (int(n) for n in rows[0]["low_fasttext.spans"].partition(":")[0].split("-"))
    assert text[start:end].strip() == (bad * 2).strip() and rows[1]["low_fasttext.spans"] is None
    assert scores.stats["low_sentences"] == 2 and scores.stats["sentences"] == 7
    assert low.kind == "annotations" and scores.books["characters"]["removed"] == {"low_sentence": end - start}


def test_pages_come_from_datasets_with_conditions_and_from_a_teacher(tmp_path):
    ctx = context()
    train_quality.run(train(labels(tmp_path / "pages.jsonl")), ctx)
    rng = random.Random(5)
    pages = [page(rng, i) for i in range(200)]
    rows = [{k: p[k] for k in ("text", "language", "domain")} | {"source": p["label"]} for p in pages]
    commit_documents(ctx, {"a": rows[:100], "b": rows[100:]})
    score_quality.run(score_quality.Config(), ctx)
    settings = {"epochs": 3, "buckets": 4096, "folds": 2}
    named = train_quality.Config(
        good=["documents where source == good"], bad=["documents where source == bad"], output="named", **settings
    )
    (by_source,) = train_quality.run(named, ctx)
    assert by_source.stats["given_pages"] == {"bad": 100, "good": 100} and by_source.stats["auc"] > 0.95
    (student,) = train_quality.run(train_quality.Config(distil="quality", output="student", **settings), ctx)
    assert {p["name"] for p in student.parents} == {"documents", "quality"}
    assert student.stats["auc"] > 0.95 and student.stats["given_pages"]["good"] >= 35
    bound = train_quality.Config(
        good=["documents where quality/quality.fasttext >= 0.5"],
        bad=["documents where quality/quality.fasttext < 0.5"],
        **settings,
    )
    assert sum(train_quality.run(bound, ctx)[0].stats["given_pages"].values()) == 200
    for wrong in ("documents where", "documents where source > x", "documents where a/b/c ~ 1"):
        with pytest.raises(GristmillError):
            train_quality.run(train_quality.Config(good=[wrong], bad=["documents"]), ctx)
    with pytest.raises(ConfigError, match="one label"):
        train_quality.run(train_quality.Config(good=["documents"]), ctx)
