"""Forecast-MAE against numbers of the authors' own code, on an Argoverse 2 scenario."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.data.motion import read_scenario
from sgmae_jax.masking import SceneMask
from sgmae_jax.methods.forecast import Forecast, best_mode
from sgmae_jax.methods.forecast import losses as forecast_losses
from sgmae_jax.methods.forecast_mae import losses
from sgmae_jax.models.scene import FocalHead, SceneDecoder, SceneEncoder, Size
from sgmae_jax.models.scene_autoencoder import SceneAutoencoder
from tests.golden.fixtures import FOLDER, Fixture, assert_output
from tests.golden.scene import batch_of, place_of, to_ours, trees

HERE = FOLDER / "forecast_mae"
FILES = ("forecast_mae_av2", "forecast_mae_av2_padded_batch", "forecaster_av2")
pytestmark = pytest.mark.skipif(
    not all((HERE / f"{name}.npz").is_file() for name in FILES),
    reason="no fixtures in forecast_mae/ below $SGMAE_GOLDEN",
)
SIZE = Size(128, 4, 8)
WEIGHTS = (1.0, 1.0, 0.35)  # of pasts, futures, lanes
# Keys of a batch norm's own shift, whose true gradient is 0 while it trains.
SHIFTED = ("lanes.first_in.bias", "lanes.first_out.bias", "lanes.second_in.bias")


def network(released=True) -> SceneAutoencoder:
    decoder = SceneDecoder(SIZE, (50, 60), 20)
    return SceneAutoencoder(SceneEncoder(SIZE), decoder, 50, released)


@pytest.fixture(scope="module")
def first():
    return Fixture(HERE / "forecast_mae_av2.npz")


@pytest.fixture(scope="module")
def padded():
    return Fixture(HERE / "forecast_mae_av2_padded_batch.npz")


@pytest.fixture(scope="module")
def head():
    return Fixture(HERE / "forecaster_av2.npz")


def shown(fixture: Fixture) -> SceneMask:
    batch = fixture.under("in/")
    counts = batch["x_centers"].shape[1], batch["lane_centers"].shape[1]
    masks = []
    for kind, count in (("hist", counts[0]), ("fut", counts[0]), ("lane", counts[1])):
        kept = np.zeros((len(batch["x"]), count), bool)
        for row, ids in enumerate(fixture[f"out/{kind}_keep_ids"]):
            kept[row, ids[ids >= 0]] = True
        masks.append(jnp.asarray(kept))
    return SceneMask(*masks)


def told(fixture, params, statistics, *, released=True, gradient=False):
    """Prediction and losses, and the gradient of their sum."""
    batch, model, mask = batch_of(fixture), network(released), shown(fixture)

    def loss(params):
        found = model.predict(params, batch, mask, statistics)
        own = losses(batch, model.present(batch), mask, found)
        total = sum(w * one for w, one in zip(WEIGHTS, own, strict=True))
        return total, (found, own)

    if gradient:
        return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return jax.jit(loss)(params)


def assert_losses(total, own, theirs):
    """To 1e-6, relative."""
    for ours, name in ((total, "loss"), (own.history, "hist_loss")):
        assert float(ours) == pytest.approx(float(theirs[name]), rel=1e-6)
    assert float(own.future) == pytest.approx(float(theirs["future_loss"]), rel=1e-6)
    assert float(own.lanes) == pytest.approx(float(theirs["lane_pred_loss"]), rel=1e-6)


def replaced(first: Fixture, padded: Fixture):
    return trees({**first.under("param/"), **padded.under("override/")})


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_features_of_the_scenario(first, shared):
    folder = next((shared / "data" / "argoverse2").iterdir())
    scene = read_scenario(folder).scene
    theirs = first.under("in/")
    names = {
        "agent_steps": "x",
        "agent_speed_change": "x_velocity_diff",
        "agent_future": "y",
        "agent_center": "x_centers",
        "lane_points": "lane_positions",
        "lane_center": "lane_centers",
    }
    for ours, name in names.items():
        # They subtract positions of 1,400 m in float32, whose last digit is 1.2e-4.
        np.testing.assert_allclose(scene[ours], theirs[name][0], rtol=0, atol=1.5e-4)
    np.testing.assert_array_equal(~scene["agent_present"], theirs["x_padding_mask"][0])
    np.testing.assert_array_equal(
        ~scene["lane_present"], theirs["lane_padding_mask"][0]
    )
    np.testing.assert_array_equal(scene["agent_kind"], theirs["x_attr"][0, :, 2])
    np.testing.assert_allclose(
        scene["agent_heading"], theirs["x_angles"][0, :, 49], atol=1e-6
    )
    # Over a metre or two between two points.
    np.testing.assert_allclose(
        scene["lane_heading"], theirs["lane_angles"][0], atol=3e-4
    )
    past = scene["agent_past"] + scene["agent_center"][:, None]
    seen = scene["agent_present"][:, :50]
    np.testing.assert_allclose(
        past[seen], theirs["x_positions"][0][seen], rtol=0, atol=1.5e-4
    )


def test_parameters(first, head):
    params, _ = trees(first.under("param/"))
    shapes = jax.eval_shape(
        lambda key: network().init(key, batch_of(first)), jax.random.key(0)
    )
    assert jax.tree.map(lambda a: a.shape, params) == jax.tree.map(
        lambda a: a.shape, shapes
    )
    assert count(shapes) == 3_077_116
    own = jax.eval_shape(
        FocalHead(6, 60).init, jax.random.key(0), jnp.zeros((1, 2, 128))
    )
    assert count(shapes["encoder"]) + count(own) == 1_923_357
    theirs, _ = trees(head.under("param/"))
    assert jax.tree.map(lambda a: a.shape, theirs["head"]) == jax.tree.map(
        lambda a: a.shape, own["params"]
    )


@pytest.mark.parametrize("released", [True, False])
def test_one_scene(first, released):
    """Without padding; the lanes' missing points tell the two behaviours apart."""
    params, statistics = trees(first.under("param/"))
    total, (found, own) = told(first, params, statistics, released=released)
    outputs = {"x_hat": found.history, "y_hat": found.future, "lane_hat": found.lanes}
    if not released:
        assert (
            max(np.abs(first[f"out/{n}"] - o).max() for n, o in outputs.items()) > 1e-3
        )
        return
    for name, ours in outputs.items():
        assert_output(ours, first[f"out/{name}"], tolerance=1e-5)
    assert_losses(total, own, first.under("out/"))


def test_a_padded_batch_as_released(first, padded):
    params, statistics = replaced(first, padded)
    total, (found, own) = told(padded, params, statistics)
    there = network().present(batch_of(padded))
    outputs = {
        "x_hat": (found.history, there.agents),
        "y_hat": (found.future, there.agents),
        "lane_hat": (found.lanes, there.lanes),
    }
    for name, (ours, exists) in outputs.items():
        kept = np.asarray(exists)
        assert_output(np.asarray(ours)[kept], padded[f"out/{name}"][kept])
    assert_losses(total, own, padded.under("out/"))


def test_a_padded_batch_without_attention_to_padding(first, padded):
    """Their lanes, our padding: the same as their own boolean mask."""
    params, statistics = replaced(first, padded)
    batch, mask = batch_of(padded), shown(padded)
    half = Halfway(SceneEncoder(SIZE), SceneDecoder(SIZE, (50, 60), 20), 50, False)
    found = jax.jit(half.predict)(params, batch, mask, statistics)
    there = half.present(batch)
    kept = np.asarray(there.agents)
    for name, ours in (("x_hat", found.history), ("y_hat", found.future)):
        reference = padded[f"out_boolean_padding/{name}"]
        assert_output(np.asarray(ours)[kept], reference[kept])
    own = losses(batch, there, mask, found)
    theirs = padded.under("out_boolean_padding/")
    total = sum(w * one for w, one in zip(WEIGHTS, own, strict=True))
    assert_losses(total, own, theirs)
    # It matters: in a padded batch by up to metres.
    moved = np.abs(padded["out/x_hat"] - padded["out_boolean_padding/x_hat"])
    assert moved[kept].max() > 0.1


class Halfway(SceneAutoencoder):
    """Padding as ours, missing lane points as released."""

    def points(self, batch):
        return network().points(batch)


def test_losses_and_gradients_in_training(first, padded):
    params, _ = replaced(first, padded)
    (total, (_, own)), grads = told(padded, params, None, gradient=True)
    assert_losses(total, own, padded.under("train_mode/"))
    theirs = padded.under("train_mode/grad/")
    assert len(theirs) > 150
    for name, reference in theirs.items():
        where, layer = place_of(name)
        leaf = grads
        for part in where.split("."):
            leaf = leaf[part]
        ours = np.asarray(leaf if layer is None else leaf[layer])
        wanted = to_ours(reference, name)
        atol = np.full(wanted.shape, 1e-4 * np.abs(wanted).max() + 1e-7)
        if where.endswith(SHIFTED):
            atol[:] = 1e-5
        if name.endswith(("in_proj_bias", "qkv.bias")):  # the keys' are 0
            third = len(wanted) // 3
            atol[third : 2 * third] = 1e-6
        worst = np.max(np.abs(ours - wanted) / atol)
        assert worst <= 1, f"{name}: off by {worst:.2f} times the tolerance"


@pytest.mark.parametrize("name", ["forecaster_av2", "forecast_mae_av2_padded_batch"])
def test_forecasts(first, padded, head, name):
    theirs = {**first.under("param/"), **head.under("param/")}
    given, out = first, head.under("out/")
    if name != "forecaster_av2":
        theirs |= padded.under("override/") | padded.under("override_forecaster/")
        given, out = padded, padded.under("forecast/")
    params, statistics = trees(theirs)
    batch = batch_of(given)
    agents = batch["agent_kind"].shape[1]

    def run(params):
        tokens = network().encode(params["encoder"], batch, statistics)
        return Forecast(
            *FocalHead(6, 60).apply({"params": params["head"]}, tokens[:, :agents])
        )

    forecast = jax.jit(run)(params)
    assert_output(forecast.places, out["y_hat"], tolerance=1e-5)
    assert_output(forecast.logits, out["pi"], tolerance=1e-5)
    exists = np.asarray(network().present(batch).agents)[:, 1:]
    assert_output(
        np.asarray(forecast.others)[exists], out["y_hat_others"][exists], tolerance=1e-5
    )
    known = batch["agent_present"][:, 0, 50:]
    best = best_mode(forecast.places, batch["agent_future"][:, 0], known)
    np.testing.assert_array_equal(best, out["best_mode"])
    found = forecast_losses(batch, forecast)
    for ours, key in zip(found, ("best_mode", "mode_ce", "others"), strict=True):
        assert float(ours) == pytest.approx(float(out[f"loss_{key}"]), rel=1e-6)
    assert float(sum(found)) == pytest.approx(float(out["loss"]), rel=1e-6)
