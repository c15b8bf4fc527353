"""`gristmill doctor`: what works here, and what to do where it does not. Starts nothing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import resource
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from cluster.cli.options import find_root, print_json, print_table, with_json, with_root
from jobs.runtime import environment
from pipelines.errors import GristmillError, SetupError

GIB = 2**30
_MARKS = {"ok": "ok", "note": "note", "fail": "FAIL"}
# A part of the platform, what it imports, and the extra that brings it.
PARTS = (
    ("datasets", ("pyarrow", "boto3", "obstore"), "gristmill"),
    ("text", ("fastwarc", "selectolax", "trafilatura", "fasttext", "sentencepiece"), "gristmill[text]"),
    ("spark", ("pyspark", "pandas"), "gristmill[spark]"),
    ("ray", ("ray",), "gristmill[ray]"),
    ("train", ("torch", "deepspeed"), "gristmill[train]"),
)
DISTRIBUTIONS = {"fasttext": "fasttext-community"}  # where the distribution is not called as its module


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at: `state` is ok, note (works, worth knowing) or fail."""

    what: str
    state: str
    found: str
    mend: str = ""


@click.command(name="doctor")
@with_root
@click.option("--store", "with_store", is_flag=True, help="Also write to the root and prove that commits hold.")
@click.option("--export", is_flag=True, help="Print the environment that plain spark-submit and ray commands need.")
@click.option("--cluster", "cluster_name", metavar="NAME", help="With --export: for the Ray of this cluster.")
@with_json
def command(root: str | None, with_store: bool, export: bool, cluster_name: str | None, as_json: bool) -> None:
    """Look at Python, Java, memory, disk, ports, the environment and the store."""
    if export:
        for line in export_lines(cluster_name):
            click.echo(line)
        return
    findings = list(examine())
    if with_store or root:
        findings.append(_guarded("store", lambda: _store(find_root(root))))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = [(_MARKS[finding.state], finding.what, finding.found) for finding in findings]
        print_table(("", "what", "found"), rows)
        for finding in findings:
            if finding.mend and finding.state != "ok":
                click.echo(f"{finding.what}: {finding.mend}")
    if any(finding.state == "fail" for finding in findings):
        sys.exit(SetupError.exit_code)


def examine() -> Iterator[Finding]:
    """Everything that can be seen without starting an engine."""
    yield _python()
    yield _guarded("packages", _one_root)
    for part in PARTS:
        yield _part(*part)
    yield _guarded("java", _java)
    yield _guarded("user", _user)
    yield _memory()
    yield from _disk()
    yield _open_files()
    yield _guarded("ray sockets", _short_folder)
    yield _guarded("loopback", _loopback)
    yield _host_name()
    yield from _inherited()
    yield _gpu()


def export_lines(cluster_name: str | None) -> list[str]:
    """Shell lines that make this shell's environment what our own commands use."""
    from cluster.local import state
    from jobs.runtime.java import find_java, java_home

    folder = state.state_dir()
    prepared = environment.engine_environment(
        os.environ, scratch=folder, java_home=java_home(find_java(os.environ), folder)
    )
    if cluster_name:
        from cluster.submit.target import find_target

        target = find_target(cluster_name)
        if target.ray_dashboard:
            prepared["RAY_API_SERVER_ADDRESS"] = target.ray_dashboard
        if target.ray_token_path:
            prepared |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": target.ray_token_path}
    lines = [f"unset {name}" for name in sorted(os.environ.keys() - prepared.keys())]
    return lines + [
        f"export {name}={shlex.quote(value)}"
        for name, value in sorted(prepared.items())
        if os.environ.get(name) != value
    ]


def _python() -> Finding:
    version = platform.python_version()
    serves = (3, 11) <= sys.version_info[:2] <= (3, 13)
    where = f"{version} at {sys.executable}, {sys.platform} {platform.machine()}"
    return Finding(what="python", state="ok" if serves else "fail", found=where, mend="use Python 3.11, 3.12 or 3.13.")


def _one_root() -> Finding:
    from jobs.runtime.package import one_root

    return Finding(what="packages", state="ok", found=f"all four from {one_root()}")


def _part(name: str, modules: tuple[str, ...], extra: str) -> Finding:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        return Finding(
            what=name,
            state="note",
            found=f"without {', '.join(missing)}",
            mend=f"`make setup`, or pip install '{extra}', where it is needed.",
        )
    versions = [f"{module} {importlib.metadata.version(DISTRIBUTIONS.get(module, module))}" for module in modules]
    return Finding(what=name, state="ok", found=", ".join(versions))


def _java() -> Finding:
    from jobs.runtime.java import find_java

    java = find_java(os.environ)
    return Finding(what="java", state="ok", found=f"{java.version} from {java.origin}: {java.program}")


def _user() -> Finding:
    from jobs.runtime.spark_session import check_user_is_known

    check_user_is_known()
    return Finding(what="user", state="ok", found=f"{os.getuid()} is known")


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available = total
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    state = "ok" if available >= 4 * GIB else "note"
    found = f"{available / GIB:.1f} of {total / GIB:.1f} GiB available, {environment.usable_cores()} cores"
    return Finding(
        what="memory", state=state, found=found, mend="Spark's JVM takes about 1 GiB and Ray's processes about 2."
    )


def _disk() -> Iterator[Finding]:
    for name, folder in (("disk here", Path.cwd()), ("disk for scratch", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        state = "ok" if free >= 2 * GIB else "fail"
        yield Finding(what=name, state=state, found=f"{free / GIB:.1f} GiB free in {folder}", mend="make room.")


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = hard == resource.RLIM_INFINITY or hard >= 1024
    return Finding(
        what="open files",
        state="ok" if enough else "fail",
        found=f"{soft} now, up to {'any' if hard == resource.RLIM_INFINITY else hard}",
        mend="raise the hard limit to 1024 or more: Spark alone opens 280 jars.",
    )


def _short_folder() -> Finding:
    from jobs.runtime.ray_session import private_temp_dir

    folder = private_temp_dir()
    folder.rmdir()
    return Finding(what="ray sockets", state="ok", found=f"short folder below {folder.parent}")


def _loopback() -> Finding:
    try:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
    except OSError as error:
        raise SetupError(f"127.0.0.1 cannot be bound: {error}", mend="bring up the loopback interface.") from error
    return Finding(what="loopback", state="ok", found="127.0.0.1 can be bound")


def _host_name() -> Finding:
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        return Finding(what="host name", state="note", found=f"{name} does not resolve; loopback is used instead")
    return Finding(what="host name", state="ok", found=f"{name} is {address}")


def _inherited() -> Iterator[Finding]:
    dropped = environment.SPARK_DROPPED | environment.RAY_DROPPED | environment.PYTHON_DROPPED
    if found := sorted(dropped & os.environ.keys()):
        yield Finding(what="inherited", state="note", found=f"not followed: {', '.join(found)}")
    proxies = ("http_proxy", "https_proxy", "all_proxy")
    if found := sorted(name for name in os.environ if name.lower() in proxies):
        yield Finding(what="proxy", state="note", found=f"{', '.join(found)}; loopback goes without")


def _gpu() -> Finding:
    there = Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists()
    return Finding(what="gpu", state="ok", found="an NVIDIA driver" if there else "none; training runs on the CPU")


def _store(root: str) -> Finding:
    from pipelines.datasets.store import check_create_only, open_store

    check_create_only(open_store(root))
    return Finding(what="store", state="ok", found=f"{root}: create-only puts hold")


def _guarded(what: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except GristmillError as error:
        return Finding(what=what, state="fail", found=str(error.args[0]), mend=error.mend or "")
