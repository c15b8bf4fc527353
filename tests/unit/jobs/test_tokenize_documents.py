import io
import random
import uuid

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jobs import tokenize_documents, train_tokenizer
from jobs.runtime.context import Context
from jobs.runtime.progress import LineProgress
from jobs.score_quality import Config as ScoreConfig
from pipelines.datasets import open_dataset
from pipelines.datasets.store import MemoryStore, open_store
from pipelines.errors import ConfigError, InputError, IntegrityError
from pipelines.tokens.cells import id_hashes
from pipelines.tokens.shards import Shard, damaged_pages, read_documents
from pipelines.tokens.tokenizer import EOS_ID, Tokenizer
from tests.made_documents import commit_documents, join, prose

TRAIN = train_tokenizer.Config(vocab_size=1600, character_coverage=1.0)
SHARD = 6000


def context(store=None):
    return Context(store=store or open_store(f"memory://{uuid.uuid4().hex}"), engine="process", flush_seconds=0.0)


def config(**settings):
    return tokenize_documents.Config(**{"quality": "", "shard_tokens": SHARD} | settings)


def corpus(seed=0, count=60, files=4):
    rng = random.Random(seed)
    languages = [("zh", "en")[i % 2] for i in range(count)]
    rows = [{"text": join(prose(rng, x, 60)) + "\n\u2581 tail</s>", "language": x} for x in languages]
    rows += [{"text": ""}, {"text": None}]
    return {f"crawl-{seed}-{file}": rows[file::files] for file in range(files)} | {f"none-{seed}": []}


def prepared(parts):
    ctx = context()
    commit_documents(ctx, parts, "corpus")
    train_tokenizer.run(TRAIN, ctx)
    return ctx


def shards(ctx, version=None):
    """[(cell, Shard)] in stored order."""
    dataset = open_dataset(ctx.store, "tokens", version)
    by_unit = {}
    for row in dataset.part_list.to_pylist():
        if row["role"] in ("shard", "idx", "docs", "crc"):
            by_unit.setdefault(row["unit"], {})[row["role"]] = row
    order = dict.fromkeys(dataset.parts("shard")["unit"].to_pylist())
    return [
        (
            by_unit[unit]["shard"]["cell"],
            Shard(**{
                name: dataset.read_object(by_unit[unit][role])
                for name, role in (("tokens", "shard"), ("index", "idx"), ("docs", "docs"), ("checksums", "crc"))
            }),
        )
        for unit in order
    ]  # fmt: skip


def numbers(manifest):
    """Statistics without the pin of the tokenizer, which holds a time."""
    return {name: value for name, value in manifest.stats.items() if name != "tokenizer"}


def tokenizer(ctx):
    return Tokenizer(open_dataset(ctx.store, "artifacts/tokenizer").read_file("tokenizer.model"))


def test_every_document_is_in_exactly_one_shard_and_decodes_to_its_text():
    ctx = prepared(corpus())
    (made,) = tokenize_documents.run(config(), ctx)
    texts = {row["id"]: row["text"] for row in open_dataset(ctx.store, "corpus").to_arrow().to_pylist()}
    model, found = tokenizer(ctx), {}
    for _, shard in shards(ctx):
        docs = pq.read_table(io.BytesIO(shard.docs)).to_pylist()
        for doc, tokens in zip(docs, read_documents(shard), strict=True):
            assert doc["id"] not in found and len(tokens) == doc["tokens"]
            assert tokens[-1] == EOS_ID and (tokens[:-1] != EOS_ID).all()
            found[doc["id"]] = model.decode(tokens)
            part = open_dataset(ctx.store, "corpus").read_part(doc["part"])
            assert part["id"][doc["row"]].as_py() == doc["id"]
    assert found == {name: text for name, text in texts.items() if text}
    assert made.books["documents"]["placed"] == 60
    assert made.books["documents"]["rejected"] == {"no_tokens": 2}
    assert made.books["documents"]["documents"] == 62


def test_a_shard_is_in_the_order_of_the_hashes_and_shards_tile_them():
    ctx = prepared(corpus(count=200))
    (made,) = tokenize_documents.run(config(), ctx)
    last, cells = {}, {}
    for cell, shard in shards(ctx):
        hashes = id_hashes(pq.read_table(io.BytesIO(shard.docs))["id"], 0)
        assert (np.diff(hashes.astype(object)) > 0).all()
        assert last.get(cell, -1) < hashes[0]
        last[cell] = hashes[-1]
        known = cells.setdefault(cell, {"tokens": 0, "documents": 0, "shards": 0})
        known["tokens"] += len(shard.tokens) // 2
        known["documents"] += len(hashes)
        known["shards"] += 1
        assert damaged_pages(shard.tokens, 0, shard.checksums) == []
    assert made.stats["cells"] == cells and sum(c["shards"] for c in cells.values()) > 3
    assert set(cells) == {"zh.web.qx", "en.web.qx"}
    assert sum(made.stats["by_language"].values()) == made.stats["tokens"] == made.books["tokens"]["out"]
    assert made.stats["dtype"] == "uint16" and made.stats["tokenizer"]["eos_id"] == EOS_ID


def test_the_cut_into_parts_does_not_move_a_token():
    bodies = set()
    for files in (1, 3, 8):
        rows = [row for part in corpus().values() for row in part]
        rows = sorted((row | {"id": f"{i:032x}"} for i, row in enumerate(rows)), key=lambda row: row["id"])
        ctx = prepared({f"p{k}": rows[k::files] for k in range(files)})
        tokenize_documents.run(config(), ctx)
        bodies.add(b"".join(shard.tokens for _, shard in shards(ctx)))
    assert len(bodies) == 1


def test_an_appended_crawl_adds_shards_and_touches_no_old_one():
    ctx = prepared(corpus())
    (early,) = tokenize_documents.run(config(), ctx)
    parts = corpus() | corpus(seed=1, count=20, files=2)
    commit_documents(ctx, parts, "corpus")
    (kept,) = train_tokenizer.run(TRAIN, context(ctx.store))
    assert kept.version == 1
    (late,) = tokenize_documents.run(config(), context(ctx.store))
    assert late.extends["version"] == early.version
    old = open_dataset(ctx.store, "tokens", early.version).part_list
    new = open_dataset(ctx.store, "tokens").part_list
    assert set(old["key"].to_pylist()) < set(new["key"].to_pylist())
    assert late.stats["tokens"] == late.books["tokens"]["out"] == sum(c["tokens"] for c in late.stats["cells"].values())
    assert late.books["documents"]["documents"] == 84
    for cell in late.stats["cells"]:
        order = new.filter(pc.and_(pc.equal(new["cell"], cell), pc.equal(new["role"], "shard")))
        assert order["generation"].to_pylist() == sorted(order["generation"].to_pylist())

    fresh = context()
    commit_documents(fresh, corpus(), "corpus")
    train_tokenizer.run(TRAIN, fresh)
    commit_documents(fresh, parts, "corpus")
    (whole,) = tokenize_documents.run(config(), fresh)
    assert whole.content_sum == late.content_sum and numbers(whole) == numbers(late)


def test_a_corpus_that_does_not_extend_is_encoded_anew():
    ctx = prepared(corpus())
    tokenize_documents.run(config(), ctx)
    parts = corpus()
    parts.pop("crawl-0-0")
    commit_documents(ctx, parts, "corpus")
    (made,) = tokenize_documents.run(config(), context(ctx.store))
    assert made.extends is None
    fresh = context(ctx.store)
    commit_documents(fresh, parts, "corpus")
    assert sum(c["tokens"] for c in made.stats["cells"].values()) == made.books["tokens"]["out"]
    assert made.books["documents"]["documents"] == sum(len(rows) for rows in parts.values())


def test_running_again_writes_nothing():
    ctx = prepared(corpus())
    first = tokenize_documents.run(config(), ctx)
    before = {o.key for o in ctx.store.list("")}
    again = tokenize_documents.run(config(), context(ctx.store))
    assert again[0].sha256 == first[0].sha256
    assert {o.key for o in ctx.store.list("")} == before
    assert not [key for key in before if "/spill" in key]


class Dying(MemoryStore):
    """Fails for good at the n-th write."""

    left = 10**9

    def put(self, key, body, *, create_only=False):
        Dying.left -= 1
        if Dying.left < 0:
            raise KeyboardInterrupt
        return super().put(key, body, create_only=create_only)


def test_killed_at_any_write_it_goes_on_to_the_same_content():
    parts = corpus(count=12, files=2)
    ctx = prepared(parts)
    untouched = [stored.key for stored in ctx.store.list("")]
    small = config(shard_tokens=800)
    (expected,) = tokenize_documents.run(small, ctx)
    killed = 0
    for kill in range(0, 80, 3):
        broken = context()
        for stored in untouched:
            broken.store.put(stored, ctx.store.get(stored))
        broken.store.__class__ = Dying
        Dying.left = kill
        try:
            (finished,) = tokenize_documents.run(small, broken)
        except KeyboardInterrupt:
            killed += 1
            Dying.left = 10**9
            broken.store.__class__ = MemoryStore
            (finished,) = tokenize_documents.run(small, context(broken.store))
        finally:
            Dying.left = 10**9
        assert finished.content_sum == expected.content_sum, kill
        assert numbers(finished) == numbers(expected), kill
    assert killed > 5


def test_cut_tokens_are_in_the_books():
    ctx = prepared(corpus())
    (made,) = tokenize_documents.run(config(max_document_tokens=50, bos=True), ctx)
    books = made.books["tokens"]
    assert books["cut"] > 0 and books["in"] == books["out"] + books["cut"]
    assert books["out"] <= 52 * 60


def test_cells_follow_the_quality_scores():
    ctx = prepared(corpus())
    rows = {row["id"]: i % 2 for i, row in enumerate(open_dataset(ctx.store, "corpus").to_arrow().to_pylist())}
    commit_scores(ctx, rows)
    tokenize_documents.run(config(quality="quality", quality_edges=[0.5]), ctx)
    for cell, shard in shards(ctx):
        for document in pq.read_table(io.BytesIO(shard.docs))["id"].to_pylist():
            assert cell.endswith(f".q{rows[document]}")


def test_cells_may_be_of_sources_and_named_domains():
    parts = corpus()
    for rows in parts.values():
        for i, row in enumerate(rows):
            row["source"], row["domain"] = ("wiki", "crawl")[i % 2], f"site{i % 3}.example"
    ctx = prepared(parts)
    by = {"cells": ("source", "domain"), "cell_domains": ("site1.example",)}
    (made,) = tokenize_documents.run(config(**by), ctx)
    assert set(made.stats["cells"]) == {f"{s}.{d}" for s in ("wiki", "crawl") for d in ("site1-example", "other")}
    tokens = dict.fromkeys(made.stats["by_source"], 0)
    for cell, told in made.stats["cells"].items():
        tokens[cell.partition(".")[0]] += told["tokens"]
    assert tokens == made.stats["by_source"] and made.stats["by_quality"] == {"qx": made.stats["tokens"]}
    with pytest.raises(ConfigError, match="cell_domains"):
        config(cells=("domain",))


def test_scores_that_are_missing_are_an_input_error():
    ctx = prepared(corpus())
    with pytest.raises(InputError):
        tokenize_documents.run(config(quality="quality"), ctx)


def test_senseless_settings_are_refused():
    for settings in ({"shard_tokens": 0}, {"quality_edges": (0.5, 0.1)}, {"encoder": "x"}, {"pack_tokens": 3}):
        with pytest.raises(ConfigError):
            config(**settings)


def commit_scores(ctx, scores):
    """A quality dataset aligned with the corpus, with these scores."""
    from jobs.runtime.run import run_stage
    from jobs.runtime.stage import Output, Stage, part_units
    from jobs.score_quality import SCORES

    stage = Stage(
        job="made_scores",
        stage_id="0" * 32,
        outputs=(Output(dataset=ScoreConfig().output, kind="annotations", schema=SCORES),),
        worker="tests.unit.jobs.test_tokenize_documents:open_scores",
        worker_config={"scores": scores},
    )
    run_stage(ctx, stage, part_units(open_dataset(ctx.store, "corpus").parts()))


def open_scores(worker_config, store):
    import pyarrow as pa

    from jobs.runtime.stage import UnitResult
    from jobs.score_quality import SCORES
    from pipelines.datasets.dataset import read_parquet

    def score(unit):
        ids = read_parquet(store.get(unit.spec["key"]), ["id"])["id"].to_pylist()
        values = [float(worker_config["scores"][name]) for name in ids]
        return UnitResult(parts={"quality": pa.table([ids, values], schema=SCORES)})

    return score


def test_the_three_encoders_give_the_same_shards():
    sums = set()
    for encoder in ("fast", "reference", "tokenizers"):
        ctx = prepared(corpus())
        (made,) = tokenize_documents.run(config(encoder=encoder), ctx)
        sums.add((made.content_sum, made.stage_id))
    assert len(sums) == 1


def test_a_document_with_other_ids_than_sentencepiece_stops_the_job(monkeypatch):
    rng = random.Random(4)  # no text of a risk class: those are the reference's already
    ctx = prepared({"a": [{"text": join(prose(rng, ("zh", "en")[i % 2], 60))} for i in range(40)]})
    monkeypatch.setattr(tokenize_documents, "_COMPARED_ONE_IN", 1)
    tokenize_documents.run(config(output="compared"), ctx)
    plain = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, text: plain(self, text)[:-1])
    with pytest.raises(IntegrityError, match="other ids than SentencePiece"):
        tokenize_documents.run(config(output="spoiled"), ctx)
    assert not list(ctx.store.list("datasets/spoiled/manifests/"))


def test_tokens_that_do_not_give_back_the_text_stop_the_job(monkeypatch):
    ctx = prepared(corpus())
    monkeypatch.setattr(tokenize_documents, "_COMPARED_ONE_IN", 1)
    monkeypatch.setattr(Tokenizer, "decode", lambda self, ids: "x")
    with pytest.raises(IntegrityError, match="give back the text"):
        tokenize_documents.run(config(), ctx)


def test_packed_shards_hold_the_same_documents_and_cut_few(capsys):
    ctx = prepared(corpus(count=120))
    ctx.progress = LineProgress()
    (plain,) = tokenize_documents.run(config(), ctx)
    (made,) = tokenize_documents.run(config(pack_tokens=512, output="packed"), ctx)
    assert made.books["tokens"] == plain.books["tokens"] and made.books["documents"] == plain.books["documents"]
    assert made.stats["tokens"] == made.books["tokens"]["out"] + made.stats["padding"]
    assert made.stats["documents_cut"] < made.stats["documents_cut_unpacked"]
    assert made.stats["pack_tokens"] == 512 and "padding" not in plain.stats
    cut = made.stats["documents_cut_unpacked"] / 120
    assert f"{cut:.2%} without packing" in capsys.readouterr().err


def test_totals_are_told_by_language_source_quality_and_domain():
    ctx = prepared(corpus())
    (made,) = tokenize_documents.run(config(), ctx)
    for name in ("by_language", "by_source", "by_quality", "by_domain_top100"):
        assert sum(made.stats[name].values()) == made.stats["tokens"]
    assert set(made.stats["by_quality"]) == {"qx"} and set(made.stats["by_source"]) == {"made"}
    tables = [open_dataset(ctx.store, "tokens").store.get(key) for key in
              open_dataset(ctx.store, "tokens").parts("domains")["key"].to_pylist()]  # fmt: skip
    whole = {}
    for row in (row for body in tables for row in pq.read_table(io.BytesIO(body)).to_pylist()):
        whole[row["domain"]] = whole.get(row["domain"], 0) + row["tokens"]
    assert whole == made.stats["by_domain_top100"] and len(whole) == 7


def test_shards_are_equal_within_a_document():
    ctx = prepared(corpus(count=300))
    (made,) = tokenize_documents.run(config(shard_tokens=4000), ctx)
    rows = open_dataset(ctx.store, "tokens").parts("shard").select(["cell", "tokens"]).to_pylist()
    longest = 400
    for cell, numbers in made.stats["cells"].items():
        sizes = [row["tokens"] for row in rows if row["cell"] == cell]
        assert len(sizes) == numbers["shards"] > 2 and max(sizes) - min(sizes) < 2 * longest


def test_the_plan_tells_tokens_and_output_before_they_are_made():
    from jobs.runtime.cost import Request

    ctx = prepared(corpus(count=200))
    told = tokenize_documents.plan(config(), ctx, Request(fraction=0.5, cores=1)).figures
    before = {stored.key for stored in ctx.store.list("")}
    (made,) = tokenize_documents.run(config(), ctx)
    assert not [key for key in before if "tokens" in key or "plan" in key]
    assert told["tokens"].value == pytest.approx(made.stats["tokens"], rel=0.25)
    output = sum(open_dataset(ctx.store, "tokens").part_list["bytes"].to_pylist())
    assert told["output"].value == pytest.approx(output, rel=0.5)  # files of a few hundred bytes: headers weigh
    assert told["records"].value == 202 and told["cpu"].value > 0
