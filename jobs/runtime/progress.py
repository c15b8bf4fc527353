"""Progress: bars on a terminal, plain lines elsewhere; always on stderr, so that stdout stays a document."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import pyarrow as pa

LINE_SECONDS = 15.0


class Progress:
    """Silent: for tests and for the runtime inside other programs."""

    def say(self, line: str) -> None:
        """One line about what happens."""

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[pa.Table], None]]:
        """A counter of units; the yielded function is called with the done rows of each."""
        yield lambda _rows: None


class LineProgress(Progress):
    """A line when a stage begins, every 15 s, and when it ends."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def say(self, line: str) -> None:
        """One line."""
        self._stream.write(line + "\n")
        self._stream.flush()

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[pa.Table], None]]:
        """Counts units; says so now and then."""
        begun = last = time.monotonic()
        count = 0

        def tick(_rows: pa.Table) -> None:
            nonlocal count, last
            count += 1
            if time.monotonic() - last > LINE_SECONDS:
                last = time.monotonic()
                self.say(f"  {name}: {count} of {total} units, {last - begun:.0f} s")

        yield tick
        if total:
            self.say(f"  {name}: {count} of {total} units in {time.monotonic() - begun:.1f} s")


class BarProgress(LineProgress):
    """A bar on the terminal."""

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[pa.Table], None]]:
        """A bar with the time left."""
        if not total:
            yield lambda _rows: None
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("units"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=Console(file=self._stream)) as bars:
            task = bars.add_task(name, total=total)
            yield lambda _rows: bars.advance(task)


class JsonProgress(Progress):
    """One JSON object a line: time, event, and for stages name, count and total."""

    def __init__(self, stream: TextIO | None = None) -> None:
        import structlog

        self._log = structlog.wrap_logger(
            structlog.PrintLogger(stream or sys.stderr),
            processors=[
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )

    def say(self, line: str) -> None:
        """An event `said`."""
        if line.strip():
            self._log.msg("said", text=line.strip())

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[pa.Table], None]]:
        """Events `stage_begun`, `stage_progress` every 15 s, `stage_ended`."""
        begun = last = time.monotonic()
        count = 0
        self._log.msg("stage_begun", stage=name, units=total)

        def tick(_rows: pa.Table) -> None:
            nonlocal count, last
            count += 1
            if time.monotonic() - last > LINE_SECONDS:
                last = time.monotonic()
                self._log.msg("stage_progress", stage=name, done=count, units=total)

        yield tick
        seconds = round(time.monotonic() - begun, 2)
        self._log.msg("stage_ended", stage=name, done=count, units=total, seconds=seconds)


def progress_for(stream: TextIO, *, as_json: bool = False) -> Progress:
    """Bars where a person looks, lines elsewhere; JSON lines where they are asked for."""
    if as_json:
        return JsonProgress(stream)
    return BarProgress(stream) if stream.isatty() else LineProgress(stream)
