"""One small model and its parameters, compiled once for all tests."""

import jax
import pytest

from tests.models.tiny import autoencoder, noisy


@pytest.fixture(scope="session")
def model():
    return autoencoder()


@pytest.fixture(scope="session")
def start(model):
    """Parameters as they are initialised."""
    return model.init(jax.random.key(0))


@pytest.fixture(scope="session")
def params(start):
    """Parameters as after some training."""
    return noisy(start)
