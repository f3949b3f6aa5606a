"""Patches: order, inverse, standardisation, bad sizes."""

import numpy as np
import pytest

from sgmae_jax.models import normalise_patches, patchify, unpatchify


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
@pytest.mark.parametrize("grid, patch", [((2, 3), (4, 4)), ((5, 2), (1, 3))])
def test_order_and_inverse(grid, patch, channels):
    height, width = grid[0] * patch[0], grid[1] * patch[1]
    images = np.arange(2 * height * width * channels).reshape(
        2, height, width, channels
    )
    patches = patchify(images, patch)
    for token in range(grid[0] * grid[1]):
        top = token // grid[1] * patch[0]
        left = token % grid[1] * patch[1]
        cut = images[:, top : top + patch[0], left : left + patch[1]]
        np.testing.assert_array_equal(patches[:, token], cut.reshape(2, -1))
    np.testing.assert_array_equal(unpatchify(patches, patch, grid), images)


def test_standardised_by_unbiased_variance():
    patches = np.random.default_rng(0).normal(3.0, 2.0, (2, 5, 7)).astype(np.float32)
    normalised, mean, std = normalise_patches(patches)
    np.testing.assert_allclose(mean[..., 0], patches.mean(-1), rtol=1e-6)
    expected = np.sqrt(np.var(patches, -1, ddof=1) + 1e-6)
    np.testing.assert_allclose(std[..., 0], expected, rtol=1e-5)
    np.testing.assert_allclose(normalised * std + mean, patches, rtol=1e-5)


def test_constant_patch_is_finite():
    normalised, _, std = normalise_patches(np.full((1, 1, 4), 0.5, np.float32))
    np.testing.assert_array_equal(normalised, 0)
    np.testing.assert_allclose(std, 1e-3, rtol=1e-6)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: patchify(np.zeros((1, 6, 8, 3)), (4, 4)), "6x8 .* 4x4"),
        (lambda: patchify(np.zeros((1, 8, 6, 3)), (4, 4)), "8x6 .* 4x4"),
        (lambda: unpatchify(np.zeros((1, 5, 12)), (2, 2), (2, 3)), "5 .* 2x3"),
        (lambda: unpatchify(np.zeros((1, 6, 10)), (2, 2), (2, 3)), "10 .* 2x2"),
        (lambda: normalise_patches(np.zeros((1, 6, 1))), "single value"),
    ],
)
def test_bad_sizes_name_both_sides(call, words):
    with pytest.raises(ValueError, match=words):
        call()
