"""The heads for pixels: shapes on any grid, plain NumPy, counts, what they see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.models.segmenter import (
    POOLS,
    LinearSegmenter,
    UPerNet,
    _mean_over,
    resized,
    spaced_layers,
)

KEY = jax.random.key(3)


def layers_of(grid, width=8, batch=2):
    keys = jax.random.split(KEY, 4)
    return [jax.random.normal(key, (batch, *grid, width)) for key in keys]


def applied(head, layers):
    params = jax.jit(head.init)(KEY, layers)["params"]
    return params, jax.jit(head.apply)({"params": params}, layers)


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("grid", [(1, 1), (3, 5)], ids=str)
def test_both_heads_on_any_grid(grid):
    size = 4 * grid[0], 3 * grid[1]
    for head in (LinearSegmenter(5, size), UPerNet(5, size, width=6)):
        params, logits = applied(head, layers_of(grid))
        assert logits.shape == (2, *size, 5) and logits.dtype == jnp.float32
        assert np.isfinite(logits).all()
        fresh = jax.eval_shape(head.init, KEY, layers_of(grid))
        assert set(fresh) == {"params"}  # no batch state
        swapped = [x[::-1] for x in layers_of(grid)]
        found = jax.jit(head.apply)({"params": params}, swapped)
        np.testing.assert_allclose(found[::-1], logits, atol=1e-5)


def test_the_linear_head_is_that_of_numpy():
    layers = layers_of((3, 4))
    params, logits = applied(LinearSegmenter(5, (3, 4)), layers)
    x = np.asarray(layers[-1], np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    wanted = x @ np.asarray(params["linear"]["kernel"])
    np.testing.assert_allclose(logits, wanted, atol=1e-6)


def test_enlarging_is_bilinear_between_centres():
    x = jnp.array([0.0, 4.0])[None, None, :, None]
    found = resized(x, (1, 8))[0, 0, :, 0]
    np.testing.assert_allclose(found, [0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4], atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 4, 7, 12])
@pytest.mark.parametrize("parts", POOLS)
def test_means_over_parts(length, parts):
    """As adaptive pooling has them: part i is [floor(i n / p), ceil((i + 1) n / p))."""
    line = np.random.default_rng(length).normal(size=length)
    found = np.asarray(_mean_over(length, parts)) @ line
    for i in range(parts):
        part = line[i * length // parts : int(np.ceil((i + 1) * length / parts))]
        np.testing.assert_allclose(found[i], part.mean(), rtol=1e-5)


def test_spaced_layers():
    assert spaced_layers(12) == (3, 6, 9, 12)
    assert spaced_layers(24) == (6, 12, 18, 24)
    assert spaced_layers(4) == (1, 2, 3, 4)
    assert spaced_layers(2) == (1, 1, 2, 2)
    assert spaced_layers(1) == (1, 1, 1, 1)


@pytest.mark.usefixtures("quick_compilation")
def test_every_layer_and_every_parameter_is_used():
    layers = layers_of((4, 4))
    head = UPerNet(3, (16, 16), width=6)
    params, _ = applied(head, layers)
    weights = jax.random.normal(KEY, (2, 16, 16, 3))

    def loss(params, layers):
        return (head.apply({"params": params}, layers) * weights).sum()

    grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, layers)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def test_half_precision_is_of_compute_alone():
    layers = [x.astype(jnp.bfloat16) for x in layers_of((2, 2))]
    for head in (
        LinearSegmenter(5, (8, 8), dtype="bfloat16"),
        UPerNet(5, (8, 8), width=6, dtype="bfloat16"),
    ):
        params = jax.eval_shape(head.init, KEY, layers)["params"]
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("f4")}
        found = jax.eval_shape(head.apply, {"params": params}, layers)
        assert found.dtype == jnp.float32


@pytest.mark.usefixtures("quick_compilation")
def test_counts_against_the_compiler():
    grid, width, size = (9, 12), 48, (36, 48)
    layers = layers_of(grid, width, batch=1)
    head = UPerNet(7, size, width=32)
    shapes = jax.eval_shape(head.init, KEY, layers)
    lowered = jax.jit(head.apply).lower(shapes, layers)
    counted = lowered.compile().cost_analysis()["flops"]
    # What it counts besides: borders that convolutions skip, norms, enlarging.
    assert 2 * head.macs(grid, width) == pytest.approx(counted, rel=0.2)
