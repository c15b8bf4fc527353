"""Markers, skips with their reason, and isolation: no test reaches a real bucket, cluster or home folder.

The S3 server is started once a session and shared; what a test changes, it gives back.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT / "tests" / "s3"))

import server as s3  # noqa: E402

# Whatever the caller's shell has of these could lead a test to somebody's bucket or cluster.
_DROPPED_PREFIXES = ("AWS_", "GRISTMILL_", "RAY_", "SPARK_", "PYSPARK_", "HADOOP_", "S3_")
_DROPPED = {
    "PYTHONPATH",
    "PYTHONHOME",
    "http_proxy",
    "https_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "all_proxy",
}
_HARMLESS = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    # A client that is made without an endpoint of its own fails at once.
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "no-test-may-use-this",
    "AWS_SECRET_ACCESS_KEY": "no-test-may-use-this",
    "AWS_MAX_ATTEMPTS": "1",
}


def pytest_configure(config: pytest.Config) -> None:
    """Isolate this process, before any test module is imported."""
    os.environ.setdefault("GRISTMILL_S3_CACHE", str(s3.cache_dir()))  # found before HOME moves
    kept = {"GRISTMILL_S3_CACHE", "GRISTMILL_JAVA_HOME"}
    for name in list(os.environ):
        if name not in kept and (name.startswith(_DROPPED_PREFIXES) or name in _DROPPED):
            del os.environ[name]
    os.environ.update(_HARMLESS)
    home = Path(tempfile.mkdtemp(prefix="gm-home-"))
    os.environ["HOME"] = str(home)
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        os.environ.pop(name, None)
    config.add_cleanup(lambda: _remove(home))
    _set_hypothesis()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run, and say how to enable it."""
    for marker, why in (
        ("spark", _no_spark),
        ("ray", _no_ray),
        ("torch", _no_torch),
        ("s3", s3.why_not_available),
    ):
        if item.get_closest_marker(marker) and (reason := why()):
            pytest.skip(f"{marker}: {reason}")


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of this checkout."""
    return CHECKOUT


@pytest.fixture(scope="session")
def s3_server() -> Iterator[s3.S3Server]:
    """A real S3 server, one a session."""
    if reason := s3.why_not_available():
        pytest.skip(f"s3: {reason}")
    with s3.S3Server() as running:
        yield running


@pytest.fixture
def s3_prefix(s3_server: s3.S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh bucket as `s3://bucket/prefix`, with AWS_* set for this test alone."""
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(s3_server, bucket)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{bucket}/prefix"


def _set_hypothesis() -> None:
    try:
        from hypothesis import settings
    except ImportError:
        return
    # A first call that compiles or imports is slow, not flaky; the same examples each time.
    settings.register_profile("gristmill", deadline=None, derandomize=True)
    settings.load_profile("gristmill")


@cache
def _no_spark() -> str | None:
    if importlib.util.find_spec("pyspark") is None:
        return "pyspark is not installed: make setup"
    from jobs.runtime.java import find_java
    from pipelines.errors import SetupError

    try:
        find_java(os.environ)
    except SetupError as error:
        return str(error.args[0])
    return None


def _no_ray() -> str | None:
    return None if importlib.util.find_spec("ray") else "ray is not installed: make setup"


def _no_torch() -> str | None:
    return None if importlib.util.find_spec("torch") else "torch is not installed: make setup"


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
