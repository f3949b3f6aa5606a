"""Pixel targets and the weighted error, against numpy."""

import numpy as np

from sgmae_jax.methods.pixels import pixel_targets, reconstruction_loss
from sgmae_jax.models import patchify


def test_targets():
    images = np.random.default_rng(0).normal(size=(2, 4, 6, 5)).astype(np.float32)
    patches = patchify(images, (2, 3))
    np.testing.assert_array_equal(
        pixel_targets(images, (2, 3), norm_pix=False), patches
    )
    normalised = np.asarray(pixel_targets(images, (2, 3), norm_pix=True))
    np.testing.assert_allclose(normalised.mean(-1), 0, atol=1e-6)
    np.testing.assert_allclose(normalised.var(-1, ddof=1), 1, rtol=1e-5)


def test_loss_weighs_patches_over_the_whole_batch():
    rng = np.random.default_rng(0)
    pred, target = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    weight = np.asarray([[1, 0, 0, 2], [0, 0, 0, 0], [0.5, 0, 0, 0]], np.float32)
    error = ((pred - target) ** 2).mean(-1)
    expected = (error[0, 0] + 2 * error[0, 3] + 0.5 * error[2, 0]) / 3.5
    np.testing.assert_allclose(
        reconstruction_loss(pred, target, weight), expected, rtol=1e-6
    )
