"""The step that scores best on the validation split, kept apart from the others."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from sgmae_jax.checkpointing import (
    BEST,
    Checkpointer,
    SaveFailed,
    read_meta,
    restore_params,
    saved_steps,
)
from sgmae_jax.methods.base import Params

_SCORE = "validation"


class Best:
    """Keeps the parameters of the best step so far in a run's folder `best`.

    What was best is read from that folder: a run that was killed and goes on offers
    the steps in between a second time, with the same scores, and nothing changes.

    Args:
        workdir: the run directory.
        log: receives the checkpoints' lines.

    Attributes:
        step: of the best so far, or None.
    """

    def __init__(self, workdir: pathlib.Path, log: Callable[[str], None]):
        self._folder, self._log = workdir / BEST, log
        # Two: should the best one be damaged, there is the best before it.
        self._keeper = Checkpointer(self._folder, keep=2, log=log)
        self._score = float("-inf")
        self.step: int | None = None
        if saved_steps(self._folder):
            self.step, meta = read_meta(self._folder, log=log)
            self._score = meta[_SCORE]

    def offer(
        self, step: int, score: float, params: Params, meta: Mapping[str, Any]
    ) -> None:
        """Keeps a step if it scores higher than all before; the first of equals stays.

        Args:
            step: its number.
            score: the higher the better; NaN is never kept.
            params: of that step.
            meta: as a checkpoint's.
        """
        if score > self._score:
            self._score, self.step = score, step
            self._keeper.save(step, {"params": params}, {**meta, _SCORE: score})

    def params(self, target: Params) -> tuple[int, Params]:
        """The best step and its parameters, in the target's shardings.

        Raises:
            SaveFailed: it could not be written.
            NoUsableCheckpoint: it is damaged, or no score was a number.
        """
        if not self._keeper.wait():
            raise SaveFailed("the best step could not be saved")
        step, _ = read_meta(self._folder, log=self._log)
        return step, restore_params(self._folder, target, step=step, log=self._log)

    def close(self) -> None:
        """Waits for what is being written."""
        self._keeper.close()
