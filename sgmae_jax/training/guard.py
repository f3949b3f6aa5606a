"""Host side of the guard against void steps: a budget, and what is kept of each."""

from __future__ import annotations

import collections
import json
import pathlib
from typing import Any


class NonFiniteError(RuntimeError):
    """More steps than allowed were void: not finite, or spikes."""

    exit_code = 4


class SkipBudget:
    """Counts void steps in a sliding window of steps.

    Args:
        budget: void steps allowed in any window.
        window: its length in steps.
        folder: where `nan_capture/` is written; None: nowhere.
    """

    def __init__(self, *, budget: int, window: int, folder: pathlib.Path | None):
        self._budget, self._window = budget, window
        self._folder = folder and folder / "nan_capture"
        self._void: collections.deque[int] = collections.deque()

    def void(self, step: int, details: dict[str, Any]) -> None:
        """Records a void step; the batch is captured by its example ids.

        Args:
            step: the step that was void.
            details: what is needed to replay it: seed, ids, epochs, metrics; the
                parameters are those of the last checkpoint, trained up to it.

        Raises:
            NonFiniteError: the budget of the window is spent.
        """
        self._void.append(step)
        while self._void[0] <= step - self._window:
            self._void.popleft()
        name = f"step_{step}.json"
        if self._folder is not None:
            self._folder.mkdir(exist_ok=True)
            text = json.dumps({"step": step, **details}, indent=1)
            (self._folder / name).write_text(text)
        if len(self._void) > self._budget:
            raise NonFiniteError(
                f"{len(self._void)} of the last {self._window} steps were void, their "
                "loss or gradient not finite or a spike (guard.budget = "
                f"{self._budget}); the last, step {step}, is described in "
                f"nan_capture/{name}"
            )
