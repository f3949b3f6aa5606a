"""A method's own masks are asked for as in training, and drawn as they are."""

import jax
import jax.numpy as jnp
import numpy as np

from sgmae_jax.analysis import pictures
from sgmae_jax.analysis.masks import mask_sheet, own_masks
from sgmae_jax.masking import example_keys
from sgmae_jax.methods.base import Picture, Sweep
from tests.analysis.sheets import cut, reduced
from tests.methods.cases import batch_of
from tests.training.toys import toy

GRID, PATCH, COUNT = (4, 4), (2, 2), 3
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), np.uint8)


def chosen(params, batch, key, step, phase):
    """Draws by example, plus what another network than the model says."""
    assert {name: x.dtype for name, x in batch.items()} == {
        name: x.dtype for name, x in batch_of().items()
    }
    keys = example_keys(key, batch["epoch"], batch["id"], "mask")
    score = jax.vmap(lambda one: jax.random.uniform(one, (16,)))(keys)
    score += params["masker"]["kernel"][0] * jnp.arange(16)
    hidden = jnp.argsort(jnp.argsort(score)) < 16 * phase
    return Picture(hidden.astype(jnp.float32), None)


def test_masks_follow_all_that_is_learned_and_the_phase_of_the_step():
    method = toy(
        init={"model": 0.0, "masker": 0.0},
        picture=chosen,
        phase=lambda step, marks: 0.5 if step < marks["late"] else 0.75,
    )
    hide = own_masks(method, IMAGES, seed=3, marks={"late": 5})
    start = {name: {"kernel": jnp.zeros(3)} for name in ("model", "masker")}
    learned = start | {"masker": {"kernel": jnp.ones(3)}}
    first = hide(start, 0)
    assert first.shape == (COUNT, 16) and (first.sum(1) == 8).all()
    assert len({tuple(row) for row in first}) == COUNT
    np.testing.assert_array_equal(first, hide(start, 5))  # after steps 0 to 4
    later = hide(start, 6)
    assert (later.sum(1) == 12).all() and (later >= first).all()
    np.testing.assert_array_equal(
        hide(learned, 5), np.tile(np.arange(16) < 8, (COUNT, 1))
    )


def test_nothing_to_show():
    assert own_masks(toy(init={"model": 0.0}), IMAGES, seed=0, marks={}) is None
    method = toy(init={"model": 0.0}, picture=chosen)
    assert own_masks(method, IMAGES[:0], seed=0, marks={}) is None


def test_a_bank_is_asked_about_these_images_and_not_about_those_of_training():
    def absorb(params, batch, step, phase):
        del step, phase
        light = (batch["image"].mean((1, 2, 3)) > 127)[:, None]
        return {**params, "bank": params["bank"].at[batch["id"]].set(light * 1.0)}

    def remembered(params, batch, key, step, phase):
        del key, step, phase
        known = batch["id"] >= 0
        return Picture(params["bank"][batch["id"]] * known[:, None], None)

    images = np.full((2, 8, 8, 3), 255, np.uint8) * np.uint8([[[[0]]], [[[1]]]])
    of_training = {"bank": jnp.ones((4, 16))}
    method = toy(init={"model": 0.0}, picture=remembered)
    swept = method._replace(sweep=Sweep(lambda step, marks: False, absorb))
    hide = own_masks(swept, images, seed=0, marks={})
    np.testing.assert_array_equal(hide(of_training, 8).mean(1), [0, 1])
    hide = own_masks(method, images, seed=0, marks={})
    np.testing.assert_array_equal(hide(of_training, 8).mean(1), [0, 0])


def test_columns_show_exactly_what_is_hidden():
    rng = np.random.default_rng(1)
    masks = {
        step: (rng.random((COUNT, 16)) < 0.75).astype(np.float32)
        for step in (0, 40, 20_000)
    }
    drawn = mask_sheet(IMAGES, masks, grid=GRID, patch_size=PATCH)
    titles = ["image", *masks]
    columns = {
        title: reduced(column, 8) for title, column in cut(drawn, titles, COUNT).items()
    }
    np.testing.assert_array_equal(columns["image"], IMAGES)
    for step, hidden in masks.items():
        unseen = pictures.token_pixels(hidden > 0, GRID, PATCH)[..., 0]
        assert (columns[step][unseen] == pictures._HIDDEN).all()
        np.testing.assert_array_equal(columns[step][~unseen], IMAGES[~unseen])
