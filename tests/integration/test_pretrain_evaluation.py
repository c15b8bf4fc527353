"""From real token shards through a short training to the evaluation: the formats of both rooms meet here."""

from __future__ import annotations

import json
import random

import pyarrow as pa
import pytest

pytest.importorskip("torch")
pytest.importorskip("deepspeed")


from jobs import evaluate_model, pretrain, tokenize_documents, train_tokenizer
from jobs.pretrain_begin import choose_run, plan_of
from jobs.runtime.context import Context
from pipelines.datasets import Dataset, open_dataset
from pipelines.datasets.dataset import read_parquet
from pipelines.datasets.store import open_store
from pipelines.errors import InputError
from pipelines.tokens.tokenizer import EOS_ID, Tokenizer
from tests.made_documents import commit_documents, join, prose
from tests.unit.training.ranks import run_ranks
from tests.unit.training.training_tasks import train_runs
from training.data.stream import RowSource
from training.loop import LoopSettings
from training.run_log import RunLog

pytestmark = pytest.mark.torch

CONFIG = pretrain.Config(steps=12, sequence_length=64, rows_per_batch=4, peak_rate=5e-3)


def documents(seed: int, count: int) -> list[dict[str, str]]:
    rng = random.Random(seed)
    rows = [
        {"text": join(prose(rng, language, rng.randrange(20, 120)))} for _ in range(count) for language in ("zh", "en")
    ]
    return [*rows, {"text": ""}]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    """A store with corpus, heldout, tokenizer, token shards and a finished run of one rank."""
    folder = str(tmp_path_factory.mktemp("evaluation"))
    context = Context(store=open_store(folder), engine="process")
    commit_documents(context, {"a": documents(1, 40), "b": documents(2, 30)}, name="corpus")
    commit_documents(context, {"a": documents(3, 5)}, name="heldout")
    train_tokenizer.run(train_tokenizer.Config(vocab_size=1600, character_coverage=1.0), context)
    tokenize_documents.run(tokenize_documents.Config(quality=None, shard_tokens=6000), context)
    plan, recipe = plan_of(CONFIG, context)
    RunLog(context.store, "tiny").write_plan(plan, recipe)
    run_ranks(train_runs, 1, [(folder, "tiny", LoopSettings(checkpoint_every_steps=6), None)])
    return folder


def test_one_lap_of_the_rows_is_every_token_of_every_document(root):
    store = open_store(root)
    tokens, corpus = open_dataset(store, "tokens"), open_dataset(store, "corpus")
    tokenizer = Tokenizer(open_dataset(store, "artifacts/tokenizer").read_file("tokenizer.model"))
    expected = sorted(tuple(tokenizer.encode(text)) for text in corpus.to_arrow(["text"])["text"].to_pylist() if text)
    found: list[tuple[int, ...]] = []
    dtype = tokens.manifest.stats["dtype"]
    import numpy as np

    for row in tokens.parts("shard").to_pylist():
        run: list[int] = []
        for token in np.frombuffer(store.get(row["key"]), dtype).tolist():
            if token == EOS_ID:
                found.append(tuple(run))
                run = []
            else:
                run.append(token)
        assert not run, "a shard ends with EOS"
    assert sorted(found) == expected

    source = RowSource(store, RunLog(store, "tiny").state.plan)
    trained = {token for p in range(48) for token in source.row(p).ids.tolist()}
    assert trained <= {token for document in expected for token in document} | {EOS_ID}


def test_the_way_back_names_the_document_of_a_trained_token(root):
    store = open_store(root)
    source = RowSource(store, RunLog(store, "tiny").state.plan)
    where = source.order.row(17).spans[0]
    pin = source.plan.segments[0].datasets[where.dataset]
    shard = source.shards.shards(pin, where.cell)[where.shard]
    tokens = open_dataset(store, "tokens")
    [docs_key] = [r["key"] for r in tokens.parts("docs").to_pylist() if r["unit"] == shard.unit]
    docs = read_parquet(store.get(docs_key)).to_pylist()
    document = max((d for d in docs if d["first_token"] <= where.first), key=lambda d: d["first_token"])
    corpus = open_dataset(store, "corpus").to_arrow(["id", "text"]).to_pylist()
    [text] = [row["text"] for row in corpus if row["id"] == document["id"]]
    tokenizer = Tokenizer(open_dataset(store, "artifacts/tokenizer").read_file("tokenizer.model"))
    ids = tokenizer.encode(text)[where.first - document["first_token"] :]
    assert source.row(17).ids.tolist()[: min(len(ids), where.tokens)] == ids[: where.tokens]
    places = list(source.order.seen_at(where.cell, where.shard, where.first))
    assert (17, 0) in places


def test_the_command_names_the_documents_of_a_step_and_exports_a_checkpoint(root, tmp_path):
    from click.testing import CliRunner

    from cluster.cli import explain, runs
    from training.checkpoint.reader import CheckpointReader
    from training.checkpoint.saved import load_decoder
    from training.model.decoder import Decoder
    from training.model.llama import load_llama

    def call(command, *arguments: str) -> str:
        done = CliRunner().invoke(command, [*arguments, "--root", root], catch_exceptions=False)
        assert done.exit_code == 0
        return done.output

    shown = json.loads(call(explain.command, "tiny@3:1", "--json"))["rows"][0]
    rows = open_dataset(open_store(root), "corpus").to_arrow(["id", "url"]).to_pylist()
    corpus = {row["id"]: row["url"] for row in rows}
    assert shown["documents"]
    for document in shown["documents"]:
        assert corpus[document["id"]] == document["url"]
        assert 3 in json.loads(call(explain.command, document["id"], "--json"))["runs"][0]["steps"]
    call(runs.command, "export", "tiny", str(tmp_path / "hf"), "--dtype", "float32")
    assert (tmp_path / "hf" / "tokenizer.model").is_file()
    entry = RunLog(open_store(root), "tiny").state.checkpoint
    model = load_decoder(CheckpointReader(open_store(root), entry["key"], entry["sha256"]))
    again = load_llama(Decoder(model.config), tmp_path / "hf")
    assert all((one == two).all() for one, two in zip(model.parameters(), again.parameters(), strict=True))


def test_the_evaluation_scores_each_heldout_document_whole_by_language_and_source(root):
    context = Context(store=open_store(root))
    [manifest] = evaluate_model.run(evaluate_model.Config(new_tokens=8), context)
    report = json.loads(Dataset(context.store, manifest).read_file("evaluation.json"))
    domains = {row["name"]: row for row in report["domains"]}
    assert set(domains) == {"language en", "language zh", "source made"}
    tokenizer = Tokenizer(open_dataset(context.store, "artifacts/tokenizer").read_file("tokenizer.model"))
    texts = [t for t in open_dataset(context.store, "heldout").to_arrow(["text"])["text"].to_pylist() if t]
    assert report["all"]["tokens"] == sum(len(tokenizer.encode(text)) - 1 for text in texts)
    assert report["all"]["tokens"] == domains["language en"]["tokens"] + domains["language zh"]["tokens"]
    assert report["all"]["bytes"] <= sum(len(text.encode()) for text in texts)
    assert 0 < report["all"]["loss"] < 7.6
    assert report["run"]["last_loss"] < report["run"]["first_loss"]
    assert report["run"]["step"] == 12
    assert {sample["language"] for sample in report["samples"]} == {"en", "zh"}

    again = Context(store=open_store(root))
    assert evaluate_model.run(evaluate_model.Config(new_tokens=8), again)[0].version == manifest.version
    assert again.committed == []


def test_a_run_without_a_checkpoint_cannot_be_evaluated(root):
    with pytest.raises(InputError, match="run 'other' has no checkpoint"):
        evaluate_model.run(evaluate_model.Config(run="other"), Context(store=open_store(root)))


def test_an_appended_corpus_means_a_new_run_on_the_grown_tokens(root, tmp_path):
    import shutil

    grown = str(tmp_path / "grown")
    shutil.copytree(root, grown)
    context = Context(store=open_store(grown), engine="process")
    parts = {"a": documents(1, 40), "b": documents(2, 30), "c": documents(4, 10)}
    commit_documents(context, parts, name="corpus")
    tokenize_documents.run(tokenize_documents.Config(quality=None, shard_tokens=6000), context)
    before, now = (open_dataset(context.store, "tokens", v).parts("shard").select(["unit", "tokens"]) for v in (1, 2))
    assert now.num_rows > before.num_rows
    assert pa.Table.equals(now.filter(pa.compute.is_in(now["unit"], before["unit"].combine_chunks())), before)
    plan, recipe = plan_of(CONFIG, context)
    assert choose_run(CONFIG, context, plan, recipe) == "tiny-2"
