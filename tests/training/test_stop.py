"""Signals while a run trains: the first is a wish, later ones are orders."""

import signal

import pytest

from sgmae_jax.training import stop as stop_lib
from sgmae_jax.training.stop import StopSignal


@pytest.fixture
def ordered(monkeypatch):
    """Signals that reached whoever had them before; the clock is ours."""
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    clock = [100.0]
    monkeypatch.setattr(stop_lib.time, "monotonic", lambda: clock[0])
    yield seen, clock
    signal.signal(signal.SIGTERM, before)


def test_the_first_signal_is_a_wish(ordered):
    seen, _ = ordered
    with StopSignal(late=2) as stop:
        assert not stop.asked()
        signal.raise_signal(signal.SIGTERM)
        assert not stop.now  # nobody has asked since
        assert stop.asked() and stop.now
    assert not seen
    signal.raise_signal(signal.SIGTERM)  # the run is over
    assert seen == [signal.SIGTERM]


def test_one_that_is_passed_on_twice_is_no_order(ordered):
    seen, clock = ordered
    with StopSignal(late=2) as stop:
        signal.raise_signal(signal.SIGTERM)
        clock[0] += 4
        signal.raise_signal(signal.SIGTERM)
        assert not seen and stop.asked()
        clock[0] += 4
        signal.raise_signal(signal.SIGTERM)
        assert seen == [signal.SIGTERM]
