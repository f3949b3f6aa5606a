"""What the program can be asked to do, by the config's `task`."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

from sgmae_jax.tasks.analyze import analyze, series_of_run
from sgmae_jax.tasks.compare import compare
from sgmae_jax.tasks.evaluate import evaluate
from sgmae_jax.tasks.export import export, import_
from sgmae_jax.tasks.laboratory import laboratory
from sgmae_jax.tasks.restore import restore_run
from sgmae_jax.tasks.submit import submit
from sgmae_jax.training.console import Console
from sgmae_jax.training.loop import pretrain

TASKS: dict[str, Callable[[Any, pathlib.Path, Console], None]] = {
    "pretrain": pretrain,
    "evaluate": evaluate,
    "export": export,
    "import": import_,
    "analyze": analyze,
    "compare": compare,
    "submit": submit,
    "laboratory": laboratory,
}

# Those that the processes of a job do together.
SHARED = ("pretrain", "evaluate")

__all__ = ["SHARED", "TASKS", "restore_run", "series_of_run"]
