"""The directories with checkpoints that tests/checkpointing has, to harm."""

from tests.checkpointing.conftest import lines, saved

__all__ = ["lines", "saved"]
