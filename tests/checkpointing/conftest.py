"""Directories with checkpoints to harm."""

import pytest

from sgmae_jax.checkpointing import Checkpointer
from tests.checkpointing.states import make_state


@pytest.fixture
def lines():
    """Log lines of the checkpointer under test."""
    return []


@pytest.fixture
def saved(tmp_path, lines):
    """A directory with the steps 1 and 2 and a checkpointer that looks at it."""
    directory = tmp_path / "checkpoints"
    checkpointer = Checkpointer(directory, log=lines.append)
    for step in (1, 2):
        checkpointer.save(step, make_state(step), {"step": step})
        assert checkpointer.wait()  # or a slow disk leaves its line in the log
    yield directory, checkpointer
    checkpointer.close()
