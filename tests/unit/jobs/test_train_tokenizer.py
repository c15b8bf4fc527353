import random
import uuid

import pytest

from jobs.runtime.context import Context
from jobs.runtime.progress import LineProgress
from jobs.train_tokenizer import Config, run
from pipelines.datasets import open_dataset
from pipelines.datasets.store import open_store
from pipelines.errors import ConfigError
from pipelines.tokens.tokenizer import Tokenizer
from tests.made_documents import commit_documents, join, prose

SETTINGS = Config(vocab_size=1600, character_coverage=1.0)


def context(store=None):
    return Context(store=store or open_store(f"memory://{uuid.uuid4().hex}"), engine="process")


def rows(seed=0):
    rng = random.Random(seed)
    return [{"id": f"{seed}{i:031x}", "text": join(prose(rng, ("zh", "en")[i % 2], 60))} for i in range(40)]


def test_the_artifact_holds_the_model_and_what_it_learned_from():
    ctx = context()
    commit_documents(ctx, {"a": rows()}, "corpus")
    (made,) = run(SETTINGS, ctx)
    model = Tokenizer(open_dataset(ctx.store, "artifacts/tokenizer").read_file("tokenizer.model"))
    assert model.vocab_size == made.stats["vocab_size"] == 1600
    assert made.stats["sample_documents"] == 40 and made.kind == "tokenizer"
    assert [made.stats[f"{name}_id"] for name in ("pad", "unk", "bos", "eos", "filler")] == [0, 1, 2, 3, 4]


def test_the_cut_into_parts_does_not_matter():
    hashes = set()
    for parts in ({"a": rows()}, {"a": rows()[:7], "b": rows()[7:]}):
        ctx = context()
        commit_documents(ctx, parts, "corpus")
        hashes.add(run(SETTINGS, ctx)[0].stats["model_hash"])
    assert len(hashes) == 1


def test_a_small_budget_takes_a_sample_of_each_language():
    ctx = context()
    commit_documents(ctx, {"a": rows()}, "corpus")
    (made,) = run(Config(vocab_size=1020, character_coverage=1.0, sample_bytes=8000), ctx)
    assert 4000 < made.stats["sample_bytes"] < 14_000
    assert set(made.stats["sample_fractions"]) == {"en/made", "zh/made"}


def test_a_tokenizer_is_kept_when_the_corpus_only_grows():
    ctx = context()
    commit_documents(ctx, {"a": rows()}, "corpus")
    (first,) = run(SETTINGS, ctx)
    commit_documents(ctx, {"a": rows(), "b": rows(1)}, "corpus")
    assert run(SETTINGS, ctx)[0].sha256 == first.sha256
    assert run(Config(vocab_size=1600, character_coverage=1.0, retrain=True), ctx)[0].version == 2
    commit_documents(ctx, {"b": rows(1)}, "corpus")
    assert run(SETTINGS, ctx)[0].version == 3


def test_too_small_a_vocabulary_leaves_nothing_behind():
    ctx = context()
    commit_documents(ctx, {"a": rows()}, "corpus")
    with pytest.raises(ConfigError, match="at least"):
        run(Config(vocab_size=300), ctx)
    assert not list(ctx.store.list("artifacts/"))


def test_senseless_settings_are_refused():
    for settings in ({"character_coverage": 0.5}, {"sample_bytes": 0}, {"reserved": -1}, {"shares": {"zh": 0.0}}):
        with pytest.raises(ConfigError):
            Config(**settings)


def test_the_artifact_is_proven_and_has_the_exported_file():
    ctx = context()
    commit_documents(ctx, {"a": rows()}, "corpus")
    (made,) = run(Config(vocab_size=1600, character_coverage=1.0, reserved=7), ctx)
    proof = made.stats["proof"]
    assert proof["texts"] == 40 and proof["hugging_face_differs"] == 0 and proof["encoder"] == "fast"
    artifact = open_dataset(ctx.store, "artifacts/tokenizer")
    assert b'"<reserved_6>"' in artifact.read_file("tokenizer.json")
    assert Tokenizer(artifact.read_file("tokenizer.model")).pieces()[11] == "<reserved_6>"


def test_a_vocabulary_is_extended_and_what_it_costs_is_told(tmp_path, capsys):
    ctx = context()
    ctx.progress = LineProgress()
    commit_documents(ctx, {"a": rows()}, "corpus")
    run(Config(vocab_size=1400, character_coverage=1.0), ctx)
    path = tmp_path / "base.model"
    path.write_bytes(open_dataset(ctx.store, "artifacts/tokenizer").read_file("tokenizer.model"))
    (made,) = run(Config(vocab_size=1600, character_coverage=1.0, extend=str(path)), ctx)
    told = made.stats["extended"]
    assert told["ids_kept"] and told["pieces_new"] == 200 and made.version == 2
    assert told["tokens_per_character_in_one_go"] <= told["tokens_per_character"] < told["tokens_per_character_base"]
    line = f"{told['tokens_per_character']} tokens a character, {told['tokens_per_character_base']} before"
    assert line in capsys.readouterr().err
    with pytest.raises(ConfigError, match="nothing"):
        run(Config(extend=str(tmp_path / "nothing.model")), ctx)


def test_stated_shares_decide_what_is_read():
    ctx = context()
    commit_documents(ctx, {"a": rows()}, "corpus")
    (made,) = run(Config(vocab_size=1200, character_coverage=0.98, shares={"zh": 1}), ctx)
    assert made.stats["sample_fractions"]["en/made"] == 0.0 < made.stats["sample_fractions"]["zh/made"]
