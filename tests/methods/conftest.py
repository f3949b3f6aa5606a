"""What is tested here is compiled more than it is run."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """A third less time; golden numbers and whole runs are optimised as ever."""
    before = jax.config.jax_disable_most_optimizations
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
