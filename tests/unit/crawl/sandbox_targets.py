"""What tests run inside a sandbox: good calls, and every way to misbehave."""

from __future__ import annotations

import ctypes
import os
import re
import sys
import time
from pathlib import Path


def echo(*args):
    return list(args)


def raises(name):
    raise getattr(__import__("builtins"), name)("told")


def spin_in_c():
    """One call into C that holds the interpreter for years."""
    return re.match(r"(a+)+$", "a" * 60 + "!")


def spin_in_python():
    while True:
        pass


def sleeps(seconds):
    time.sleep(seconds)
    return "awake"


def allocates(megabytes):
    return len(bytearray(megabytes << 20))


_kept = []


def keeps(megabytes):
    _kept.append(bytearray(megabytes << 20))
    return len(_kept)


def segfaults():
    ctypes.string_at(8)


def leaves(code):
    os._exit(code)


def forks():
    """Both copies return."""
    os.fork()
    return os.getpid()


def forks_and_hangs(pid_file):
    pid = os.fork()
    if pid == 0:
        while True:
            time.sleep(1)
    Path(pid_file).write_text(str(pid))
    while True:
        time.sleep(1)


def prints():
    print("this is no answer")
    sys.stdout.flush()
    os.write(1, b"neither is this")
    return sys.stdin.read()


def me():
    return os.getpid()


def spin_for(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return "done"


def either(what, *args):
    return globals()[what](*args)


def broken_start():
    raise ImportError("no such engine")


def nested(target, *args):
    """A sandbox inside a sandbox."""
    from pipelines.crawl.sandbox import Sandbox, StuckError

    with Sandbox(target, seconds=0.3, memory_bytes=64 << 20) as inner:
        try:
            return inner.call(*args)
        except StuckError as error:
            return error.reason
