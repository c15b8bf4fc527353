"""Install gristmill and its pinned dependencies into a virtual environment; safe to interrupt and to repeat.

    python3 requirements/install.py --groups corpus,train,test --torch auto

Runs before anything of ours is installed, so it needs the standard library alone. Each group has a lock
file with hashes; a stamp in the environment says which lock it holds, so a second call returns at once. pip
is left to its own settings (PIP_INDEX_URL, pip.conf, proxies): no index is named here.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST, NEWEST = (3, 11), (3, 13)
TORCH = "2.13.0"
# Installed size in GB and minutes on a 2-core machine with a quick line (measured; CUDA: an estimate).
GROUPS = {
    "corpus": (1.8, 1.5, "Spark, a JRE, Ray and the text libraries"),
    "train": (0.15, 0.5, "DeepSpeed and Ray Train"),
    "test": (0.5, 0.7, "pytest, linters and the oracles of the tests"),
}
TORCH_SIZES = {"cpu": (0.85, 0.5), "cuda": (6.0, 4)}
EXIT_SETUP = 6


class SetupError(Exception):
    """What is wrong, and the mend."""


def main():
    """Install what is asked for and not there yet."""
    arguments = _arguments()
    _use_a_python_that_serves()
    groups = [name for name in GROUPS if name in arguments.groups.split(",")]
    venv = Path(arguments.venv)
    state = venv / ".gristmill"
    wanted = _wanted(groups, arguments.torch)
    if _missing(state, wanted) == []:
        return 0
    if venv.exists() and not state.exists():
        raise SetupError(
            f"{venv} exists and was not made by this program.\n  mend: move it away, or name another one by VENV=."
        )
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another setup of this environment is under way: waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        missing = _missing(state, wanted)
        if missing:
            _install(venv, state, wanted, missing, arguments.torch)
    return 0


def _install(venv, state, wanted, missing, torch):
    started = time.monotonic()
    backend = _torch_backend_expected(torch) if "torch" in missing else None
    _announce(venv, missing, backend)
    python = venv / "bin" / "python"
    for name in missing:
        (state / name).unlink(missing_ok=True)
        if name == "venv":
            _make_venv(venv)
        elif name == "torch":
            _install_torch(python, torch)
        elif name == "gristmill":
            _pip(python, "install", "--no-deps", "--no-build-isolation", "-e", str(ROOT))
            _make_link_relative(venv)
        else:
            _say(f"{name}: {GROUPS[name][2]}" if name in GROUPS else f"{name}: pip and what builds packages")
            # --no-deps: the lock is complete, and torch, which DeepSpeed asks for, is not in it.
            _pip(
                python, "install", "--require-hashes", "--no-deps", "--no-build-isolation",
                "-r", str(ROOT / "requirements" / f"{name}.lock"),
            )  # fmt: skip
        (state / name).write_text(wanted[name])
    if "corpus" in wanted:
        _say("compiling what reads pages and texts, about a minute, once")
        subprocess.run([str(python), "-m", "pipelines.warm_up"], cwd=ROOT, check=False)  # a job compiles by itself too
    size = sum(path.lstat().st_size for path in venv.rglob("*") if path.is_file()) / 1e9
    _say(f"ready: {venv} holds {size:.1f} GB, {time.monotonic() - started:.0f} s.")


def _wanted(groups, torch):
    """Stamp by step, in the order of installation; a stamp tells everything that the step depends on."""
    interpreter = f"{sys.version_info[0]}.{sys.version_info[1]} {ROOT}"
    wanted = {"venv": interpreter}
    for name in ["build", *groups]:
        lock = (ROOT / "requirements" / f"{name}.lock").read_bytes()
        wanted[name] = f"{interpreter} {hashlib.sha256(lock).hexdigest()}"
        if name == "train":
            # "auto" is content with whichever build is there.
            wanted["torch"] = f"{interpreter} {TORCH}" + ("" if torch == "auto" else f" {torch}")
    wanted["gristmill"] = f"{interpreter} {hashlib.sha256((ROOT / 'pyproject.toml').read_bytes()).hexdigest()}"
    return wanted


def _missing(state, wanted):
    """Steps to do; a new interpreter or a moved clone does all of them again."""

    def stamped(name):
        with contextlib.suppress(OSError):
            found = (state / name).read_text()
            return found == wanted[name] or (name == "torch" and found.startswith(wanted[name]))
        return False

    return list(wanted) if not stamped("venv") else [name for name in wanted if not stamped(name)]


def _announce(venv, missing, backend):
    sizes = [GROUPS[name][:2] for name in missing if name in GROUPS]
    sizes += [TORCH_SIZES[backend]] if backend else []
    gigabytes, minutes = sum(size[0] for size in sizes), sum(size[1] for size in sizes)
    if not sizes:
        return
    torch = f", torch for {backend}" if backend else ""
    names = ", ".join(name for name in missing if name in GROUPS)
    _say(f"installing {names or 'torch'}{torch} into {venv}: about {gigabytes:.1f} GB on disk, "
         f"{max(1, round(minutes))} to {max(5, round(5 * minutes))} minutes. "
         "Ctrl-C stops it; the same command goes on.")  # fmt: skip
    free = shutil.disk_usage(venv if venv.exists() else venv.resolve().parent).free / 1e9
    needed = 1.5 * gigabytes + 0.5  # wheels are built and unpacked beside what they become
    if free < needed:
        raise SetupError(
            f"{free:.1f} GB are free where {venv} lies, about {needed:.1f} GB are needed.\n"
            "  mend: make room, or `make run TO=filter_documents`, which needs no torch."
        )


def _make_venv(venv):
    shutil.rmtree(venv / "bin", ignore_errors=True)
    shutil.rmtree(venv / "lib", ignore_errors=True)
    done = subprocess.run([sys.executable, "-m", "venv", str(venv)], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SetupError(
            f"`{sys.executable} -m venv` failed:\n{(done.stdout + done.stderr).strip()[-600:]}\n"
            "  mend: on Debian and Ubuntu `sudo apt-get install -y python3-venv`."
        )


def _make_link_relative(venv):
    """Write our editable install's path relative to its folder.

    Python 3.11 and 3.12 read .pth files in the locale's encoding, and an absolute path that is not ASCII
    ends the interpreter at start under LC_ALL=C.
    """
    for link in venv.glob("lib/python*/site-packages/*gristmill*.pth"):
        relative = os.path.relpath(ROOT, link.resolve().parent)
        if relative.isascii():
            link.write_text(relative + "\n", encoding="ascii")


def _install_torch(python, torch):
    backend = _torch_backend(python, torch)
    if backend == "cpu-by-uv":
        environment = dict(os.environ)
        if "PIP_INDEX_URL" in environment:
            environment.setdefault("UV_DEFAULT_INDEX", environment["PIP_INDEX_URL"])
        command = [str(python.parent / "uv"), "pip", "install", "--python", str(python), "--no-deps",
                   "--torch-backend", "cpu", f"torch=={TORCH}"]  # fmt: skip
        _say("torch: the CPU build")
        if subprocess.run(command, env=environment, check=False).returncode == 0:
            return
        _say("the CPU build could not be fetched; plain pip brings the CUDA build, about 3 GB to "
             "download and 6 GB on disk. Ctrl-C within 10 seconds stops it.")  # fmt: skip
        time.sleep(10)
    else:
        _say("torch: " + ("as pip finds it" if backend == "pip" else backend))
    _pip(python, "install", f"torch=={TORCH}")


def _torch_backend(python, torch):
    """`pip`: plain pip does what is wished. `cpu-by-uv`: uv knows where the CPU build lies."""
    if torch == "cuda" or (torch == "auto" and _has_nvidia_driver()):
        return "pip"
    command = [str(python), "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed",
               "--report", "-", f"torch=={TORCH}"]  # fmt: skip
    answer = subprocess.run(command, env=_pip_environment(), check=False, capture_output=True, text=True)
    with contextlib.suppress(ValueError, LookupError):
        if "+cpu" in json.loads(answer.stdout)["install"][0]["metadata"]["version"]:
            return "pip"
    return "cpu-by-uv"


def _torch_backend_expected(torch):
    return "cuda" if torch == "cuda" or (torch == "auto" and _has_nvidia_driver()) else "cpu"


def _has_nvidia_driver():
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists() or Path("/dev/dxg").exists()


def _pip(python, *arguments):
    command = [str(python), "-m", "pip", *arguments[:1], "--disable-pip-version-check"]
    command += [] if sys.stderr.isatty() else ["--quiet"]
    done = subprocess.run([*command, *arguments[1:]], env=_pip_environment(), check=False)
    if done.returncode != 0:
        raise SetupError(
            "pip failed; its own words stand above.\n"
            "  mend: without a way to the package index set PIP_INDEX_URL to a mirror of yours; "
            "the same command goes on."
        )


def _pip_environment():
    """The user's settings for pip, without those that would install somewhere else."""
    left_out = {
        "PYTHONPATH",
        "PYTHONHOME",
        "PIP_USER",
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_ROOT",
        "PIP_REQUIRE_HASHES",
    }
    return {name: value for name, value in os.environ.items() if name not in left_out} | {
        "PYTHONUTF8": "1",
        "LC_ALL": "C.UTF-8",
    }


def _use_a_python_that_serves():
    """Go on under a Python of a supported version; ours if it is one, else one of the usual names on PATH."""
    if not (sys.platform == "linux" and platform.machine() == "x86_64"):
        _say(f"this is {sys.platform} on {platform.machine()}; tried and supported is Linux on x86-64 "
             "(also WSL2). Elsewhere use the container of the Dockerfile.")  # fmt: skip
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        found = shutil.which(f"python3.{minor}")
        if found:
            _say(f"python3 is {platform.python_version()}: using {found}")
            os.execv(found, [found, *sys.argv])
    raise SetupError(
        f"python3 is {platform.python_version()}, and Python 3.11 to 3.13 is needed; none is on PATH.\n"
        "  mend: install python3.12 and python3.12-venv (Ubuntu 22.04: from its deadsnakes archive), "
        "or use the Dockerfile."
    )


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", default="corpus,train", help="of corpus, train, test; comma-separated")
    parser.add_argument("--torch", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--venv", default=".venv")
    return parser.parse_args()


def _say(text):
    print(f"setup: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SetupError as problem:
        _say(str(problem))
        sys.exit(EXIT_SETUP)
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on.")
        sys.exit(130)
