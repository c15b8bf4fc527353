"""Encode the corpus and write token shards: an external shuffle by (cell, hash of the id), done once.

First each corpus part is encoded to a spill file, sorted by cell and hash, with its tokens counted by leading bits of
the hash; the counts cut each cell into shards of equal size; then each shard gathers its range of hashes from the
spills. What a version of the corpus brought (a generation) has its own shards, so an
appended crawl adds shards and touches no old one. The books: documents = placed + rejected + failed, tokens
in = out + cut.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.runtime.config import content_config, setting, stage_id
from jobs.runtime.context import Context
from jobs.runtime.cost import Plan, Request
from jobs.runtime.done import read_done
from jobs.runtime.entry import job_main
from jobs.runtime.lease import lease
from jobs.runtime.run import run_stage
from jobs.runtime.stage import FileOut, Output, Parent, Stage, Unit, UnitResult, hash_unit, unit_table
from jobs.runtime.units import do_units
from pipelines.datasets import Dataset, open_dataset
from pipelines.datasets.books import Equation, total_counters
from pipelines.datasets.manifest import Manifest, first_sha256, latest_manifest, read_part_list
from pipelines.datasets.names import work_prefix
from pipelines.datasets.parts import read_parquet, sorted_rows
from pipelines.datasets.schemas import LEDGER
from pipelines.datasets.store import Store
from pipelines.errors import ConfigError, InputError, IntegrityError
from pipelines.tokens.lineage import extends

ENGINE = "ray"
VERSION = 2
_ENCODERS = ("fast", "reference", "tokenizers")
_COMPARED_ONE_IN = 1024  # documents, with what SentencePiece gives
_COLUMNS = ["id", "language", "source", "source_type", "domain"]
_LEDGER_COLUMNS = ["id", "url", "file", "offset", "length"]
_BOOKS = {
    "documents": Equation(total="documents", terms=("placed", "rejected", "failed")),
    "tokens": Equation(total="in", terms=("out", "cut")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of tokenize_documents."""

    corpus: str = setting("corpus", "dataset to read", content=False)
    tokenizer: str = setting("tokenizer", "artifact of train_tokenizer", content=False)
    quality: str = setting("quality", "annotations with quality.fasttext for the cells; empty: none are used")
    output: str = setting("tokens", "dataset of token shards to write", content=False)
    quality_edges: tuple[float, ...] = setting((0.5,), "scores at which a quality bucket begins")
    cells: tuple[str, ...] = setting(
        ("language", "source_type", "quality"), "columns that a mixture can weigh by; also source, domain"
    )
    cell_domains: tuple[str, ...] = setting((), "with domain in cells: those that are told apart, the rest is `other`")
    shard_tokens: int = setting(32 << 20, "tokens in a shard; a cell's shards are about equal")
    pack_tokens: int = setting(0, "sequence length to pack documents for, so that few are cut; 0: no packing")
    bos: bool = setting(False, "begin each document with BOS")
    max_document_tokens: int = setting(0, "tokens after which a document is cut; 0 for no bound")
    seed: int = setting(0, "of the hash that places documents")
    encoder: str = setting("fast", "fast, reference (SentencePiece) or tokenizers; the same ids", content=False)

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def __post_init__(self) -> None:
        """Refuse shards of nothing."""
        from pipelines.tokens.cells import check_columns, check_edges

        check_edges(self.quality_edges)
        check_columns(self.cells, self.cell_domains)
        if self.shard_tokens < 1:
            raise ConfigError(f"shard_tokens is {self.shard_tokens}; expected 1 or more")
        if self.pack_tokens and not 16 <= self.pack_tokens <= self.shard_tokens:
            raise ConfigError(f"pack_tokens is {self.pack_tokens}; expected 0, or 16 to {self.shard_tokens}, a shard")
        if self.encoder not in _ENCODERS:
            raise ConfigError(f"encoder is {self.encoder!r}; expected one of {', '.join(_ENCODERS)}")


def run(config: Config, context: Context) -> list[Manifest]:
    """Encode what is new, gather its shards, commit them with the old ones."""
    corpus = context.open(config.corpus)
    tokenizer = context.open(f"artifacts/{config.tokenizer}")
    quality = context.open(config.quality) if config.quality else None
    hashes = {"tokenizer": tokenizer.manifest.stats["model_hash"]}
    if quality is not None:
        hashes["quality"] = quality.manifest.stage_id
    stage = Stage(
        job="tokenize_documents",
        stage_id=stage_id("tokenize_documents", VERSION, config, hashes),
        outputs=(Output(dataset=config.output, kind="tokens"),),
        worker="jobs.tokenize_documents:open_sharder",
        worker_config=_worker_config(config, tokenizer),
        equations=_BOOKS,
        config=content_config(config),
        artifacts=({"name": tokenizer.name, "sha256": tokenizer.manifest.stats["model_hash"]},),
    )
    parents = [Parent(manifest=corpus.manifest), Parent(manifest=tokenizer.manifest, role="tokenizer")]
    if quality is not None:
        parents.append(Parent(manifest=quality.manifest, role="quality"))

    base = _base(context.store, stage, corpus)
    covered = base.parents[0]["version"] if base else 0
    old = _old_units(context.store, base)
    fresh = _encode_units(corpus, quality, covered)
    stats = _stats(base, tokenizer, config)
    if not fresh:
        return list(run_stage(context, stage, old, parents=parents, stats=stats).values())
    prefix = f"{work_prefix(config.output, stage.stage_id)}/spill-{hash_unit(sorted(u.id for u in fresh))[:16]}"
    with lease(context.store, prefix, say=context.progress.say):
        units = _spill(context, stage, prefix, fresh, config, stats)
        rows = pa.concat_tables([old, unit_table(units)])
        _check_placed(context, stage, rows, units, prefix)
        made = run_stage(context, stage, rows, parents=parents, stats=stats)
    if config.pack_tokens:
        context.progress.say(_packed(made[config.output]))
    for stored in list(context.store.list(f"{prefix}/")):
        context.store.delete(stored.key)
    return list(made.values())


def _packed(manifest: Manifest) -> str:
    """What packing was worth, for a person."""
    stats, documents = manifest.stats, max(1, manifest.books["documents"]["placed"])
    return (
        f"packed for {stats['pack_tokens']} tokens: {stats['documents_cut'] / documents:.2%} of the documents are cut, "
        f"{stats['documents_cut_unpacked'] / documents:.2%} without packing; padding "
        f"{stats['padding'] / max(1, stats['tokens']):.2%} of the tokens"
    )


def plan(config: Config, context: Context, request: Request) -> Plan:
    """What tokenizing the whole corpus will cost, from slices of it."""
    from jobs.tokenize_plan import plan_tokens, score_parts

    corpus = context.open(config.corpus)
    quality = context.open(config.quality) if config.quality else None
    worker_config = _worker_config(config, context.open(f"artifacts/{config.tokenizer}"))
    return plan_tokens(
        corpus, score_parts(quality), open_encoder, open_sharder, worker_config, config.shard_tokens, request
    )


def _worker_config(config: Config, tokenizer: Dataset) -> dict[str, Any]:
    return {
        "tokenizer": tokenizer.name,
        "version": tokenizer.manifest.version,
        "output": config.output,
        "edges": list(config.quality_edges),
        "cells": list(config.cells),
        "cell_domains": list(config.cell_domains),
        "encoder": config.encoder,
        "rules": {"bos": config.bos, "max_document_tokens": config.max_document_tokens},
        "seed": config.seed,
        "pack_tokens": config.pack_tokens,
    }


def _base(store: Store, stage: Stage, corpus: Dataset) -> Manifest | None:
    """The latest version, where this stage made it of a version of the corpus that ours extends."""
    latest = latest_manifest(store, stage.home)
    if latest is None or latest.stage_id != stage.stage_id:
        return None
    return latest if extends(store, corpus.manifest, latest.parents[0]) else None


def _old_units(store: Store, base: Manifest | None) -> pa.Table:
    """Units of the base version, to be taken over as they are."""
    if base is None:
        return unit_table([])
    rows = read_part_list(store, base)
    names = rows.select(["unit", "input"]).group_by(["unit", "input"], use_threads=False).aggregate([])
    return unit_table(
        Unit(id=row["unit"], input=row["input"]) for row in sorted_rows(names, [("input", "ascending")]).to_pylist()
    )


def _encode_units(corpus: Dataset, quality: Dataset | None, covered: int) -> list[Unit]:
    """A unit a corpus part of the generations after `covered`."""
    parts = [row for row in corpus.parts().to_pylist() if row["generation"] > covered]
    scores = {row["input"]: row for row in quality.parts().to_pylist()} if quality else {}
    missing = [row["input"] for row in parts if quality and row["input"] not in scores]
    if quality and missing:
        raise InputError(
            f"{quality.name} v{quality.manifest.version} has no scores for {len(missing)} parts, first {missing[0]}",
            mend="run score_quality again, or --set quality= for cells without quality",
        )
    return [
        Unit(
            id=hash_unit("encode", first_sha256(row), row["unit"]),
            input=row["input"],
            size_bytes=row["bytes"],
            spec={
                "part": row["key"],
                "generation": row["generation"],
                "rows": row["rows"],
                "scores": scores[row["input"]]["key"] if quality else None,
            },
        )
        for row in parts
    ]


def _spill(
    context: Context, stage: Stage, prefix: str, fresh: list[Unit], config: Config, stats: dict[str, Any]
) -> list[Unit]:
    """Encode every fresh part; the units that the shards and the books are then made of. Adds to `stats`."""
    from pipelines.tokens.cells import shard_count, shard_ranges
    from pipelines.tokens.totals import DomainTotals, bucket_totals

    encode = Stage(
        job="tokenize_documents: encode",
        stage_id=stage.stage_id,
        outputs=stage.outputs,
        worker="jobs.tokenize_documents:open_encoder",
        worker_config={**stage.worker_config, "prefix": prefix},
    )
    done = do_units(context, encode, unit_table(fresh), f"{prefix}/encode")
    units: list[Unit] = []
    for generation in sorted({unit.spec["generation"] for unit in fresh}):
        group = [unit for unit in fresh if unit.spec["generation"] == generation]
        ids = [unit.id for unit in group]
        together = hash_unit(sorted(ids))
        totals = total_counters(done.filter(pc.is_in(done["unit"], pa.array(ids)))["counters"])
        listing = _put_listing(context.store, prefix, group)
        for unit in group:
            spec = {"prefix": prefix, "encoded": unit.id}
            units.append(Unit(id=hash_unit("books", unit.id), input=unit.input, spec=spec))
        cells = _by_key(totals, "cells")
        buckets = bucket_totals(context.store.get(_sizes_key(prefix, unit.id)) for unit in group)
        domains = DomainTotals(stats["by_domain_top100"])
        for unit in sorted(group, key=lambda unit: unit.id):
            domains.add(context.store.get(_domains_key(prefix, unit.id)))
        stats["by_domain_top100"] = domains.top(100)
        for name in ("by_language", "by_source", "by_quality"):
            for key, tokens in _by_key(totals, name).items():
                stats[name][key] = stats[name].get(key, 0) + tokens
        for cell, tokens in sorted(cells.items()):
            count = shard_count(tokens, config.shard_tokens)
            known = stats["cells"].setdefault(cell, {"tokens": 0, "documents": 0, "shards": 0})
            known["tokens"] += tokens
            known["documents"] += totals[f"documents.{cell}"][0]
            ranges = shard_ranges(*buckets[cell], count)
            for i, (first, last) in enumerate(ranges):
                spec = {"cell": cell, "first": str(first), "last": str(last), "listing": listing}
                name = f"{cell} g{generation:06d} {i + 1:05d}-of-{count:05d}"
                shard = hash_unit("shard", cell, i, count, generation, together)
                units.append(Unit(id=shard, input=name, size_bytes=tokens // count, spec=spec))
            known["shards"] += len(ranges)
    return units


def _by_key(totals: dict[str, tuple[int, int]], name: str) -> dict[str, int]:
    prefix = f"{name}."
    return {key.removeprefix(prefix): n for key, (n, _) in totals.items() if key.startswith(prefix)}


def _put_listing(store: Store, prefix: str, group: list[Unit]) -> str:
    """The spills of a generation, as (spill, corpus part), for the workers that gather shards."""
    key = f"{prefix}/listing-{hash_unit(sorted(unit.id for unit in group))}.json"
    spills = [[_spill_key(prefix, unit.id), unit.spec["part"]] for unit in group]
    store.put(key, json.dumps(sorted(spills)).encode())
    return key


def _spill_key(prefix: str, unit: str) -> str:
    return f"{prefix}/spill/{unit}"


def _check_placed(context: Context, stage: Stage, rows: pa.Table, units: list[Unit], prefix: str) -> None:
    """Gather the shards and prove, before the commit, that they hold exactly the documents that were encoded."""
    work = work_prefix(stage.home, stage.stage_id)
    fresh = rows.filter(pc.is_in(rows["unit"], pa.array([unit.id for unit in units])))
    done = do_units(context, stage, fresh, work)
    made = total_counters(done.filter(pc.is_in(done["unit"], fresh["unit"].combine_chunks()))["counters"])
    encoded = total_counters(read_done(context.store, f"{prefix}/encode")["counters"])
    for name in ("documents.documents", "tokens.in"):
        if made.get(name, (0, 0)) != encoded.get(name, (0, 0)):
            raise IntegrityError(
                f"{stage.job}: {name} is {encoded.get(name, (0, 0))[0]} when encoded and "
                f"{made.get(name, (0, 0))[0]} in the shards, or the same number of other documents",
                mend="nothing was committed; this is a fault of the job, please report it with this line",
            )


def _stats(base: Manifest | None, tokenizer: Dataset, config: Config) -> dict[str, Any]:
    """The manifest's statistics, to begin with those of the base version."""
    from pipelines.tokens.tokenizer import shard_dtype

    made = tokenizer.manifest.stats
    before = base.stats if base else {}
    return {
        "cells": {cell: dict(numbers) for cell, numbers in before.get("cells", {}).items()},
        "by_language": dict(before.get("by_language", {})),
        "by_source": dict(before.get("by_source", {})),
        "by_quality": dict(before.get("by_quality", {})),
        "by_domain_top100": dict(before.get("by_domain_top100", {})),
        "pack_tokens": config.pack_tokens,
        "dtype": shard_dtype(made["vocab_size"]).name,
        "bos": config.bos,
        "tokenizer": {
            "name": tokenizer.name,
            "version": tokenizer.manifest.version,
            "manifest_sha256": tokenizer.manifest.sha256,
            **{name: made[name] for name in ("vocab_size", "eos_id", "bos_id", "pad_id", "filler_id", "model_hash")},
        },
    }


def open_encoder(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """Encode one corpus part to its spill file, its counts, and the ledger rows of what has no text."""
    from pipelines.tokens.cells import cell_column, id_hashes, named_domains, plain_name, quality_buckets, quality_names
    from pipelines.tokens.encode import Encoder, EncodeRules, check_sample
    from pipelines.tokens.spill import put_spill, spill_of
    from pipelines.tokens.tokenizer import Tokenizer
    from pipelines.tokens.totals import encode_buckets, encode_domains, tokens_by

    artifact = open_dataset(store, worker_config["tokenizer"], worker_config["version"])
    exported = artifact.read_file("tokenizer.json") if worker_config["encoder"] == "tokenizers" else b""
    model = Tokenizer(artifact.read_file("tokenizer.model"))
    encoder = Encoder(model, engine=worker_config["encoder"], exported=exported)
    rules, prefix = EncodeRules(**worker_config["rules"]), worker_config["prefix"]

    def encode(unit: Unit) -> UnitResult:
        body = store.get(unit.spec["part"])
        documents = read_parquet(body, ["text", *_COLUMNS])
        column = {name: documents[name].combine_chunks() for name in _COLUMNS}
        ids, buckets = column["id"], np.full(documents.num_rows, -1)
        if unit.spec["scores"]:
            scored = read_parquet(store.get(unit.spec["scores"]), ["id", "quality.fasttext"])
            scores = scored["quality.fasttext"].take(pc.index_in(ids, scored["id"].combine_chunks()))
            buckets = quality_buckets(scores, worker_config["edges"])
        column["quality"] = quality_names(buckets)
        told_apart = named_domains(column["domain"], worker_config["cell_domains"])
        cells = cell_column([told_apart if name == "domain" else column[name] for name in worker_config["cells"]])
        encoded = encoder.encode(documents["text"], rules)
        hashes = id_hashes(ids, worker_config["seed"])
        picked = np.flatnonzero(hashes[encoded.rows] % _COMPARED_ONE_IN == 0)
        compared = check_sample(encoder, documents["text"], ids, encoded, picked)
        put_spill(store, _spill_key(prefix, unit.id), spill_of(encoded, cells, hashes, ids))
        store.put(_sizes_key(prefix, unit.id), encode_buckets(encoded, cells, hashes))
        store.put(_domains_key(prefix, unit.id), encode_domains(encoded, column["domain"], column["language"]))

        is_empty = np.ones(documents.num_rows, bool)
        is_empty[encoded.rows] = False
        empty = read_parquet(body, _LEDGER_COLUMNS).filter(pa.array(is_empty)) if is_empty.any() else None
        cut = int(encoded.tokens_cut.sum())
        store.put(_books_key(prefix, unit.id), _encode_books(_rejected(empty), cut))

        result = UnitResult(stats={"compared": compared, "by_reference": encoded.by_reference})
        count = result.counters
        count.add("documents.documents", _keys(ids.to_pylist()))
        count.add_count("tokens.in", int(encoded.lengths.sum()) + cut)
        for name, (tokens, placed) in tokens_by(encoded, cells).items():
            count.add_count(f"cells.{name}", tokens)
            count.add_count(f"documents.{name}", placed)
        for name in ("language", "source", "quality"):
            for value, (tokens, _) in tokens_by(encoded, column[name]).items():
                count.add_count(f"by_{name}.{plain_name(value)}", tokens)
        return result

    return encode


def _sizes_key(prefix: str, unit: str) -> str:
    return f"{prefix}/spill/{unit}.sizes.parquet"


def _domains_key(prefix: str, unit: str) -> str:
    return f"{prefix}/spill/{unit}.domains.parquet"


def _books_key(prefix: str, unit: str) -> str:
    return f"{prefix}/spill/{unit}.books.parquet"


def _keys(ids: Iterable[str | None]) -> list[bytes]:
    return [(document or "").encode() for document in ids]


def _rejected(empty: pa.Table | None) -> pa.Table:
    rows = [
        {**row, "stage": "tokenize_documents", "verdict": "rejected", "reason": "no_tokens"}
        for row in (empty.to_pylist() if empty is not None else ())
    ]
    return pa.Table.from_pylist(rows, schema=LEDGER)


def _encode_books(rejected: pa.Table, cut: int) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(rejected.replace_schema_metadata({"tokens_cut": str(cut)}), sink)
    return sink.getvalue().to_pybytes()


def open_sharder(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """Gather one shard from the spills, or book what a part had that no shard holds."""
    from pipelines.tokens.spill import gather_shard
    from pipelines.tokens.tokenizer import shard_dtype

    artifact = open_dataset(store, worker_config["tokenizer"], worker_config["version"])
    dtype, output = shard_dtype(artifact.manifest.stats["vocab_size"]), worker_config["output"]

    def book(unit: Unit) -> UnitResult:
        body = store.get(_books_key(unit.spec["prefix"], unit.spec["encoded"]))
        rejected = read_parquet(body)
        cut = int(rejected.schema.metadata[b"tokens_cut"])
        result = UnitResult(ledger=rejected.replace_schema_metadata(None))
        domains = store.get(_domains_key(unit.spec["prefix"], unit.spec["encoded"]))
        rows = pq.ParquetFile(pa.BufferReader(domains)).metadata.num_rows
        if rows:
            suffix = ".domains.parquet"
            result.files.append(FileOut(dataset=output, role="domains", suffix=suffix, body=domains, rows=rows))
        for account in ("documents.documents", "documents.rejected.no_tokens"):
            result.counters.add(account, _keys(rejected["id"].to_pylist()))
        result.counters.add_count("tokens.in", cut)
        result.counters.add_count("tokens.cut", cut)
        return result

    def gather(unit: Unit) -> UnitResult:
        spec, result = unit.spec, UnitResult()
        spills = [tuple(pair) for pair in json.loads(store.get(spec["listing"]))]
        bounds, packed = (int(spec["first"]), int(spec["last"])), worker_config["pack_tokens"]
        found = gather_shard(store, iter(spills), spec["cell"], *bounds, dtype, row_tokens=packed)
        if found is None:
            return result
        shard, tokens, rows = found.shard, found.tokens + found.padding, len(found.ids)
        files = {"shard": (".bin", shard.tokens), "idx": (".idx", shard.index)}
        files |= {"docs": (".docs.parquet", shard.docs), "crc": (".crc", shard.checksums)}
        result.files = [
            FileOut(dataset=output, role=role, suffix=suffix, body=body, rows=rows, cell=spec["cell"], tokens=tokens)
            for role, (suffix, body) in files.items()
        ]
        keys = _keys(found.ids.to_pylist())
        result.counters.add("documents.documents", keys)
        result.counters.add("documents.placed", keys)
        result.counters.add_count("tokens.in", found.tokens)
        result.counters.add_count("tokens.out", found.tokens)
        result.stats = {"tokens": tokens, "documents": rows}
        if packed:
            result.stats |= {"padding": found.padding, "documents_cut": found.cut}
            result.stats["documents_cut_unpacked"] = found.cut_unpacked
        return result

    return lambda unit: gather(unit) if "cell" in unit.spec else book(unit)


if __name__ == "__main__":
    job_main("tokenize_documents")
