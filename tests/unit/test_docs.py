"""Every command that the documents show exists, with its options; both READMEs show the same."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from cluster.cli import gristmill

CHECKOUT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*CHECKOUT.glob("README*.md"), *(CHECKOUT / "docs").glob("*.md")])
# Announced as coming, beside the ones that are there.
COMING = {"gristmill retry"}


def code_lines(document: Path) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def commands(document: Path, program: str) -> list[list[str]]:
    found = [shlex.split(line, comments=True) for line in code_lines(document)]
    inline = re.findall(rf"`((?:\.venv/bin/)?{program} [a-z][^`]*)`", document.read_text(encoding="utf-8"))
    found += [shlex.split(one) for one in inline if one not in COMING]
    found = [[word for word in words if "=" not in word.split("/")[0] or word.startswith("--")] for words in found]
    return [words for words in found if words and Path(words[0]).name == program]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_gristmill_command_exists_with_its_options(document: Path) -> None:
    for words in commands(document, "gristmill"):
        command: click.Command = gristmill
        rest = words[1:]
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            found = command.get_command(click.Context(command), rest[0])
            assert found is not None, f"{document.name}: {shlex.join(words)}"
            command, rest = found, rest[1:]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        used = {word.partition("=")[0] for word in rest if word.startswith("-") and not word.lstrip("-").isdigit()}
        assert used <= known, f"{document.name}: {shlex.join(words)}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_make_target_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    for words in commands(document, "make"):
        assert {word for word in words[1:] if not word.startswith("-")} <= targets, f"{document.name}: {words}"


def test_both_readmes_show_the_same_commands() -> None:
    english, chinese = (
        [line.partition("#")[0].split() for line in code_lines(CHECKOUT / name)]
        for name in ("README.md", "README.zh-CN.md")
    )
    assert english == chinese


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_index_and_no_path_of_one_machine_is_named(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert not re.search(r"pypi\.org|tuna\.tsinghua|aliyun|/root/|/home/\w+/", text)
