"""What the processes of one job have to agree on."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from sgmae_jax.checkpointing.errors import CheckpointError


def on_first(action: Callable[[], int | None]) -> int:
    """Runs an action on process 0 alone and gives its result to every process.

    Args:
        action: returns a number of 32 bits, or None for 0. Its exception is raised
            on process 0, and a `CheckpointError` elsewhere: nobody waits for ever.

    Returns:
        The result, the same everywhere.
    """
    if jax.process_count() == 1:
        return action() or 0
    result, error = 0, None
    if jax.process_index() == 0:
        try:
            result = action() or 0
        except Exception as caught:
            error = caught
    shared = np.array([result, error is not None], np.int32)
    result, failed = map(int, multihost_utils.broadcast_one_to_all(shared))
    if failed:
        raise error or CheckpointError("process 0 has stopped with an error")
    return result


def everywhere(flag: bool) -> bool:
    """Says whether a flag is set on every process.

    Args:
        flag: the flag of this process.

    Returns:
        The same on every process.
    """
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.bool_(flag)).all())
