from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.submit import ray_jobs, submission
from cluster.submit.target import Target, find_target
from jobs.runtime.package import Package, build_package
from pipelines.datasets.chain import Chain
from pipelines.datasets.store import Store, open_store
from pipelines.errors import ConfigError, IntegrityError, SetupError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "root"))


@pytest.fixture
def code(tmp_path: Path) -> Package:
    for package in ("cluster", "jobs", "pipelines", "training"):
        (tmp_path / "src" / package).mkdir(parents=True)
        (tmp_path / "src" / package / "__init__.py").write_text("")
    return build_package(tmp_path / "zip", root=tmp_path / "src")


def kept(store: Store, code: Package, **changes: object) -> submission.Submission:
    fields = {
        "run": "tiny", "job": "pretrain", "arguments": ("--root", "/r", "--set", "steps=3"),
        "environment": {"OMP_NUM_THREADS": "1"}, "code": code, "cluster": "local",
    }  # fmt: skip
    return submission.record(store, **fields | changes)  # type: ignore[arg-type]


def test_a_submission_is_kept_with_its_code_and_read_back(store: Store, code: Package, tmp_path: Path) -> None:
    first = kept(store, code)
    assert first.submission_id == "tiny-1"
    assert submission.latest(store, "tiny") == first
    assert submission.fetch_code(store, first, tmp_path / "again").path.read_bytes() == code.path.read_bytes()


def test_posting_again_takes_the_next_attempt_and_changes_nothing_else(store: Store, code: Package) -> None:
    first = kept(store, code)
    again = submission.record_again(store, first, cluster="big")
    assert (again.submission_id, again.cluster) == ("tiny-2", "big")
    assert (again.arguments, again.environment, again.code_sha256) == (
        first.arguments,
        first.environment,
        first.code_sha256,
    )
    assert submission.latest(store, "tiny") == again


def test_code_that_was_changed_in_the_store_is_refused(store: Store, code: Package, tmp_path: Path) -> None:
    first = kept(store, code)
    store.put(first.code_key, b"other")
    with pytest.raises(IntegrityError):
        submission.fetch_code(store, first, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"environment": {"AWS_SECRET_ACCESS_KEY": "x"}},
        {"environment": {"AWS_ENDPOINT_URL": "https://user:password@host"}},
        {"arguments": ("--set", "store.secret=x")},
        {"arguments": ("--root", "s3://key:secret@bucket/x")},
    ],
)
def test_a_secret_never_travels(store: Store, code: Package, changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="secret"):
        kept(store, code, **changes)
    assert list(store.list("")) == []


def test_only_variables_that_name_places_travel() -> None:
    environ = {
        "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_REGION": "", "HOME": "/h",
    }  # fmt: skip
    travelling = submission.travelling_environment(environ)
    assert {name for name in travelling if name in environ} == {"AWS_ENDPOINT_URL"}


def test_words_about_tokens_are_no_secrets() -> None:
    submission.check_no_secret(("--set", "tokenizer=t1", "--set", "max_tokens=8"), {})


def test_settings_of_a_file_are_written_out(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("lsh:\n  num_bands: 20\nname: 中文 x\nlist: [a, 1]\n", encoding="utf-8")
    arguments = submission.job_arguments("s3://b/p", sets=["a=1"], config_files=[file])
    assert arguments == (
        "--root", "s3://b/p", "--set", "lsh.num_bands=20", "--set", 'name="中文 x"',
        "--set", 'list=["a", 1]', "--set", "a=1",
    )  # fmt: skip


def test_the_metadata_shows_how_to_go_on_and_where_from(store: Store, code: Package) -> None:
    first = kept(store, code)
    shown = ray_jobs.metadata(first, store)
    assert shown["resume"] == f"gristmill runs resume tiny --root {store.location} --cluster local"
    assert shown["resumed_from"] == "the beginning"
    Chain(store, "runs/tiny/log").append(1, {"kind": "checkpoint", "step": 12, "loss": 3.25}, "w")
    assert ray_jobs.metadata(first, store)["resumed_from"] == "step 12, loss 3.2500"
    assert all(isinstance(value, str) for value in shown.values())


def test_the_entrypoint_survives_a_shell(store: Store, code: Package) -> None:
    first = kept(store, code, arguments=("--root", "/a b/中文", "--set", "x=$HOME;`id`"))
    line = ray_jobs.entrypoint(first, local=False)
    assert line == "exec python -m jobs.pretrain --root '/a b/中文' --set 'x=$HOME;`id`'"


def test_a_cluster_of_the_project_file_is_found_by_name(tmp_path: Path) -> None:
    file = tmp_path / "gristmill.yaml"
    file.write_text(
        "clusters:\n  big: {spark: 'spark://h:7077', ray: 'http://h:8265'}\n  near: {ray: 'http://localhost:1'}\n"
    )
    assert find_target("big", config_file=file) == Target(
        name="big", local=False, spark_master="spark://h:7077", ray_dashboard="http://h:8265"
    )
    assert find_target("near", config_file=file).local


def test_a_typo_in_the_project_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "gristmill.yaml"
    file.write_text("clusters:\n  big: {sparc: 'spark://h:7077'}\n")
    with pytest.raises(ConfigError, match="sparc"):
        find_target("big", config_file=file)


def test_without_a_cluster_the_message_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(SetupError, match="gristmill cluster up"):
        find_target("local", config_file=tmp_path / "none.yaml")


def test_an_entry_of_the_chain_is_json_with_its_format(store: Store, code: Package) -> None:
    kept(store, code)
    entry = json.loads(store.get("runs/tiny/submissions/000001.json"))
    assert entry["format"] == "gristmill.submission/1"


def test_the_run_of_a_training_submission_is_the_run_that_it_writes_to(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from cluster.cli.submit import command

    for given, run in ([], "tiny"), (["--run", "big"], "big"), (["--set", "run=other"], "other"):
        arguments = ["pretrain", "--root", str(tmp_path), "--dry-run", "--json", *given]
        answer = CliRunner().invoke(command, arguments)
        assert answer.exit_code == 0, answer.output
        assert json.loads(answer.stdout)["arguments"][-1] == f"run={run}"
