"""A reader that fails, ends its thread, or never comes back: an error, and in time."""

import itertools
import os
import subprocess
import sys
import threading
import time

import pytest

from sgmae_jax.data import DataError, ImageRows, Loader
from sgmae_jax.data.errors import Stalled
from tests.data.test_loader import Numbers
from tests.tiny import arguments, environment


class Broken(Numbers):
    """Reading example 7 does what a test wants."""

    def __init__(self, act):
        super().__init__(50)
        self._act = act

    def __getitem__(self, index):
        if index == 7:
            self._act()
        return super().__getitem__(index)


def read(act, *, sweep=False, **options):
    made = Loader(Broken(act), ImageRows((8, 8)), batch_size=10, seed=0, **options)
    batches = made.sweep() if sweep else itertools.islice(made.iterate(0), 5)
    return list(batches)


def end_thread():
    raise SystemExit(0)


def fail():
    raise OSError("disk gone")


@pytest.mark.fault(18)
@pytest.mark.parametrize("act", [fail, end_thread])
@pytest.mark.parametrize("sweep", [False, True])
def test_a_reader_that_ends_its_thread_is_an_error_that_names_the_example(act, sweep):
    with pytest.raises(RuntimeError, match="example 7 of numbers"):
        read(act, sweep=sweep)


@pytest.mark.fault(18)
@pytest.mark.parametrize("sweep", [False, True])
def test_a_read_that_hangs_is_an_error_in_time(sweep):
    free = threading.Event()
    begin = time.monotonic()
    with pytest.raises(Stalled, match=r"numbers in 0\.3 s \(config\.data\.timeout\)"):
        read(free.wait, sweep=sweep, timeout=0.3)
    assert time.monotonic() - begin < 5
    assert issubclass(Stalled, DataError) and Stalled.exit_code == 2
    free.set()  # else Python waits for the thread at exit


@pytest.mark.fault(18)
def test_a_slow_read_is_waited_for():
    assert len(read(lambda: time.sleep(0.5), timeout=30.0)) == 5


@pytest.mark.fault(18)
def test_closing_does_not_wait_for_ever_either():
    free = threading.Event()
    made = Loader(
        Broken(free.wait),
        ImageRows((8, 8)),
        batch_size=10,
        seed=0,
        timeout=0.5,
        prefetch=5,
    )
    batches, begin = made.iterate(0), time.monotonic()
    if 7 not in next(batches)[1]["id"]:
        batches.close()
    assert time.monotonic() - begin < 5
    free.set()


# `main` alone: that it ends the process is the business of whoever calls it.
_HUNG = """
import os, sys, threading
from sgmae_jax.data.synthetic import Synthetic
from sgmae_jax.main import main

read = Synthetic.__getitem__
def hung(self, index):
    if index % 50 == 7:
        threading.Event().wait()
    return read(self, index)

Synthetic.__getitem__ = hung
code = main(sys.argv[1:])
sys.stdout.flush(), sys.stderr.flush()
os._exit(code)
"""


@pytest.mark.fault(18)
def test_a_run_whose_disk_hangs_ends_with_one_line(tmp_path):
    words = arguments(tmp_path / "run", data__timeout=2)
    done = subprocess.run(
        [sys.executable, "-c", _HUNG, *words],
        env={**environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "config.data.timeout" in done.stderr and "synthetic" in done.stderr
