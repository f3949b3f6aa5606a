"""Double precision, for what is compared with a closed form."""

import jax
import pytest


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield
