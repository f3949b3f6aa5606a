"""A batch that is far out of range: clipped or left out, and soon forgotten."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgmae_jax.config import default_config
from sgmae_jax.main import main
from sgmae_jax.optimizer import make_adamw, spiked, watch_spikes
from sgmae_jax.training import step as training_step
from sgmae_jax.training.state import init_state
from sgmae_jax.training.step import make_step
from tests.tiny import arguments, losses
from tests.training.toys import KEY, quadratic, rows, toy


def watched(factor=3.0, window=4, **fields):
    optimizer = optax.chain(watch_spikes(factor, window), optax.sgd(0.01))
    return toy(quadratic("model", 1.0, optimizer), **fields)


def after(method, *values):
    step = jax.jit(make_step(method), static_argnums=2)
    state, found = init_state(method, KEY), []
    for value in values:
        state, metrics = step(state, rows(value), ())
        found.append((int(metrics["skipped"]), int(metrics["spiked"])))
    return state, found


@pytest.mark.fault(14)
def test_a_spike_is_void_and_no_other_step():
    clean, found = after(watched(), 1.0, 1.1, 0.9, 1.0, 1.2)
    assert found == [(0, 0)] * 5
    torn, found = after(watched(), 1.0, 1.1, 0.9, 1.0, 1e4, 1.2)
    assert found == [*[(0, 0)] * 4, (0, 1), (0, 0)]
    jax.tree.map(np.testing.assert_array_equal, torn.params, clean.params)
    jax.tree.map(np.testing.assert_array_equal, torn.opt, clean.opt)
    assert int(torn.step) == 6 and int(torn.skipped) == 0


@pytest.mark.fault(14)
def test_nothing_is_a_spike_before_the_window_is_full():
    _, found = after(watched(), 1.0, 1e4, 1.0, 1.0)
    assert found == [(0, 0)] * 4


@pytest.mark.fault(14)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_never_enters_the_median(bad):
    state, found = after(watched(), 1.0, 1.0, bad, 1.0, 1.0, bad, 1.0, 1e4, 1.0)
    assert [skipped for skipped, _ in found] == [0, 0, 1, 0, 0, 1, 0, 0, 0]
    assert [spike for _, spike in found] == [*[0] * 7, 1, 0]
    assert np.isfinite(state.opt[0][0].norms).all()


def test_nobody_watches_unless_asked_to():
    optim = default_config().optim
    length = {"batch_size": 16, "steps_per_epoch": 5, "total_steps": 10}
    params = {"kernel": jnp.ones(2)}
    assert spiked(make_adamw(optim, **length).init(params)) is None
    optim.spike = 10.0
    assert spiked(make_adamw(optim, **length).init(params)) is not None


def disturbed(monkeypatch, at):
    """Every later run is given one batch whose gradient is 10 000 times as long."""

    def wrapped(method, **options):
        def times(update):
            def gradient(params, batches, key, step, phase, **more):
                grads, own = update.gradient(params, batches, key, step, phase, **more)
                factor = jnp.where(step == at, 1e4, 1.0)
                return jax.tree.map(lambda leaf: leaf * factor, grads), own

            return update._replace(gradient=gradient)

        updates = tuple(times(update) for update in method.updates)
        return make_step(method._replace(updates=updates), **options)

    monkeypatch.setattr(training_step, "make_step", wrapped)


@pytest.mark.slow
@pytest.mark.fault(14)
@pytest.mark.parametrize(
    "guard",
    [
        {"optim__clip_norm": 1.0},
        {"optim__spike": 10.0, "optim__spike_window": 4},
    ],
    ids=["clipped", "skipped"],
)
def test_a_run_recovers_within_five_steps(guard, tmp_path, monkeypatch):
    length = {"steps": 16, "eval__limit": 1, **guard}
    disturbed(monkeypatch, at=99)  # never, in a program that is the same else
    assert main(arguments(tmp_path / "clean", **length)) == 0
    monkeypatch.undo()
    disturbed(monkeypatch, at=9)
    assert main(arguments(tmp_path / "torn", **length)) == 0
    clean, torn = losses(tmp_path / "clean"), losses(tmp_path / "torn")
    for step in range(1, 10):
        assert torn[step] == clean[step]
    for step in range(15, 17):
        assert torn[step] == pytest.approx(clean[step], rel=0.05)
    if "optim__spike" in guard:
        lines = (tmp_path / "torn" / "metrics.jsonl").read_text().splitlines()
        found = [json.loads(line) for line in lines]
        counts = [row["spiked"] for row in found if "spiked" in row]
        assert counts == [float(step == 9) for step in range(16)]
        assert not any(row.get("skipped") for row in found)
        # What is remembered of the norms is in the checkpoint.
        import shutil

        for step in (14, 16):
            shutil.rmtree(tmp_path / "torn" / "checkpoints" / str(step))
        assert main(arguments(tmp_path / "torn", **length)) == 0
        assert losses(tmp_path / "torn") == torn
