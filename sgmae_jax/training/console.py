"""What a person sees: one live line in a terminal, plain lines anywhere else."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator
from typing import TextIO


class Console:
    """Prints notes that stay and a progress line that is overwritten in a terminal.

    Args:
        stream: where to; None: standard output.
        process: of a process that is not the first, its number: it only warns.
    """

    def __init__(self, stream: TextIO | None = None, *, process: int = 0):
        self._stream = stream or sys.stdout
        self._process = process
        self._live = self._stream.isatty()
        self._open_line = False

    def say(self, line: str) -> None:
        """A line that stays."""
        if not self._process:
            self._end_progress()
            print(line, file=self._stream, flush=True)

    def warn(self, line: str) -> None:
        """A line that stays, of something that this process alone may have seen."""
        self._end_progress()
        whose = f"process {self._process}: " if self._process else ""
        print(whose + line, file=self._stream, flush=True)

    def progress(self, line: str) -> None:
        """The current state; replaces the last one in a terminal."""
        if self._process:
            return
        if not self._live:
            print(line, file=self._stream, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{line[:width]:<{width}}", end="", file=self._stream, flush=True)
        self._open_line = True

    def close(self) -> None:
        """Leaves the cursor on a fresh line."""
        self._end_progress()

    def _end_progress(self) -> None:
        if self._open_line:
            print(file=self._stream, flush=True)
            self._open_line = False


class Stopwatch:
    """Throughput and time to go, over the steps since this process started."""

    def __init__(self, *, start_step: int, total_steps: int, batch_size: int):
        self._total = total_steps
        self._batch = batch_size
        self._last = (start_step, time.perf_counter())
        self._aside = 0.0
        self._rates: list[float] = []

    def lap(self, step: int) -> tuple[float, float]:
        """(images a second since the last lap, seconds to the end of the run)."""
        now = time.perf_counter()
        last_step, last_time = self._last
        self._last = (step, now)
        rate = (step - last_step) / max(now - last_time - self._aside, 1e-9)
        self._aside = 0.0
        # The first lap holds the compilation; it says nothing about the rest.
        self._rates = [*self._rates[-9:], rate]
        steady = self._rates[1:] or self._rates
        return rate * self._batch, (self._total - step) * len(steady) / sum(steady)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """What happens inside (scores, pictures) is not training time."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._aside += time.perf_counter() - began


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
