from __future__ import annotations

import socket
from pathlib import Path

import pytest

from cluster.local import ports, state
from cluster.local.processes import Daemon
from cluster.local.state import LocalCluster
from pipelines.errors import ConfigError, ConflictError, SetupError

CLUSTER = LocalCluster(
    name="local",
    folder="/tmp/gm-x",
    daemons=(Daemon(role="ray-head", pid=1, start_ticks=-5, boot_id="b"),),
    ray_dashboard="http://127.0.0.1:1",
    ray_token_path="/tmp/gm-x/token",
)


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_what_is_written_is_read_by_its_owner_alone() -> None:
    assert state.read("local") is None
    state.write(CLUSTER)
    assert state.read("local") == CLUSTER
    path = state.state_dir() / "cluster-local.json"
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    state.forget("local")
    assert state.read("local") is None


def test_a_cluster_from_before_a_reboot_is_not_up() -> None:
    assert not CLUSTER.is_up()


def test_the_token_itself_stands_in_no_environment() -> None:
    assert CLUSTER.client_environment()["RAY_AUTH_TOKEN_PATH"] == "/tmp/gm-x/token"
    assert "RAY_AUTH_TOKEN" not in CLUSTER.client_environment()


def test_a_name_that_is_a_path_is_refused() -> None:
    with pytest.raises(ConfigError):
        state.read("../x")


def test_an_unknown_format_is_refused() -> None:
    (state.state_dir() / "cluster-local.json").write_text('{"format": "gristmill.local-cluster/9"}')
    with pytest.raises(SetupError, match="local-cluster/1"):
        state.read("local")


def test_two_commands_at_once_are_told_apart() -> None:
    with state.exclusively("local"), pytest.raises(ConflictError), state.exclusively("local"):
        pass


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        assert not ports.is_free(busy.getsockname()[1])


def test_free_ports_are_different_and_below_the_systems_own() -> None:
    found = ports.free_ports(20)
    assert len(set(found)) == 20
    assert max(found) < 32768
