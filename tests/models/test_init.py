"""Parameters: tree, counts, and the distributions they start from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.models import (
    DECODER,
    PRESETS,
    Autoencoder,
    Decoder,
    Encoder,
    sincos_table,
)
from tests.models.tiny import autoencoder


def shapes(tree):
    return {
        "/".join(key.key for key in path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def block_values(width):
    return 12 * width**2 + 13 * width


@pytest.mark.parametrize("name", PRESETS)
def test_presets_count(name):
    size = PRESETS[name]
    grid, patch_size = (14, 14), (16, 16)
    values = 16 * 16 * 3
    model = Autoencoder(
        encoder=Encoder(grid=grid, patch_values=values, **size._asdict()),
        decoder=Decoder(grid=grid, out_values=values, **DECODER._asdict()),
        patch_size=patch_size,
        channels=3,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )
    params = jax.eval_shape(model.init, jax.random.key(0))
    count = {
        part: sum(leaf.size for leaf in jax.tree.leaves(params[part]))
        for part in params
    }
    width, small = size.width, DECODER.width
    # Projection and its bias, class token, blocks, last norm.
    assert count["encoder"] == (
        (values + 1) * width + width + size.depth * block_values(width) + 2 * width
    )
    assert count["decoder"] == (
        (width + 1) * small
        + small
        + DECODER.depth * block_values(small)
        + 2 * small
        + (small + 1) * values
    )
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


def test_tree():
    params = autoencoder(positions="learned").init(jax.random.key(0))
    encoder, decoder = shapes(params["encoder"]), shapes(params["decoder"])
    assert encoder == {
        "cls_token": (24,),
        "pos_embed": (13, 24),
        "patch_embed/kernel": (18, 24),
        "patch_embed/bias": (24,),
        "blocks/norm1/scale": (3, 24),
        "blocks/norm1/bias": (3, 24),
        "blocks/attn/qkv/kernel": (3, 24, 72),
        "blocks/attn/qkv/bias": (3, 72),
        "blocks/attn/proj/kernel": (3, 24, 24),
        "blocks/attn/proj/bias": (3, 24),
        "blocks/norm2/scale": (3, 24),
        "blocks/norm2/bias": (3, 24),
        "blocks/mlp/fc1/kernel": (3, 24, 96),
        "blocks/mlp/fc1/bias": (3, 96),
        "blocks/mlp/fc2/kernel": (3, 96, 24),
        "blocks/mlp/fc2/bias": (3, 24),
        "norm/scale": (24,),
        "norm/bias": (24,),
    }
    outside = {name: shape for name, shape in decoder.items() if "blocks" not in name}
    assert outside == {
        "embed/kernel": (24, 16),
        "embed/bias": (16,),
        "mask_token": (16,),
        "pos_embed": (13, 16),
        "norm/scale": (16,),
        "norm/bias": (16,),
        "pred/kernel": (16, 18),
        "pred/bias": (18,),
    }


def test_learned_positions_start_from_the_table():
    params = autoencoder(positions="learned").init(jax.random.key(0))
    np.testing.assert_allclose(
        params["encoder"]["pos_embed"], sincos_table((2, 6), 24), atol=1e-7
    )


@pytest.fixture(scope="module")
def wide():
    """Enough values in every tensor for its distribution to show."""
    model = Autoencoder(
        encoder=Encoder(grid=(4, 4), patch_values=48, width=192, depth=3, heads=4),
        decoder=Decoder(grid=(4, 4), out_values=48, width=128, depth=2, heads=4),
        patch_size=(4, 4),
        channels=3,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )
    return jax.device_get(model.init(jax.random.key(0)))


def assert_uniform(values, bound):
    assert np.abs(values).max() <= bound
    np.testing.assert_allclose(np.abs(values).max(), bound, rtol=0.02)
    np.testing.assert_allclose(values.std(), bound / np.sqrt(3), rtol=0.1)


def test_kernels_are_xavier_uniform(wide):
    for part in ("encoder", "decoder"):
        blocks = wide[part]["blocks"]
        for group, name in (
            ("attn", "qkv"),
            ("attn", "proj"),
            ("mlp", "fc1"),
            ("mlp", "fc2"),
        ):
            for kernel in blocks[group][name]["kernel"]:
                # Each layer by its own fans; qkv by those of the fused matrix.
                assert_uniform(kernel, np.sqrt(6 / sum(kernel.shape)))
    for kernel in (
        wide["encoder"]["patch_embed"]["kernel"],
        wide["decoder"]["embed"]["kernel"],
        wide["decoder"]["pred"]["kernel"],
    ):
        assert_uniform(kernel, np.sqrt(6 / sum(kernel.shape)))


def test_layers_differ(wide):
    kernels = wide["encoder"]["blocks"]["attn"]["qkv"]["kernel"]
    assert not np.allclose(kernels[0], kernels[1])


def test_biases_norms_and_tokens(wide):
    for path, leaf in jax.tree_util.tree_leaves_with_path(wide):
        names = [key.key for key in path]
        if names[-1] == "scale":
            np.testing.assert_array_equal(leaf, 1)
        elif names[-1] == "bias" and "patch_embed" not in names:
            np.testing.assert_array_equal(leaf, 0)
        elif names[-1] in ("cls_token", "mask_token"):
            np.testing.assert_allclose(leaf.std(), 0.02, rtol=0.2)
    bias = wide["encoder"]["patch_embed"]["bias"]
    assert_uniform(bias, 48**-0.5)
