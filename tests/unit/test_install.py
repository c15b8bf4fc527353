"""requirements/install.py: what is done again, and what is refused; nothing is installed here."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "requirements" / "install.py"


@pytest.fixture
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stamped(state: Path, wanted: dict[str, str]) -> None:
    state.mkdir(parents=True, exist_ok=True)
    for name, stamp in wanted.items():
        (state / name).write_text(stamp)


def test_nothing_is_missing_after_everything_was_stamped(install: ModuleType, tmp_path: Path) -> None:
    wanted = install._wanted(["corpus", "train"], "auto")
    assert install._missing(tmp_path, wanted) == ["venv", "build", "corpus", "train", "torch", "gristmill"]
    stamped(tmp_path, wanted)
    assert install._missing(tmp_path, wanted) == []


def test_corpus_work_asks_for_no_torch(install: ModuleType) -> None:
    assert "torch" not in install._wanted(["corpus"], "auto")


def test_a_changed_lock_redoes_its_group_alone(install: ModuleType, tmp_path: Path) -> None:
    wanted = install._wanted(["corpus", "test"], "auto")
    stamped(tmp_path, wanted)
    (tmp_path / "test").write_text("another lock")
    assert install._missing(tmp_path, wanted) == ["test"]


def test_another_interpreter_or_place_redoes_everything(install: ModuleType, tmp_path: Path) -> None:
    wanted = install._wanted(["corpus"], "auto")
    stamped(tmp_path, wanted | {"venv": "3.12 /elsewhere"})
    assert install._missing(tmp_path, wanted) == list(wanted)


def test_auto_is_content_with_the_torch_that_is_there_and_a_wish_is_not(install: ModuleType, tmp_path: Path) -> None:
    stamped(tmp_path, install._wanted(["train"], "cuda"))
    assert install._missing(tmp_path, install._wanted(["train"], "auto")) == []
    assert install._missing(tmp_path, install._wanted(["train"], "cpu")) == ["torch"]


def test_an_environment_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    venv = tmp_path / ".venv"
    venv.mkdir()
    (venv / "theirs").write_text("x")
    answer = subprocess.run(
        [sys.executable, PROGRAM, "--venv", venv], capture_output=True, text=True, check=False, timeout=60
    )
    assert answer.returncode == 6
    assert "was not made by this program" in answer.stderr
    assert [path.name for path in venv.iterdir()] == ["theirs"]


def test_a_full_disk_is_told_before_anything_is_fetched(
    install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1e9})())
    with pytest.raises(install.SetupError, match=r"1\.0 GB are free"):
        install._announce(tmp_path, ["corpus", "torch"], "cpu")


def test_pip_keeps_the_users_index_and_not_the_users_target(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.invalid/simple")
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    made = install._pip_environment()
    assert made["PIP_INDEX_URL"] == "https://mirror.invalid/simple"
    assert "PIP_TARGET" not in made


def test_the_link_to_the_checkout_is_plain_ascii_in_any_folder(
    install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "目录 with space"
    link = root / ".venv" / "lib" / "python3.11" / "site-packages" / "_editable_impl_gristmill.pth"
    link.parent.mkdir(parents=True)
    link.write_text(str(root) + "\n", encoding="utf-8")
    monkeypatch.setattr(install, "ROOT", root)
    install._make_link_relative(root / ".venv")
    assert link.read_bytes() == b"../../../..\n"
    assert (link.parent / link.read_text().strip()).resolve() == root.resolve()


@pytest.mark.parametrize("name", ["build", "corpus", "train", "test"])
def test_every_pin_of_a_lock_has_a_hash_and_no_index_is_named(name: str) -> None:
    text = (PROGRAM.parent / f"{name}.lock").read_text()
    entries = text.replace("\\\n", " ").splitlines()
    pins = [entry for entry in entries if entry and not entry.lstrip().startswith("#")]
    assert pins
    assert [pin.split()[0] for pin in pins if "==" not in pin or "--hash=sha256:" not in pin] == []
    assert "://" not in text
    assert not [pin for pin in pins if pin.startswith(("torch==", "nvidia", "triton", "cuda"))]
