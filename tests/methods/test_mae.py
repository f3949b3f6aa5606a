"""The MAE method as the loop sees it: devices, batches, buckets, and learning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.config import default_config
from sgmae_jax.methods.image import make_autoencoder, training_flops
from sgmae_jax.training.mesh import put_batch, state_shardings
from sgmae_jax.training.state import init_state
from sgmae_jax.training.step import make_step
from tests.methods.cases import KEY, batch_of, build, start, stepper, tiny_config


def run_on(shape):
    """Masks and three losses of the same run on a (data, fsdp) mesh."""
    method = build(tiny_config())
    make_state = functools.partial(init_state, method)
    auto = (jax.sharding.AxisType.Auto,) * 2
    devices = jax.devices()[: shape[0] * shape[1]]
    mesh = jax.make_mesh(shape, ("data", "fsdp"), auto, devices=devices)
    shardings = state_shardings(jax.eval_shape(make_state, KEY), mesh)
    state = jax.jit(make_state, out_shardings=shardings)(KEY)
    batch = put_batch(batch_of(), mesh)
    picture = jax.jit(method.picture, static_argnums=4)
    hidden = picture(state.params, batch, KEY, 0, 0.75).hidden
    step = jax.jit(make_step(method), static_argnums=2, out_shardings=(shardings, None))
    losses = []
    for _ in range(3):
        state, metrics = step(state, {"train": batch}, 0.75)
        losses.append(float(metrics["loss"]))
    return np.asarray(hidden), losses


@pytest.fixture(scope="module")
def on_one_device():
    return run_on((1, 1))


@pytest.mark.parametrize("shape", [(8, 1), (2, 2)])
def test_devices_change_no_mask_and_hardly_a_loss(shape, on_one_device):
    hidden, losses = run_on(shape)
    np.testing.assert_array_equal(hidden, on_one_device[0])
    np.testing.assert_allclose(losses, on_one_device[1], rtol=2e-6)


def test_a_mask_follows_the_example_and_the_epoch_not_the_batch():
    method = build(tiny_config())
    params = method.init(KEY)

    def hidden(batch):
        return np.asarray(method.picture(params, batch, KEY, 0, 0.75).hidden)

    whole = hidden(batch_of(8))
    np.testing.assert_array_equal(hidden(batch_of(4, first=4)), whole[4:])
    reverse = {name: rows[::-1] for name, rows in batch_of(8).items()}
    np.testing.assert_array_equal(hidden(reverse), whole[::-1])
    assert not np.array_equal(hidden(batch_of(8, epoch=1)), whole)


def test_accumulation_is_the_same_step():
    method = build(tiny_config())
    state = init_state(method, KEY)
    batches = {"train": batch_of()}
    results = []
    for parts in (1, 4):
        step = jax.jit(make_step(method, accumulate=parts), static_argnums=2)
        _, metrics = step(state, batches, 0.75)
        results.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)


def test_one_program_a_bucket_of_a_moving_ratio():
    config = tiny_config(mask__ratio=0.5, mask__ratio_end=0.9, mask__buckets=3)
    method = build(config)
    step = stepper(method)
    state = start(method)
    ratios = [method.phase(i, {}) for i in range(10)]
    for ratio in ratios:
        state, _ = step(state, {"train": batch_of()}, ratio)
    assert step._cache_size() == len(set(ratios)) == 3


@pytest.mark.parametrize("norm_pix", [True, False])
def test_the_loss_falls(norm_pix):
    method = build(tiny_config(method__norm_pix=norm_pix), steps=40)
    step = stepper(method)
    state = start(method)
    smooth = np.linspace(0, 255, 24).astype(np.uint8)
    batch = batch_of() | {"image": np.tile(smooth[None, None, :, None], (16, 16, 1, 3))}
    losses = []
    for _ in range(40):
        state, metrics = step(state, {"train": batch}, 0.75)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.7 * losses[0]


def test_features_use_no_mask_and_both_pools_work():
    images = batch_of(4)["image"]
    for pool in ("mean", "cls"):
        method = build(tiny_config(eval__pool=pool))
        params = method.init(KEY)
        features = method.features["encoder"](params, images)
        assert features.shape == (4, 32)
        again = method.features["encoder"](params, images)
        np.testing.assert_array_equal(features, again)


@pytest.mark.parametrize(
    ("preset", "patch", "gflop"),
    [("vit_s", 16, 39.0), ("vit_b", 16, 58.7), ("vit_l", 16, 124.5)],
)
def test_flops_are_those_of_the_published_table(preset, patch, gflop):
    config = default_config("mae")
    config.data.image_size = 224
    config.model.preset, config.model.patch_size = preset, patch
    model = make_autoencoder(config)
    assert training_flops(model, 0.75) / 1e9 == pytest.approx(gflop, rel=0.01)


def test_a_guided_mask_gets_features_without_gradient(tmp_path, monkeypatch):
    (tmp_path / "guided_masks.py").write_text(
        "from sgmae_jax.masking import num_keep, select\n"
        "def by_feature(keys, context, *, ratio, layer):\n"
        "    norms = (context.features(layer) ** 2).sum(-1)\n"
        "    mask = select(norms, num_keep(context.grid[0] * context.grid[1], ratio))\n"
        "    return mask._replace(gate=mask.gate * norms / norms)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = tiny_config(mask__fn="guided_masks:by_feature")
    config.mask.options.layer = -1
    method = build(config)
    state = start(method)
    step = stepper(method)
    _, metrics = step(state, {"train": batch_of()}, 0.75)
    assert jnp.isfinite(metrics["loss"]) and int(metrics["skipped"]) == 0
