"""The job against its definition, worked out naively; appended crawls against all at once."""

import itertools
import random

import numpy as np
import pyarrow as pa
import pytest

from jobs import dedup_exchange, dedup_wide
from jobs.dedup_documents import Config, Lsh, run
from pipelines.datasets import aligned_parts, open_dataset
from pipelines.dedup.bands import BandPlan
from pipelines.dedup.normalize import normal_forms
from pipelines.dedup.signature import band_digests
from pipelines.dedup.verify import similarities
from tests.made_documents import commit_documents
from tests.unit.jobs.test_dedup_documents import context

PLAN = {"num_bands": 10, "rows_per_band": 3, "min_similarity": 0.5}


def texts(seed, count):
    """Families of texts at all distances, so that many candidates fail and chains of weak links are common."""
    rng = random.Random(seed)
    families = [[f"w{rng.randrange(400)}" for _ in range(30)] for _ in range(4)]
    made = []
    for _ in range(count):
        words = list(rng.choice(families))
        for _ in range(rng.choice((0, 1, 1, 2, 3, 5))):
            at = rng.randrange(len(words))
            words[at : at + 4] = [f"n{rng.randrange(60)}" for _ in range(rng.choice((3, 4, 5)))]
        made.append(" ".join(words) + "." * rng.randrange(2))
    return made


def rows_of(crawl, listed):
    rng = random.Random(f"urls {crawl}")
    return [
        {"text": text, "id": f"{random.Random(f'{crawl} {i}').getrandbits(128):032x}", "file": f"c{crawl}", "offset": i,
         "date": f"2026-11-0{1 + i % 5}T00:00:00Z", "url": f"https://www.site.example/{rng.randrange(90)}#{i}"}
        for i, text in enumerate(listed)
    ]  # fmt: skip


def commit_all(ctx, crawls, pieces=2):
    """One version a crawl, so that each is a generation."""
    parts = {}
    for number, rows in enumerate(crawls):
        parts |= {f"c{number}-{piece}": rows[piece::pieces] for piece in range(pieces)}
        commit_documents(ctx, parts)
        yield


def verdicts(ctx):
    found = {}
    documents, dedup = open_dataset(ctx.store, "documents"), open_dataset(ctx.store, "dedup")
    for _, theirs in aligned_parts(documents, dedup):
        for row in dedup.read_part(theirs["key"]).to_pylist():
            found[row["id"]] = row
    return found


def definition(crawls, config):  # noqa: C901 - the whole definition at a glance
    """{id: (keep, match, similarity)} by rounds over buckets, each document's fate from the better ones."""
    plan = BandPlan(**PLAN)
    rows = [row | {"generation": g} for g, crawl in enumerate(crawls) for row in crawl]
    if config.survivor == "best":
        rows = [row | {"generation": 0} for row in rows]
    rows.sort(key=lambda r: (r["generation"], -len(r["text"]), r["date"], r["id"]))
    column = pa.array([row["text"] for row in rows])
    addresses = {}
    for i, row in enumerate(rows if config.urls != "off" else []):
        addresses.setdefault(row["url"].partition("#")[0], []).append(i)
    capture = {}
    for found in addresses.values():
        days = {i: int(rows[i]["date"][8:10]) for i in found}
        first = min(found, key=lambda i: (
            rows[i]["generation"], days[i] if config.urls == "first" else -days[i], rows[i]["id"],
        ))  # fmt: skip
        capture |= {i: first for i in found if i != first}
    forms = normal_forms(column).to_pylist()
    original = {}
    for i, form in enumerate(forms):
        if i not in capture:
            original.setdefault(form, i)
    copy = {i: original[form] for i, form in enumerate(forms) if i not in capture and original[form] != i}
    bands, _, counts = band_digests(column, plan)
    buckets = {}
    for i in range(len(rows)):
        if i not in copy and i not in capture and counts[i]:
            for digest in bands[i].tolist():
                buckets.setdefault(digest, []).append(i)
    spent = {digest: set() for digest in buckets}
    linked, compared, removed = {}, set(), set()
    for _ in range(3):
        for digest, members in buckets.items():
            alive = [i for i in members if i not in removed and i not in spent[digest]] if compared else members
            if alive:
                spent[digest].add(alive[0])
                compared |= {(alive[0], i) for i in alive[1:]}
        pairs = sorted(compared - linked.keys())
        left, right = (np.array([pair[k] for pair in pairs], np.int64) for k in (0, 1))
        linked |= dict(zip(pairs, similarities(column, left, right, measure=config.measure).tolist(), strict=True))
        removed = set()
        for i in range(len(rows)):
            if any(j == i and s >= plan.min_similarity and c not in removed for (c, j), s in linked.items()):
                removed.add(i)
    verdict = {}
    for i in range(len(rows)):
        near = [(c, s) for (c, j), s in linked.items() if j == i and s >= plan.min_similarity and c not in removed]
        verdict[i] = (False, *min(near)) if near else (True, None, None)
    for i, first in copy.items():
        verdict[i] = (False, first, 1.0) if verdict[first][0] else verdict[first]
    for i, first in capture.items():
        keep, match, _ = verdict[first]
        verdict[i] = (False, first if keep else match, None)
    return {
        rows[i]["id"]: (keep, None if match is None else rows[match]["id"], None if s is None else round(s, 4))
        for i, (keep, match, s) in verdict.items()
    }


def told(found):
    return {name: (row["dedup.keep"], row["dedup.match"], row["dedup.similarity"]) for name, row in found.items()}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("survivor", "urls", "measure"),
    [
        ("first", "off", "jaccard"),
        ("best", "off", "jaccard"),
        ("first", "latest", "jaccard"),
        ("best", "first", "jaccard"),
        ("first", "off", "containment"),
    ],
)
def test_the_job_does_what_its_definition_says(seed, survivor, urls, measure):
    config = Config(lsh=Lsh(**PLAN), survivor=survivor, urls=urls, measure=measure, pairs_per_unit=7)
    crawls = [rows_of(g, texts(100 * seed + g, 40)) for g in range(2)]
    ctx = context()
    for _ in commit_all(ctx, crawls):
        pass
    _, marked, _ = run(config, ctx)
    expected = definition(crawls, config)
    assert told(verdicts(ctx)) == expected
    if urls == "off" and measure == "jaccard":
        assert marked.stats["pairs"]["by_round"][1] > 0  # or the test says nothing of the second round
    captures = [row for row in verdicts(ctx).values() if row["dedup.state"] == 16]
    assert len(captures) == marked.stats["pairs"]["urls"] and bool(captures) == (urls != "off")
    stays = {row["id"] for row in verdicts(ctx).values() if row["dedup.keep"]}
    assert stays >= {row["dedup.match"] for row in verdicts(ctx).values() if not row["dedup.keep"]}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("scope", "urls"), [("global", "off"), ("generation", "off"), ("global", "latest"), ("generation", "first")]
)
def test_crawls_appended_one_by_one_equal_all_at_once(seed, scope, urls):
    config = Config(lsh=Lsh(**PLAN), scope=scope, urls=urls)
    crawls = [rows_of(g, texts(50 * seed + g, 30)) for g in range(4)]
    stepwise, at_once = context(), context()
    steps = []
    for _ in commit_all(stepwise, crawls):
        run(config, stepwise)
        steps.append(verdicts(stepwise))
    for _ in commit_all(at_once, crawls):
        pass
    run(config, at_once)
    names = ("signatures", "dedup", "dedup_pairs")
    sums = [[open_dataset(c.store, name).manifest.content_sum for name in names] for c in (stepwise, at_once)]
    assert sums[0] == sums[1]
    for before, after in itertools.pairwise(steps):
        assert all(after[name] == row for name, row in before.items())
    if scope == "generation":
        by_name = {row["id"]: g for g, crawl in enumerate(crawls) for row in crawl}
        assert all(m is None or by_name[m] == by_name[name] for name, (_, m, _) in told(steps[-1]).items())


@pytest.mark.parametrize("urls", ["off", "latest"])
@pytest.mark.parametrize("finish", [0, 10**9])
def test_clusters_decided_by_groups_are_those_of_one_task(monkeypatch, urls, finish):
    """Appended crawls, so that earlier links take part; star rounds to their end, or ended by one task."""
    monkeypatch.setattr(dedup_wide, "FINISH_SHARE", finish)
    crawls = [rows_of(g, texts(70 + g, 40)) for g in range(3)]
    found = []
    for links_per_task in (10**6, 7):
        config = Config(lsh=Lsh(**PLAN), urls=urls, links_per_task=links_per_task)
        ctx = context()
        reports = []
        for _ in commit_all(ctx, crawls):
            reports.append(run(config, ctx)[1].stats["pairs"])
        sums = [open_dataset(ctx.store, name).manifest.content_sum for name in ("dedup", "dedup_pairs")]
        found.append((sums, [{k: v for k, v in r.items() if k not in COSTS} for r in reports], verdicts(ctx)))
    assert found[0] == found[1]
    assert reports[-1]["star_rounds"] if finish == 0 else reports[-1]["star_rounds"] == 0
    assert sum(reports[-1]["cluster_sizes"].values()) > 3


COSTS = ("shuffle_bytes", "star_rounds", "read_id", "read_id_earlier")


def test_captures_of_a_url_leave_before_they_are_compared_and_are_traced_to_one_that_stays():
    same, near, other = "a b c d e f g h i j", "a b c d e f g h i k", "one two three four five six seven"
    rows = [
        {"text": same, "url": "http://x.example/a", "date": "2026-01-01T00:00:00Z"},
        {"text": other, "url": "https://www.x.example/a/?utm_source=z", "date": "2026-01-02T00:00:00Z"},
        {"text": near, "url": "http://x.example/b", "date": "2026-01-03T00:00:00Z"},
        {"text": other + " eight", "url": "http://m.x.example/b", "date": "2026-01-01T00:00:00Z"},
        {"text": same, "url": "http://x.example/c", "date": "2026-01-02T00:00:00Z"},
    ]
    rows = [row | {"id": f"{i:032x}"} for i, row in enumerate(rows)]

    def fates(**config):
        ctx = context()
        commit_documents(ctx, {"a": rows})
        _, marked, _ = run(Config(lsh=Lsh(**PLAN), **config), ctx)
        found = verdicts(ctx)
        told = [(f["dedup.match"], f["dedup.similarity"], f["dedup.state"]) for f in (found[r["id"]] for r in rows)]
        return [(m and int(m, 16), s, b) for m, s, b in told], marked.stats["pairs"]["urls"]

    stays = (None, None, 0)
    first, removed = fates(urls="first")
    assert removed == 1 and first == [stays, (0, None, 16), (0, first[2][1], 14), stays, (0, 1.0, 1)]
    assert 0.5 < first[2][1] < 1
    # the mobile capture of /b is the first one: it stays, and what it says is compared, not what /b says
    assert fates(urls="first", mobile_hosts=True) == ([stays, (0, None, 16), (3, None, 16), stays, (0, 1.0, 1)], 2)
    # /a's other capture stays; both others are alike, and the better one is the one of the longest text and first date
    latest, removed = fates(urls="latest", mobile_hosts=True)
    assert removed == 2 and [row[0] for row in latest] == [1, None, 4, 4, None]
    assert [row[2] for row in latest] == [16, 0, 14, 16, 0]
    off, removed = fates()
    assert removed == 0 and not any(bits & 16 for _, _, bits in off)


def test_by_containment_a_page_inside_a_longer_one_leaves_which_by_jaccard_stays():
    words = [f"w{i}" for i in range(60)]
    pages = [" ".join(words), " ".join(words[:45]), " ".join(words[8:50]), "another page " * 9 + " ".join(words[:40])]
    left = {}
    for measure in ("jaccard", "containment"):
        ctx = context()
        commit_documents(ctx, {"a": rows_of(0, pages)})
        lsh = Lsh(num_bands=32, rows_per_band=4, min_similarity=0.9)
        _, marked, _ = run(Config(lsh=lsh, measure=measure), ctx)
        names = [row["id"] for row in rows_of(0, pages)]
        left[measure] = [names.index(name) for name, row in verdicts(ctx).items() if not row["dedup.keep"]]
        for name in left[measure]:
            row = verdicts(ctx)[names[name]]
            assert (row["dedup.match"], row["dedup.similarity"]) == (names[0], 1.0)
        assert "rejected" not in marked.stats["pairs"] or measure == "jaccard"  # an estimate of Jaccard tells nothing
    assert left == {"jaccard": [], "containment": [1, 2]}


def test_an_append_reads_an_earlier_text_only_to_verify_a_new_edge():
    config = Config(lsh=Lsh(num_bands=16, rows_per_band=4, min_similarity=0.7))
    crawls = [rows_of(g, [f"{t} end of {g}" for t in texts(7, 15)] + texts(g, 30)) for g in range(3)]
    ctx = context()
    reads = []
    for _ in commit_all(ctx, crawls):
        stats = run(config, ctx)[1].stats["pairs"]
        reads.append((stats.get("read_text", 0), stats.get("read_text_earlier", 0)))
    assert reads[0][1] == 0
    assert all(0 < old <= 15 * number for number, (_, old) in enumerate(reads) if number)


def test_a_removed_crawl_leaves_what_the_others_would_have_decided():
    config = Config(lsh=Lsh(**PLAN))
    crawls = [rows_of(g, texts(g, 60)) for g in range(3)]
    ctx, alone = context(), context()
    for _ in commit_all(ctx, crawls):
        run(config, ctx)
    fewer = {f"c{g}-{piece}": crawls[g][piece::2] for g in (0, 2) for piece in range(2)}
    made = []
    for target in (ctx, alone):
        commit_documents(target, fewer)
        made.append(run(config, target))
    assert [m.content_sum for m in made[0]] == [m.content_sum for m in made[1]]
    assert told(verdicts(ctx)) == told(verdicts(alone))
    again, anew = (m[1].stats["pairs"] for m in made)
    assert "recalled" not in anew and again["recalled"] > 50
    for name in ("candidates", "by_round", "verified", "too_unlike", "cluster_sizes", "uncompared"):
        assert again[name] == anew[name]
    # what is compared by texts is what was never compared: pairs that only the removed crawl kept apart
    compared = again["candidates"] - again.get("rejected", 0) - again["recalled"]
    assert compared < 0.2 * (anew["candidates"] - anew.get("rejected", 0))
    assert again.get("read_text", 0) < anew["read_text"]


def test_a_best_copy_that_takes_over_reads_no_text_twice():
    config = Config(lsh=Lsh(**PLAN), survivor="best")
    crawls = [rows_of(0, texts(5, 40)), rows_of(1, ["nothing like the others at all " + str(i) for i in range(3)])]
    ctx, alone = context(), context()
    for number, _ in enumerate(commit_all(ctx, crawls)):
        stats = run(config, ctx)[1].stats["pairs"]
        if number == 0:
            first = stats
    for _ in commit_all(alone, crawls):
        pass
    run(config, alone)
    names = ("dedup", "dedup_pairs")
    sums = [[open_dataset(c.store, name).manifest.content_sum for name in names] for c in (ctx, alone)]
    assert sums[0] == sums[1]
    assert stats["recalled"] == first["candidates"] - first["rejected"] and stats.get("read_text_earlier", 0) == 0
    assert stats["read_text"] <= 3


def test_a_capped_bucket_is_reported_and_its_first_documents_are_compared():
    same = "one two three four five six seven eight nine ten"
    rows = rows_of(0, [f"{same} {i}" for i in range(12)])
    ctx = context()
    commit_documents(ctx, {"a": rows})
    _, marked, _ = run(Config(lsh=Lsh(**PLAN), bucket_cap=5), ctx)
    assert 5 < marked.stats["pairs"]["capped_buckets"][0]["documents"] <= 12
    kept = [row["id"] for row in verdicts(ctx).values() if row["dedup.keep"]]
    whole = context()
    commit_documents(whole, {"a": rows})
    run(Config(lsh=Lsh(**PLAN)), whole)
    assert len(kept) > sum(row["dedup.keep"] for row in verdicts(whole).values())


@pytest.mark.parametrize("urls", ["off", "first"])
def test_hot_digests_cut_on_their_way_change_nothing_however_the_parts_are_cut(monkeypatch, urls):
    """A bucket, an exact digest and a URL far above their bounds, in 1, 3 and 10 parts; nothing is cut in the first."""
    same = "one two three four five six seven eight nine ten"
    rows = rows_of(0, [f"{same} {i}" for i in range(25)] + ["copied a b c d e f g h"] * 25 + texts(3, 20))
    for row in rows[50:]:
        row["url"] = "https://site.example/home"
    config = Config(lsh=Lsh(**PLAN), bucket_cap=4, urls=urls)
    told = []
    for pieces in (1, 3, 10):
        ctx = context()
        commit_documents(ctx, {f"p{k}": rows[k::pieces] for k in range(pieces)})
        stats = run(config, ctx)[1].stats["pairs"]
        told.append({name: stats[name] for name in ("capped_buckets", "exact", "urls", "verified", "cluster_sizes")})
        links = open_dataset(ctx.store, "dedup_pairs").to_arrow(["similarity", "round"]).to_pylist()
        told[-1] |= {"verdicts": verdicts(ctx), "links": sorted(links, key=str)}
        monkeypatch.setattr(dedup_exchange, "HOT_IN_PART", 2)
        monkeypatch.setattr(dedup_exchange, "FOLD_BYTES", 200)
    assert told[0] == told[1] == told[2]
    assert told[0]["capped_buckets"][0]["documents"] > 5 and told[0]["exact"] >= 9
    assert (told[0]["urls"] > 15) == (urls != "off")


def test_clusters_have_their_size_and_first_capture():
    ctx = context()
    early, late = ({"text": "a b c d e f g h", "date": f"20{y}-01-01T00:00:00Z"} for y in (20, 26))
    parts = {"a": [late, {"text": "alone and by itself here", "date": "2021-01-01T00:00:30Z"}]}
    commit_documents(ctx, parts)
    run(Config(), ctx)
    commit_documents(ctx, parts | {"b": [early]})
    _, marked, _ = run(Config(), ctx)
    rows = {row["dedup.first_seen"]: row for row in verdicts(ctx).values()}
    assert set(rows) == {"2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z", "2026-01-01T00:00:00Z"}
    assert [row["dedup.cluster_size"] for _, row in sorted(rows.items())] == [2, 1, 1]
    assert marked.stats["pairs"]["better_not_taken"] == 1
