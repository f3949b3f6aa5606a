"""The loader itself, on sizes that no public fixture has."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden.authors import load
from tests.golden.conversion import from_theirs, to_theirs

# Awkward on purpose: two channels, rectangular patches, unequal depths.
WIDTH, DEPTH, SMALL, SMALL_DEPTH, CHANNELS, PATCH, GRID = 12, 3, 8, 2, 2, (3, 2), (2, 5)


def random_parameters() -> dict[str, np.ndarray]:
    """Parameters as the authors' code would store them."""
    values, tokens = CHANNELS * PATCH[0] * PATCH[1], GRID[0] * GRID[1]
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 1 + tokens, WIDTH),
        "mask_token": (1, 1, SMALL),
        "patch_embed.proj.weight": (WIDTH, CHANNELS, *PATCH),
        "patch_embed.proj.bias": (WIDTH,),
        "decoder_embed.weight": (SMALL, WIDTH),
        "decoder_embed.bias": (SMALL,),
        "decoder_pred.weight": (values, SMALL),
        "decoder_pred.bias": (values,),
    }
    for norm, width in (("norm", WIDTH), ("decoder_norm", SMALL)):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for stack, width, depth in (
        ("blocks", WIDTH, DEPTH),
        ("decoder_blocks", SMALL, SMALL_DEPTH),
    ):
        for layer in range(depth):
            for name, out, inputs in (
                ("attn.qkv", 3 * width, width),
                ("attn.proj", width, width),
                ("mlp.fc1", 4 * width, width),
                ("mlp.fc2", width, 4 * width),
            ):
                shapes[f"{stack}.{layer}.{name}.weight"] = (out, inputs)
                shapes[f"{stack}.{layer}.{name}.bias"] = (out,)
            for name in ("norm1", "norm2"):
                shapes[f"{stack}.{layer}.{name}.weight"] = (width,)
                shapes[f"{stack}.{layer}.{name}.bias"] = (width,)
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def theirs():
    return random_parameters()


@pytest.fixture(scope="module")
def images():
    shape = (2, CHANNELS, GRID[0] * PATCH[0], GRID[1] * PATCH[1])
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def test_there_and_back(theirs):
    back = to_theirs(from_theirs(theirs), theirs)
    for name, array in theirs.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)


def test_sizes_come_from_shapes(theirs, images):
    model, params = load(theirs, {}, images, heads=3, decoder_heads=2)
    assert model.grid == GRID
    assert model.patch_size == PATCH
    assert model.channels == CHANNELS
    assert (model.encoder.width, model.encoder.depth) == (WIDTH, DEPTH)
    assert (model.decoder.width, model.decoder.depth) == (SMALL, SMALL_DEPTH)
    # A given table that is not the fixed one is used as it stands.
    assert model.encoder.positions == "learned"
    assert model.decoder.positions == "sincos"
    fresh = jax.eval_shape(model.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, fresh)


def test_patch_projection_is_their_convolution(theirs, images):
    model, params = load(theirs, {}, images, heads=3, decoder_heads=2)
    convolved = jax.lax.conv_general_dilated(
        images, theirs["patch_embed.proj.weight"], PATCH, "VALID"
    )
    expected = convolved.reshape(2, WIDTH, -1).swapaxes(1, 2)
    expected += theirs["patch_embed.proj.bias"] + theirs["pos_embed"][:, 1:]
    tokens = model.embed(params, images.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(tokens, expected, rtol=1e-5, atol=1e-5)
