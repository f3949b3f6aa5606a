"""Exponents of growth, and the parts of the benchmark of overheads."""

import jax
import numpy as np
import pytest

from benchmarks.bare import Sizes
from benchmarks.growth import exponent, growth
from benchmarks.growth_plots import draw
from benchmarks.masks import fixed_mask, one_mask
from benchmarks.ours import Trainer, build, config_of
from benchmarks.overheads import Size, Training, steps_around, unguarded, with_step
from sgmae_jax.masking.keys import example_keys
from sgmae_jax.masking.types import Context

SIZES = Sizes(16, 4, 24, 1, 2, 16, 1, 2)


def test_exponents_of_known_powers():
    sizes = [1, 2, 4, 8]
    assert exponent(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx(1.5)
    # A fixed cost flattens the whole, less so the end.
    found = growth(sizes, [10 + size**2 for size in sizes])
    assert found["all"] < found["end"] < 2
    with pytest.raises(ValueError, match="two different"):
        exponent([4, 4], [1, 2])


def test_growth_is_drawn(tmp_path):
    line = {
        "sizes": [1, 2],
        "seconds": [0.1, 0.2],
        "gflop": [1.0, 2.0],
        "exponent": {"all": 1.0, "end": 1.0},
        "flop_exponent": {"all": 1.0, "end": 1.0},
    }
    draw(dict.fromkeys(("tokens", "devices"), line), tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("make", [fixed_mask, one_mask])
def test_other_masks_are_the_same_in_every_example(make):
    ids = np.arange(3, dtype=np.int32)
    keys = example_keys(jax.random.key(0), np.zeros(3, np.int32), ids, "mask")
    mask = make(keys, Context(grid=(4, 4)), ratio=0.75)
    hidden = np.asarray(mask.hidden)
    assert (hidden.sum(1) == 12).all() and (hidden == hidden[0]).all()


def test_the_unguarded_step_is_the_step_but_for_its_guard():
    config = config_of(SIZES, 8, method="rc_mae")
    method = build(config)
    trainers = [Trainer(config, SIZES, method=method) for _ in range(2)]
    trainers[1].step = with_step(unguarded, method, trainers[1].shardings)
    found = [[trainer() for _ in range(3)][-1] for trainer in trainers]
    assert found[0].keys() == found[1].keys()
    for name in found[0]:
        np.testing.assert_allclose(*(one[name] for one in found), 1e-4, 1e-7)


def test_a_window_of_training_writes_its_metrics(tmp_path):
    size = Size(SIZES, 8, 2, 4)
    training = Training(size, tmp_path / "on")
    training()
    training()
    assert len((tmp_path / "on" / "metrics.jsonl").read_text().splitlines()) == 2
    quiet = Training(size, tmp_path / "off", metrics=False)
    assert quiet().keys() == {"loss"} and not (tmp_path / "off").exists()


def test_a_save_comes_once_and_its_step_is_the_long_one():
    import time

    saved = []

    def save():
        saved.append(1)
        time.sleep(0.5)

    trainer = Trainer(config_of(SIZES, 8), SIZES)
    trainer()
    seconds = steps_around(trainer, 5, save)
    assert saved == [1] and len(seconds) == 5 and seconds[1] >= 0.5
