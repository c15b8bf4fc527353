"""A call that hangs, crashes, forks or eats memory costs that call, and the next one is answered."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelines.crawl.sandbox import RaisedError, Sandbox, StuckError
from pipelines.crawl.sandbox_child import REPLIES, decode_reply, encode_reply
from pipelines.errors import SetupError

TARGETS = "tests.unit.crawl.sandbox_targets"
CHECKOUT = Path(__file__).resolve().parents[3]


def sandbox(function: str = "either", **settings) -> Sandbox:
    bounds = {"seconds": 0.3, "memory_bytes": 128 << 20, **settings}
    return Sandbox(f"{TARGETS}:{function}", **bounds)


def reason_of(box: Sandbox, *args) -> str:
    with pytest.raises(StuckError) as caught:
        box.call(*args)
    return caught.value.reason


def gone(pid: int) -> bool:
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -1.5,
        "",
        "磨坊",
        "x" * 100,
        "\ud800" * 100,
        "\udcff",
        b"",
        bytes(range(256)) * 9,
        [],
        {"s": 1, "b": [b"x"]},
    ],
)
def test_values_come_back_as_they_went(value):
    frame = encode_reply(["v", value])
    head_bytes, rest = REPLIES.unpack_from(frame)
    assert len(frame) == REPLIES.size + head_bytes + rest
    assert decode_reply(frame[REPLIES.size :], head_bytes) == ["v", value]


def test_a_frame_that_is_none_is_refused_not_trusted():
    for body in (b"", b"[]", b'[{"s": 3}, []]', b'[{"x": 1}, []]', b"\xff\xff"):
        with pytest.raises((ValueError, KeyError, TypeError, IndexError)):
            decode_reply(body, len(body))


def test_calls_are_answered_by_one_child_that_starts_at_the_first():
    with sandbox() as box:
        assert box._child is None
        first = box.call("me")
        assert box.call("echo", "text", b"bytes", None, 1.5) == ["text", b"bytes", None, 1.5]
        assert box.call("me") == first != os.getpid()


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (("spin_in_c",), "page_time"),
        (("spin_in_python",), "page_time"),
        (("sleeps", 60), "page_time"),
        (("allocates", 400), "page_memory"),
        (("segfaults",), "page_crash"),
        (("leaves", 0), "page_crash"),
        (("leaves", 7), "page_crash"),
    ],
)
def test_a_bad_call_has_its_reason_and_the_next_is_answered(call, reason):
    with sandbox(wall_seconds=1.0) as box:
        box.call("me")
        begun = time.monotonic()
        assert reason_of(box, *call) == reason
        assert time.monotonic() - begun < 8
        assert box.call("echo", 1) == [1]


def test_what_the_target_raises_is_told_and_costs_no_child():
    with sandbox() as box:
        pid = box.call("me")
        with pytest.raises(RaisedError) as caught:
            box.call("raises", "ValueError")
        assert caught.value.args == ("ValueError", "told")
        assert box.call("me") == pid


def test_both_copies_of_a_target_that_forks_return_and_one_answer_comes():
    with sandbox() as box:
        first = box.call("forks")
        assert box.call("echo", 2) == [2]
        assert box.call("me") == first


def test_what_a_killed_target_started_is_killed_with_it(tmp_path):
    with sandbox(wall_seconds=0.5) as box:
        assert reason_of(box, "forks_and_hangs", str(tmp_path / "pid")) == "page_time"
    assert gone(int((tmp_path / "pid").read_text()))


def test_what_the_target_prints_is_no_answer_and_it_reads_nothing():
    with sandbox() as box:
        assert box.call("prints") == ""


def test_a_page_does_not_pay_for_the_memory_of_those_before_it():
    with sandbox() as box:
        counts = [box.call("keeps", 30) for _ in range(12)]
    assert len(counts) == 12 and max(counts) < 4
    assert box.restarts >= 2


def test_a_slow_call_gets_a_second_try_with_more_seconds():
    with sandbox(seconds=0.2, patience=10.0) as box:
        assert box.call("spin_for", 0.6) == "done"
        assert box.restarts == 1
    with sandbox(seconds=0.2) as box:
        assert reason_of(box, "spin_for", 0.6) == "page_time"


def test_a_busy_machine_is_no_fault_of_the_page():
    with sandbox(seconds=0.2, wall_seconds=5.0) as box:
        assert box.call("sleeps", 0.8) == "awake"


def test_many_calls_flow_and_each_bad_one_costs_itself_alone():
    good = [("echo", "x" * (n * 997 % 70_000)) for n in range(120)]
    calls = [*good[:40], ("segfaults",), *good[40:80], ("spin_in_c",), ("raises", "KeyError"), *good[80:]]
    with sandbox() as box:
        found = list(box.map(calls))
        assert box.call("echo", 3) == [3]
    kinds = {"segfaults": StuckError, "spin_in_c": StuckError, "raises": RaisedError}
    for call, answer in zip(calls, found, strict=True):
        assert isinstance(answer, kinds[call[0]]) if call[0] in kinds else answer == [call[1]]
    assert [f.args[0] for f in found if isinstance(f, Exception)] == ["page_crash", "page_time", "KeyError"]


def test_pages_and_results_larger_than_any_pipe_do_not_deadlock():
    calls = [("echo", b"\xff" * (3 << 20)) for _ in range(8)]
    with sandbox(memory_bytes=512 << 20) as box:
        assert all(found == [call[1]] for found, call in zip(box.map(calls), calls, strict=True))


def test_a_loop_that_is_left_early_leaves_no_answer_behind():
    with sandbox() as box:
        for _ in box.map([("echo", n) for n in range(50)]):
            break
        assert box.call("echo", "mine") == ["mine"]


def test_a_child_that_was_killed_between_calls_is_replaced():
    with sandbox() as box:
        os.kill(box.call("me"), signal.SIGKILL)
        time.sleep(0.1)
        assert box.call("echo", 1) == [1]


def test_a_child_that_cannot_start_is_told_with_its_reason():
    with pytest.raises(SetupError, match="no such engine"):
        Sandbox(f"{TARGETS}:echo", seconds=1, memory_bytes=1 << 20, prepare=f"{TARGETS}:broken_start").call()
    with pytest.raises(SetupError, match="no_such_module"):
        Sandbox("no_such_module:f", seconds=1, memory_bytes=1 << 20).call()


def test_a_sandbox_works_inside_a_sandbox():
    with sandbox("nested", seconds=20.0, memory_bytes=512 << 20) as box:
        assert box.call(f"{TARGETS}:echo", "deep") == ["deep"]
        assert box.call(f"{TARGETS}:spin_in_c") == "page_time"


def test_the_child_dies_with_its_parent_even_in_the_middle_of_a_call():
    program = (
        "import sys\nfrom pipelines.crawl.sandbox import Sandbox\n"
        f"box = Sandbox('{TARGETS}:either', seconds=2.0, wall_seconds=2.0, memory_bytes=1 << 28)\n"
        "print(box.call('me'), flush=True)\n{then}"
    )
    for then in ("input()", "box.call('spin_in_c')"):
        code = program.replace("{then}", then)
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=CHECKOUT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
        )
        child = int(process.stdout.readline())
        time.sleep(0.2)
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()
        assert gone(child)


def test_ctrl_c_reaches_the_caller_only_and_leaves_a_sandbox_that_works():
    with sandbox(seconds=30.0, wall_seconds=60.0) as box:
        box.call("me")
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            box.call("sleeps", 30)
        assert box.call("echo", 1) == [1]


def _daemonic(queue) -> None:
    with sandbox() as box:
        queue.put([box.call("echo", 1), reason_of(box, "spin_in_c"), box.call("echo", 2)])


def test_it_works_in_a_daemonic_process_and_in_threads():
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    process = spawn.Process(target=_daemonic, args=(queue,), daemon=True)
    process.start()
    assert queue.get(timeout=60) == [[1], "page_time", [2]]
    process.join()
    found = []

    def work() -> None:
        with sandbox() as box:
            found.append(box.call("echo", 1))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[1]] * 4


def test_a_call_costs_less_than_a_third_of_a_millisecond_of_cpu():
    page = b"x" * 10_000
    with sandbox("echo", seconds=5.0) as box:
        box.call(page)
        best = math.inf
        for _ in range(5):
            begun = time.process_time()
            for _ in range(100):
                box.call(page)
            best = min(best, (time.process_time() - begun) / 100)
    assert best < 0.0003
