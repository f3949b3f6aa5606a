"""Eight fake CPU devices for every test; set before JAX is imported."""

import contextlib
import os
import pathlib

import pytest

from tests.fault.faults import (  # noqa: F401 (hooks)
    pytest_collection_modifyitems,
    pytest_terminal_summary,
)

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]

# Many tests compile the same small programs, in this process or in one of their own. A
# worker has a folder to itself: entries are not written whole, and another would read.
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(
    REPOSITORY / ".pytest_cache" / "jax" / _WORKER
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder with real data and golden numbers; skips where there is none."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared folder with real data beside the repository")
    return folder


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """The tests of a file go to one worker, which has what it compiled and trained."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            # These share nothing and are long: one by one, they fill both workers.
            return nodeid if file.startswith("tests/fault/") else file

    return ByFile(config, log)


@contextlib.contextmanager
def quickly():
    """For what is compiled more than it is run: a third less time, the same numbers.

    Golden numbers, whole runs and restarts are optimised as users have them.
    """
    import jax

    option = "jax_disable_most_optimizations"
    before = jax.config.read(option)
    jax.config.update(option, True)
    try:
        yield
    finally:
        jax.config.update(option, before)


@pytest.fixture
def quick_compilation():
    """See `quickly`."""
    with quickly():
        yield
