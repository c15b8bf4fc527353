"""Progress: bars on a terminal, plain lines elsewhere; always on stderr, so that stdout stays a document."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import pyarrow as pa
import pyarrow.compute as pc

LINE_SECONDS = 15.0


class Pace:
    """Units and rows done of a stage, as words: how many, how fast, how long it will take."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock, self._begun = total, clock, clock()
        self.count, self.rows = 0, 0

    def add(self, rows: pa.Table) -> None:
        """A finished unit; `rows`: its done rows, empty where the engine has none at hand."""
        self.count += 1
        if rows.num_rows:
            parts = rows.filter(pc.equal(rows["role"], "part"))
            first = parts.slice(0, 1)  # further datasets hold the same rows
            self.rows += pc.sum(first["rows"]).as_py() or 0

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._clock() - self._begun

    def told(self) -> str:
        """`120 of 400 units, 15 s, 2,300 documents/s, 34 s left`."""
        seconds = max(1e-9, self.seconds)
        words = [f"{self.count} of {self._total} units", f"{seconds:.0f} s"]
        if self.rows:
            words.append(f"{self.rows / seconds:,.0f} documents/s")
        if 0 < self.count < self._total:
            words.append(f"{seconds / self.count * (self._total - self.count):.0f} s left")
        return ", ".join(words)


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
        pace, last = Pace(total), time.monotonic()

        def tick(rows: pa.Table) -> None:
            nonlocal last
            pace.add(rows)
            if time.monotonic() - last > LINE_SECONDS:
                last = time.monotonic()
                self.say(f"  {name}: {pace.told()}")

        yield tick
        if total:
            speed = f", {pace.rows / max(1e-9, pace.seconds):,.0f} documents/s" if pace.rows else ""
            self.say(f"  {name}: {pace.count} of {total} units in {pace.seconds:.1f} s{speed}")


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
            TextColumn("{task.fields[speed]}"),
        )
        with Bars(*columns, console=Console(file=self._stream)) as bars:
            task, pace = bars.add_task(name, total=total, speed=""), Pace(total)

            def tick(rows: pa.Table) -> None:
                pace.add(rows)
                speed = f"{pace.rows / max(1e-9, pace.seconds):,.0f} documents/s" if pace.rows else ""
                bars.update(task, advance=1, speed=speed)

            yield tick


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
        pace, last = Pace(total), time.monotonic()
        self._log.msg("stage_begun", stage=name, units=total)

        def tick(rows: pa.Table) -> None:
            nonlocal last
            pace.add(rows)
            if time.monotonic() - last > LINE_SECONDS:
                last = time.monotonic()
                self._log.msg("stage_progress", stage=name, done=pace.count, units=total, rows=pace.rows)

        yield tick
        seconds = round(pace.seconds, 2)
        self._log.msg("stage_ended", stage=name, done=pace.count, units=total, rows=pace.rows, seconds=seconds)


def progress_for(stream: TextIO, *, as_json: bool = False) -> Progress:
    """Bars where a person looks, lines elsewhere; JSON lines where they are asked for."""
    if as_json:
        return JsonProgress(stream)
    return BarProgress(stream) if stream.isatty() else LineProgress(stream)
