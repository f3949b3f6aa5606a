"""What is tested here is compiled more than it is run."""

import pytest

from tests.conftest import quickly


@pytest.fixture(autouse=True, scope="module")
def _quickly():
    with quickly():
        yield
