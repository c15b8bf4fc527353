import json

import pytest

from jobs import compare_tokenizers, train_tokenizer
from pipelines.datasets import open_dataset
from pipelines.errors import ConfigError, InputError
from tests.made_documents import commit_documents
from tests.unit.jobs.test_train_tokenizer import context, rows


@pytest.fixture
def ctx():
    made = context()
    commit_documents(made, {"a": rows()}, "corpus")
    train_tokenizer.run(train_tokenizer.Config(vocab_size=1400, character_coverage=1.0), made)
    return made


def test_the_report_tells_ours_and_others_by_language_and_domain(ctx, tmp_path):
    artifact = open_dataset(ctx.store, "artifacts/tokenizer")
    others = {}
    for name in ("tokenizer.model", "tokenizer.json"):
        (tmp_path / name).write_bytes(artifact.read_file(name))
        others[name.rpartition(".")[2]] = str(tmp_path / name)
    (made,) = compare_tokenizers.run(compare_tokenizers.Config(others=others, domains=2), ctx)
    report = open_dataset(ctx.store, "artifacts/tokenizer-report")
    told = json.loads(report.read_file("report.json"))["rows"]
    by_group = {}
    for row in told:
        by_group.setdefault(row["group"], []).append({k: v for k, v in row.items() if k != "tokenizer"})
    assert all(a == b == c for a, b, c in by_group.values())  # the same tokenizer in three forms
    assert {"zh/(others)", "en/(others)", "all"} < set(by_group) and len(by_group) == 7
    assert report.read_file("report.svg").startswith(b"<svg") and b"| all | json |" in report.read_file("report.md")
    assert [row["tokenizer"] for row in made.stats["rows"]] == ["tokenizer", "model", "json"]
    assert compare_tokenizers.run(compare_tokenizers.Config(others=others, domains=2), ctx)[0].sha256 == made.sha256


def test_what_cannot_be_compared_is_told(ctx):
    with pytest.raises(InputError):
        compare_tokenizers.run(compare_tokenizers.Config(others={"x": "nowhere.json"}), ctx)
    for settings in ({"sample_bytes": 0}, {"patterns": {"x": "y"}}):
        with pytest.raises(ConfigError):
            compare_tokenizers.Config(**settings)
