"""When to end a run before its end: signals, and what all processes make of them."""

from __future__ import annotations

import signal
import time
from typing import Any

import jax

from sgmae_jax.processes import Vote

_REPEATED_SECONDS = 5.0


class StopSignal:
    """Turns SIGTERM and the first Ctrl-C into a wish to stop after this step.

    A second signal ends at once, but not in the first seconds: when a machine goes down
    both the program and the script that started it are told, and the script passes it
    on. Of several processes all stop after the same step, whichever got the signal.

    Args:
        late: calls of `asked` between a wish and the stop, of several processes.

    Attributes:
        now: whether to stop.
    """

    def __init__(self, *, late: int) -> None:
        self.now = False
        self._wish = False
        self._told = 0.0
        self._previous: dict[int, Any] = {}
        self._vote = Vote(late) if jax.process_count() > 1 else None

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """Asks all processes, once a step; sets and returns `now`."""
        self.now = self.now or (
            self._wish if self._vote is None else self._vote.cast(self._wish)
        )
        return self.now

    def _handle(self, number: int, frame: object) -> None:
        del frame
        if not self._wish:
            self._wish, self._told = True, time.monotonic()
        elif time.monotonic() - self._told > _REPEATED_SECONDS:
            signal.signal(number, self._previous[number])
            signal.raise_signal(number)
