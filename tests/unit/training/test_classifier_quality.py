import json
import random

import numpy as np
import pyarrow as pa
import pytest

from pipelines.errors import GristmillError, InputError, IntegrityError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from tests.made_classifier import MadeBert, safetensors, train_classifier  # noqa: E402
from training.model.classifier import BertClassifier, open_network, read_safetensors  # noqa: E402

CONFIG = {
    "model_type": "bert", "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64,
    "layer_norm_eps": 1e-12,
}  # fmt: skip


@pytest.fixture(scope="module")
def made():
    torch.manual_seed(1)
    return MadeBert(50, labels=3).eval()


def padded(rng, count, longest=30):
    lengths = [rng.randrange(1, longest + 1) for _ in range(count)]
    ids, mask = np.zeros((count, longest), np.int64), np.zeros((count, longest), np.int64)
    for row, length in enumerate(lengths):
        ids[row, :length] = [rng.randrange(1, 50) for _ in range(length)]
        mask[row, :length] = 1
    return ids, mask


def test_the_forward_pass_is_that_of_torchs_own_layers(made):
    network = open_network(CONFIG, safetensors(made.named()), on_gpu=False, batch_tokens=100)
    ids, mask = padded(random.Random(2), 9)
    with torch.no_grad():
        wanted = made(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    assert np.abs(network(ids, mask) - wanted).max() < 1e-5


def test_padding_changes_nothing(made):
    network = open_network(CONFIG, safetensors(made.named()), on_gpu=False, batch_tokens=100)
    ids, mask = padded(random.Random(3), 1, 12)
    wide = [np.pad(a, ((0, 0), (0, 20))) for a in (ids, mask)]
    assert np.abs(network(ids, mask) - network(*wide)).max() < 1e-5


def test_roberta_counts_positions_from_after_the_padding_and_has_its_own_head(made):
    weights = {n.replace("bert.", "roberta.", 1): t for n, t in made.named().items() if not n.startswith("bert.pooler")}
    weights["classifier.dense.weight"], weights["classifier.dense.bias"] = made.pooler.weight, made.pooler.bias
    weights["classifier.out_proj.weight"] = weights.pop("classifier.weight")
    weights["classifier.out_proj.bias"] = weights.pop("classifier.bias")
    moved = weights["roberta.embeddings.position_embeddings.weight"]
    weights["roberta.embeddings.position_embeddings.weight"] = torch.cat([torch.zeros(2, moved.shape[1]), moved])
    config = CONFIG | {"model_type": "roberta", "pad_token_id": 1}
    body = safetensors({n: t.detach() for n, t in weights.items()})
    ids, mask = padded(random.Random(4), 5)
    plain = open_network(CONFIG, safetensors(made.named()), on_gpu=False, batch_tokens=100)
    network = open_network(config, body, on_gpu=False, batch_tokens=100)
    assert np.abs(network(ids, mask) - plain(ids, mask)).max() < 1e-5


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "XLMRoberta", "Camembert", "Electra", "DistilBert"])
def test_a_folder_that_transformers_saved_has_its_logits(tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(2)
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 64}
    if kind == "DistilBert":
        shape = {"n_layers": 2, "n_heads": 4, "dim": 32, "hidden_dim": 64}
    if kind == "Electra":
        shape["embedding_size"] = 16
    places = {"max_position_embeddings": 66, "pad_token_id": int(kind in ("Roberta", "XLMRoberta", "Camembert"))}
    config = getattr(transformers, f"{kind}Config")(vocab_size=50, num_labels=3, **shape, **places)
    theirs = getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()
    theirs.save_pretrained(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text())
    network = open_network(told, (tmp_path / "model.safetensors").read_bytes(), on_gpu=False, batch_tokens=100)
    ids, mask = padded(random.Random(5), 9)
    ids = np.where(mask == 1, np.maximum(ids, 2), places["pad_token_id"])
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits.numpy()
    assert np.abs(network(ids, mask) - wanted).max() < 1e-5


def test_what_is_no_classifier_is_refused(made):
    named = made.named()
    for wrong in ({"model_type": "t5"}, {"hidden_act": "swish"}, {"position_embedding_type": "relative_key"}):
        with pytest.raises(InputError):
            BertClassifier(CONFIG | wrong, named, on_gpu=False, batch_tokens=1)
    bare = {n: t for n, t in named.items() if not n.startswith("classifier")}
    with pytest.raises(InputError, match="classifier"):
        BertClassifier(CONFIG, bare, on_gpu=False, batch_tokens=1)(*padded(random.Random(1), 1))
    with pytest.raises(IntegrityError, match="more tokens"):
        BertClassifier(CONFIG, named, on_gpu=False, batch_tokens=1)(np.array([[99]]), np.array([[1]]))


def test_a_cut_or_lying_weights_file_is_refused(made):
    body = safetensors(made.named())
    for size in (0, 5, 8, 100, len(body) // 2, len(body) - 1):
        with pytest.raises(IntegrityError):
            read_safetensors(body[:size])
    lie = json.dumps({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}).encode()
    with pytest.raises(IntegrityError):
        read_safetensors(len(lie).to_bytes(8, "little") + lie + b"abcd")


GOOD = ["river", "town", "old", "people", "records", "flood", "harvest", "letters"]
BAD = ["buy", "cheap", "casino", "bonus", "click", "free", "spins", "win"]


def labelled(count, seed):
    rng = random.Random(seed)
    labels = [i % 2 for i in range(count)]
    noise = ["the", "and", "of", "a", "in"]
    texts = [" ".join(rng.choices((GOOD if y else BAD) + noise, k=rng.randrange(8, 40))) for y in labels]
    return texts, labels


def test_a_folder_becomes_a_scorer_and_teaches_a_fasttext_student(tmp_path):
    import uuid

    from jobs import import_classifier, score_quality, train_quality
    from jobs.runtime.context import Context
    from pipelines.datasets import open_dataset
    from pipelines.datasets.store import open_store
    from tests.made_documents import commit_documents

    texts, labels = labelled(160, 1)
    made = train_classifier(tmp_path / "teacher", texts, labels, [*GOOD, *BAD, "the", "and", "of", "a", "in"])
    ctx = Context(store=open_store(f"memory://{uuid.uuid4().hex}"), engine="process", flush_seconds=0.0)
    (model,) = import_classifier.run(import_classifier.Config(folder=str(tmp_path / "teacher"), label="good"), ctx)
    again = import_classifier.run(import_classifier.Config(folder=str(tmp_path / "teacher"), label="good"), ctx)
    assert again[0].sha256 == model.sha256
    fresh, truth = labelled(200, 2)
    rows = [{"text": t, "domain": f"site{i % 40}.example"} for i, t in enumerate(fresh)]
    commit_documents(ctx, {"a": rows[:90], "b": [*rows[90:], {"text": None}, {"text": " \n"}]})
    settings = score_quality.Config(model="quality_bert", output="taught", name="bert", batch_tokens=256)
    (scored,) = score_quality.run(settings, ctx)
    dataset = open_dataset(ctx.store, "taught")
    documents = open_dataset(ctx.store, "documents")
    by_text = {}
    for mine, theirs in zip(documents.parts().to_pylist(), dataset.parts().to_pylist(), strict=True):
        found = dataset.read_part(theirs["key"])["quality.bert"].to_pylist()
        by_text |= dict(zip(documents.read_part(mine["key"])["text"].to_pylist(), found, strict=True))
    assert by_text[None] is None and by_text[" \n"] is None
    right = [(by_text[t] >= 0.5) == bool(y) for t, y in zip(fresh, truth, strict=True)]
    assert sum(right) > 190 and scored.artifacts[-1]["sha256"] and made is not None

    teach = train_quality.Config(distil="taught", output="student", distil_share=0.4, epochs=5, buckets=4096, folds=2)
    (student,) = train_quality.run(teach, ctx)
    assert student.stats["auc"] > 0.95 and {p["name"] for p in student.parents} == {"documents", "taught"}
    own = score_quality.Config(model="student", output="own", name="student")
    score_quality.run(own, ctx)
    mine = [v for t in open_dataset(ctx.store, "own").batches(["quality.student"]) for v in t[0].to_pylist()]
    theirs = [v for t in dataset.batches(["quality.bert"]) for v in t[0].to_pylist()]
    pairs = [(a, b) for a, b in zip(mine, theirs, strict=True) if a is not None]
    assert np.corrcoef(np.array(pairs).T)[0, 1] > 0.8


def test_a_wrong_folder_or_label_is_refused(tmp_path):
    from jobs import import_classifier
    from jobs.runtime.context import Context
    from pipelines.datasets.store import MemoryStore

    ctx = Context(store=MemoryStore(), engine="process")
    with pytest.raises(InputError, match=r"config\.json"):
        import_classifier.run(import_classifier.Config(folder=str(tmp_path)), ctx)
    texts, labels = labelled(20, 1)
    train_classifier(tmp_path / "m", texts, labels, GOOD + BAD, steps=1)
    for wrong in ({"label": "ugly"}, {"low": 0.0}, {"low": 0.0, "high": 5.0}):
        with pytest.raises(GristmillError):
            import_classifier.run(import_classifier.Config(folder=str(tmp_path / "m"), **wrong), ctx)


def test_batches_are_of_like_length_and_bounded():
    from pipelines.quality.classifier import Judgement, length_batches

    lengths = np.array([5, 100, 7, 3, 90, 600])
    batches = [b.tolist() for b in length_batches(lengths, 200)]
    assert sorted(n for b in batches for n in b) == list(range(6))
    assert all(len(b) == 1 or len(b) * lengths[b].max() <= 200 for b in batches)
    assert Judgement(low=0.0, high=5.0).scores(np.array([[2.5], [9.0]])).tolist() == [0.5, 1.0]
    assert Judgement(label=1).scores(np.array([[0.0, 0.0]])).tolist() == [0.5]
    assert Judgement().scores(np.array([[0.0]])).tolist() == [0.5]
    assert pa is not None
