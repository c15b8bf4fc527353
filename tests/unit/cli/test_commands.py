"""The command line over a small root: what a person and a program see, and the exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.runtime.context import Context
from jobs.runtime.run import run_stage
from pipelines.datasets import open_dataset
from pipelines.datasets.store import open_store
from tests.unit.runtime.synthetic import stage, units

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "root"
    run_stage(Context(store=open_store(folder)), stage(), units(4))
    return folder


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """(exit code, stdout, stderr) of one command, in an empty working folder."""
    from cluster.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            main([str(a) for a in arguments])
            code = 0
        except SystemExit as e:
            code = int(e.code or 0)
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def test_ls_prints_the_root_and_each_dataset_within_80_columns(run, root):
    code, out, _ = run("datasets", "ls", "--root", root)
    assert code == 0 and f"root: {root}" in out
    assert "documents" in out and "scores" in out
    assert all(len(line) <= 80 for line in out.splitlines() if not line.startswith("root:"))


def test_ls_of_an_empty_root_says_what_to_type(run, tmp_path):
    code, out, _ = run("datasets", "ls", "--root", tmp_path / "nothing")
    assert code == 0 and "make run" in out


def test_json_is_one_document_on_stdout(run, root):
    for line in (
        ["datasets", "ls"],
        ["datasets", "show", "documents"],
        ["datasets", "sample", "documents", "-n", "2"],
        ["datasets", "files", "documents"],
        ["datasets", "gc", "--dry-run"],
        ["explain", "nothing"],
        ["runs", "ls"],
    ):
        code, out, _ = run(*line, "--root", root, "--json")
        assert code == 0 and isinstance(json.loads(out), dict), line


def test_show_prints_books_and_parents(run, root):
    _, out, _ = run("datasets", "show", "scores", "--root", root)
    assert "parent (home): documents version 1" in out and "toy.length" in out
    _, out, _ = run("datasets", "show", "documents@1", "--root", root)
    assert "read: 16" in out and "too_short: 4" in out


def test_sample_takes_a_condition(run, root):
    code, out, _ = run("datasets", "sample", "scores", "--where", "toy.length>=1 and id!='x'", "-n", 3, "--root", root)
    assert code == 0 and out.count("toy.length") == 3
    assert run("datasets", "sample", "scores", "--where", "nonsense", "--root", root)[0] == 2
    code, _, err = run("datasets", "sample", "scores", "--where", "colour=1", "--root", root)
    assert code == 2 and "columns: id, toy.length" in err


def test_files_names_objects_that_exist(run, root):
    _, out, _ = run("datasets", "files", "documents", "--role", "part", "--root", root)
    assert len(out.split()) == 4 and all(Path(p).is_file() for p in out.split())


def test_explain_finds_a_page_by_id_in_every_dataset(run, root):
    wanted = open_dataset(str(root), "documents").to_arrow()["id"][0].as_py()
    _, out, _ = run("explain", wanted, "--root", root)
    assert "documents" in out and "toy.length" in out
    _, out, _ = run("explain", units(1)[0].id, "--root", root)
    assert "rejected by toy" in out


def test_control_and_direction_characters_are_made_visible():
    from cluster.cli.options import clip, visible, width_of

    assert visible("a\x1b[31m\u202e中\n") == "a\\u001b[31m\\u202e中 "
    assert width_of("中a") == 3 and clip("中文字", 4) == "中…"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["datasets", "show", "dokuments"], 3, "no dataset 'dokuments'"),
        (["datasets", "show", "documents@9"], 3, "no version 9"),
        (["datasets", "show", "../x"], 2, "cannot be an object key"),
        (["datasets", "shw"], 2, "show"),
        (["run", "extract_crawls"], 2, "no recipe"),
        (["config", "show", "dedup_document"], 2, "did you mean dedup_documents"),
        (["run", "filter_documents", "--set", "min_qualty=1"], 2, "did you mean min_quality"),
        (["run", "local", "--to", "nonsense"], 2, "its jobs: extract_crawl"),
        (["run", "local", "--set", "documents=1"], 2, "is no job of this recipe"),
        (["run", "extract_crawl", "--crawl", "absent/*.warc.gz"], 3, "absent/*.warc.gz"),
        (["run", "dedup_documents", "--engine", "process"], 3, "no dataset 'documents'"),
    ],
)
def test_mistakes_are_answered_with_code_and_mend(run, tmp_path, arguments, code, text):
    found, out, err = run(*arguments, "--root", tmp_path / "r") if "config" not in arguments else run(*arguments)
    assert (found, text in err) == (code, True), err
    assert "Traceback" not in err and out == ""


def test_errors_are_json_where_json_is_asked_for(run, tmp_path):
    code, out, _ = run("datasets", "show", "x", "--root", tmp_path, "--json")
    assert code == 3 and json.loads(out)["error"]["kind"] == "InputError"


def test_config_show_tells_value_origin_and_meaning(run):
    _, out, _ = run("config", "show", "dedup_documents", "--set", "lsh.num_bands=20")
    assert "lsh.num_bands: 20   [--set lsh.num_bands=20]" in out and "bands of a signature" in out
    _, out, _ = run("config", "show", "dedup_documents", "--json")
    assert all(row["doc"] for row in json.loads(out)["settings"])


def test_the_root_is_found_by_option_environment_and_file(run, root, monkeypatch, tmp_path):
    (tmp_path / "gristmill.yaml").write_text(f"root: {root}\n")
    assert f"root: {root}" in run("datasets", "ls")[1]
    monkeypatch.setenv("GRISTMILL_ROOT", str(tmp_path / "other"))
    assert f"root: {tmp_path / 'other'}" in run("datasets", "ls")[1]


def test_a_closed_pipe_ends_quietly(root):
    line = f"'{sys.executable}' -m cluster.cli datasets show documents --root '{root}' | head -1"
    done = subprocess.run(["bash", "-c", line], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stderr == "" and "documents version 1" in done.stdout
