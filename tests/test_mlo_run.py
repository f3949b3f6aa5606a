"""A run of MLO-MAE from the command line, and its masks in other runs."""

import pathlib

import jax
import numpy as np
import pytest

from sgmae_jax.masking import Context, MaskError, check_mask_fn, example_keys
from sgmae_jax.methods.frozen import read_run
from sgmae_jax.methods.image import make_autoencoder
from sgmae_jax.methods.learned_masks import learned
from tests import tiny

STEPS = 6
CHANGES = {
    "method__name": "mlo_mae",
    "method__every": 2,
    # A rate that makes any operator's series diverge.
    "method__solver": "neumann",
    "method__rate": 1e9,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run and what its console said."""
    folder = tmp_path_factory.mktemp("runs") / "mlo"
    code, output = tiny.run(folder, steps=STEPS, **CHANGES)
    assert code == 0, output
    return folder, output


def pictures(count, side=16, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, side, side, 3)).astype(np.float32)


def context_of(images, grid=(4, 4)):
    keys = example_keys(
        jax.random.key(0), np.zeros(len(images), int), np.arange(len(images)), "mask"
    )
    return keys, Context(grid=grid, images=images)


def test_divergence_is_told_and_costs_nothing_else(run):
    folder, output = run
    assert "the hypergradient's solver diverged, and the masking network" in output
    assert "skipped" not in output and "trained encoder" in output
    assert "own head" in output  # of the head that was trained on the way
    assert len(tiny.losses(folder)) == STEPS


def test_masks_are_those_of_the_run(run):
    folder, _ = run
    config, method, params = read_run(pathlib.Path(folder))
    images = pictures(6)
    keys, context = context_of(images)
    found = jax.jit(lambda k: learned(k, context, ratio=0.75, run=str(folder)))(keys)
    batch = {"image": images, "id": np.arange(6), "epoch": np.zeros(6, int)}
    shown = method.picture(params, batch, jax.random.key(0), 0, 0.75)
    np.testing.assert_array_equal(found.hidden, shown.hidden)
    weight = np.asarray(found.loss_weight)
    assert np.all((weight > 0) == (np.asarray(found.hidden) == 1)) and weight.max() < 1
    plain = learned(keys, context, ratio=0.75, run=str(folder), weighted=False)
    np.testing.assert_array_equal(plain.loss_weight, plain.hidden)
    assert make_autoencoder(config).grid == (4, 4)


@pytest.mark.slow
def test_another_run_takes_them(run, tmp_path):
    folder, _ = run
    check_mask_fn(
        learned,
        grid=(4, 4),
        ratio=0.75,
        options={"run": str(folder)},
        image_shape=(16, 16, 3),
    )
    code, output = tiny.run(
        tmp_path / "mae",
        steps=2,
        mask__fn="sgmae_jax.methods.learned_masks:learned",
        mask__options__run=folder,
    )
    assert code == 0, output


def test_what_cannot_be_taken_is_one_line(run, tmp_path):
    folder, _ = run
    keys, context = context_of(pictures(2, side=32), grid=(8, 8))
    with pytest.raises(MaskError, match=r"grid of \(4, 4\) patches, not \(8, 8\)"):
        learned(keys, context, ratio=0.75, run=str(folder))
    with pytest.raises(MaskError, match="must be a run directory with checkpoints"):
        learned(keys, context, ratio=0.75, run=str(tmp_path))
    with pytest.raises(ValueError, match="need images"):
        learned(keys, Context(grid=(4, 4)), ratio=0.75, run=str(folder))


def test_pictures_without_classes_cannot_teach(tmp_path):
    from PIL import Image

    folder = tmp_path / "flat"
    folder.mkdir()
    for index in range(20):
        pixels = np.full((16, 16, 3), 12 * index, np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    code, output = tiny.run(
        tmp_path / "run",
        **{**CHANGES, "data__source": "folder", "data__path": folder},
        data__split="train",
    )
    assert code == 2
    assert "which the batches 'train' of this method need" in output
    assert "Traceback" not in output
