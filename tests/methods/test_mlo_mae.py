"""MLO-MAE: what moves when, by which gradient, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgmae_jax.bilevel import mixed_product
from sgmae_jax.masking import num_keep, select
from sgmae_jax.methods.image import make_autoencoder
from sgmae_jax.methods.patch_weights import make_masker, weighted_error
from sgmae_jax.methods.three_levels import ThreeLevels
from sgmae_jax.models.head import ClassificationHead
from sgmae_jax.training.mesh import put_batch
from tests.methods.cases import (
    KEY,
    RELEASED,
    batch_of,
    build,
    start,
    stepper,
    tiny_config,
)

CLASSES = 4
STEP = jnp.int32(0)


def labelled(first):
    return {**batch_of(first=first), "label": np.arange(16, dtype=np.int32) % CLASSES}


BATCHES = {"train": labelled(0), "validation": labelled(16)}


def method_of(**own):
    fields = {"method__masker_hidden": 8, "method__every": 2}
    fields |= {f"method__{name}": value for name, value in own.items()}
    return build(tiny_config("mlo_mae", **fields), classes=CLASSES)


def levels_of(**own):
    """The method's losses, to be put together again."""
    config = tiny_config("mlo_mae", method__masker_hidden=8)
    return ThreeLevels(
        model=make_autoencoder(config),
        masker=make_masker(config.method),
        head=ClassificationHead(CLASSES),
        pool="cls",
        norm_pix=True,
        **{"weight_norm": "sum", **own},
    )


@pytest.fixture(scope="module")
def method():
    return method_of()


@pytest.fixture(scope="module")
def state(method):
    return start(method)


def act(method, name, params, opt, step=STEP, batches=BATCHES):
    """Gradients and metrics of the update of a name."""
    update = next(one for one in method.updates if one.name == name)
    names = [one.name for one in method.updates]
    states = {read: opt[names.index(read)] for read in update.reads}
    options = {"states": states} if update.reads else {}
    run = jax.jit(update.gradient, static_argnums=4)
    return run(params, batches, KEY, step, 0.75, **options)


def close(found, wanted, rtol=1e-4):
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(wanted))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale),
        found,
        wanted,
    )


# ---- what moves when -----------------------------------------------------------------


def test_levels_move_in_their_own_rhythm(method, state):
    step = stepper(method)
    moved = []
    for _ in range(3):
        before = jax.device_get(state.params)
        state, metrics = step(state, BATCHES, 0.75)
        after = jax.device_get(state.params)
        moved.append(
            {
                name
                for name in before
                if any(
                    not np.array_equal(a, b)
                    for a, b in zip(
                        jax.tree.leaves(before[name]),
                        jax.tree.leaves(after[name]),
                        strict=True,
                    )
                )
            }
        )
        assert int(metrics["skipped"]) == 0
    everything = {"model", "head", "masker"}
    assert moved == [everything, {"model"}, everything]
    for name in ("direct_norm", "through_head_norm", "adjoint_norm"):
        assert float(metrics[f"masker/{name}"]) > 0
    assert int(metrics["masker/iterations"]) == 2
    assert 0 < float(metrics["masker/residual"]) < 10


@pytest.mark.parametrize("paths", ["random", "none"])
def test_controls_use_no_labels(paths):
    method = method_of(paths=paths)
    state = start(method)
    names = {update.name for update in method.updates}
    assert names == ({"", "masker"} if paths == "random" else {""})
    assert method.logits is None
    unlabelled = {"train": batch_of()}
    after, _ = stepper(method)(state, unlabelled, 0.75)
    same = np.array_equal(
        after.params["masker"]["logits"]["kernel"],
        state.params["masker"]["logits"]["kernel"],
    )
    assert same == (paths == "none")


# ---- the masks -----------------------------------------------------------------------


def test_masks_hide_the_largest_logits(method, state):
    levels = levels_of()
    batch = BATCHES["train"]
    shown = jax.jit(method.picture, static_argnums=4)(
        state.params, batch, KEY, STEP, 0.75
    )
    params = state.params
    logits = levels.logits(params["masker"], params["model"], batch["image"])
    kept = num_keep(24, 0.75)
    np.testing.assert_array_equal(shown.hidden.sum(1), 24 - kept)
    for row, hidden in zip(logits, shown.hidden, strict=True):
        assert row[hidden == 1].min() >= row[hidden == 0].max()


def test_saturated_chances_do_not_tie():
    # sigmoid is 1.0 in float32 from 17 on: sorted by chance, order would be by index.
    logits = jnp.asarray([[30.0, 17.5, 25.0, 20.0]])
    assert float(jnp.ptp(jax.nn.sigmoid(logits))) == 0
    np.testing.assert_array_equal(select(logits, 2).hidden, [[1, 0, 1, 0]])


def test_equal_logits_are_told(method, state):
    masker = jax.tree.map(jnp.zeros_like, state.params["masker"])
    _, metrics = act(method, "", {**state.params, "masker": masker}, state.opt)
    assert float(metrics["equal_logits"]) == 1
    assert "equal_logits" in method.alarms
    _, metrics = act(method, "", state.params, state.opt)
    assert float(metrics["equal_logits"]) == 0


# ---- the losses ----------------------------------------------------------------------


def test_weights_by_sum_are_free_of_scale():
    rng = np.random.default_rng(0)
    error, chances = jnp.asarray(rng.random((2, 3, 8)), jnp.float32)
    hidden = jnp.asarray(rng.random((3, 8)) < 0.75, jnp.float32)

    def slope(norm):
        by_chance = jax.grad(lambda c: weighted_error(error, c, hidden, norm))(chances)
        return float(jnp.sum(chances * by_chance)), by_chance

    along, gradient = slope("sum")
    assert abs(along) < 1e-6
    counted, by_count = slope("count")
    value = weighted_error(error, chances, hidden, "count")
    np.testing.assert_allclose(counted, value, rtol=1e-5)
    for one in (gradient, by_count):  # no word about visible patches
        assert np.all(np.asarray(one)[np.asarray(hidden) == 0] == 0)


def test_the_encoder_gains_nothing_by_its_tokens(method, state):
    params, batch = state.params, BATCHES["train"]
    grads, _ = act(method, "", params, state.opt)
    released = method_of(token_gradient=True)
    gamed, _ = act(released, "", params, state.opt)
    levels = levels_of()
    images = levels.model.normalise(batch["image"])
    logits = levels.logits(params["masker"], params["model"], images)
    mask = select(logits, num_keep(24, 0.75))

    def fixed(theta):
        prediction = levels.predict(theta, images, mask)
        return levels.weigh(prediction, jax.nn.sigmoid(logits), images, mask)

    close(grads["model"], jax.jit(jax.grad(fixed))(params["model"]))
    kernel = grads["model"]["encoder"]["patch_embed"]["kernel"]
    other = gamed["model"]["encoder"]["patch_embed"]["kernel"]
    assert float(jnp.abs(kernel - other).max()) > 1e-3 * float(jnp.abs(kernel).max())


def test_patches_pull_by_their_gradients(method, state):
    """m_j / sum(m) <grad l_j, q>, patch by patch; its sum; its support."""
    levels = levels_of(weight_norm="count")
    params = state.params
    images = levels.model.normalise(BATCHES["train"]["image"][:2])
    logits = levels.logits(params["masker"], params["model"], images)
    mask = select(logits, num_keep(24, 0.75))
    chances, theta = jax.nn.sigmoid(logits), params["model"]
    vector = optax.tree.random_like(KEY, theta)

    def loss(theta, chances):
        prediction = levels.predict(theta, images, mask)
        return levels.weigh(prediction, chances, images, mask)

    found = jax.jit(lambda: mixed_product(loss, theta, chances, vector))()

    def patch(image, place):
        one_hot = jnp.zeros(chances.shape).at[image, place].set(1.0)
        gradient = jax.grad(loss)(theta, one_hot)  # m_j / sum(m) grad l_j
        return optax.tree.vdot(gradient, vector)

    rows, places = np.meshgrid(np.arange(2), np.arange(24), indexing="ij")
    wanted = jax.jit(jax.vmap(patch))(rows.ravel(), places.ravel()).reshape(2, 24)
    close(found, wanted, rtol=2e-4)
    assert np.array_equal(np.asarray(found) != 0, np.asarray(mask.hidden) == 1)
    whole = optax.tree.vdot(jax.grad(loss)(theta, chances), vector)
    np.testing.assert_allclose(jnp.sum(chances * found), whole, rtol=1e-3)


# ---- the hypergradient ---------------------------------------------------------------


def test_two_paths_are_all_there_is(state):
    both, direct, head = (
        act(method_of(paths=paths, solver="identity"), "masker", state.params, opt)
        for paths, opt in ((p, state.opt) for p in ("both", "direct", "head"))
    )
    close(
        both[0],
        jax.tree.map(jnp.add, direct[0], head[0]),
    )
    assert float(both[1]["direct_norm"]) == float(direct[1]["direct_norm"]) > 0


def test_a_step_against_it_lowers_the_validation_loss(state):
    """Both levels' next steps, by descent, from masks a little better: one step of
    each inner problem is what the identity speaks of."""
    method = method_of(paths="direct", solver="identity", weight_norm="count")
    levels = levels_of(weight_norm="count")
    params = state.params
    grads, _ = act(method, "masker", params, state.opt)
    images = levels.model.normalise(BATCHES["train"]["image"])
    judge = BATCHES["validation"]
    logits = levels.logits(params["masker"], params["model"], images)
    mask = select(logits, num_keep(24, 0.75))

    @jax.jit
    def after_a_step(masking):
        theta = params["model"]
        gradient = jax.grad(levels.reconstruction)(theta, masking, images, mask)
        theta = optax.tree.add_scale(theta, -1e-3, gradient)
        found = levels.features(theta, judge["image"])
        return levels.head_loss(params["head"], found, judge["label"])

    slope = jax.grad(after_a_step)(params["masker"])
    close(optax.tree.scale(1e-3, grads["masker"]), slope, rtol=2e-2)


def test_a_solver_that_diverges_moves_nothing(state):
    method = method_of(solver="neumann", rate=1e9, iterations=3)
    grads, metrics = act(method, "masker", state.params, state.opt)
    assert float(metrics["diverged"]) == 1 and float(metrics["residual"]) > 100
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(grads))
    assert np.isfinite(metrics["loss"])  # so the step is not void: the others move
    assert "masker/diverged" in method.alarms


def test_a_tracked_solution_is_kept_with_the_run():
    method = method_of(solver="tracked", rate=0.1)
    state = start(method)
    assert float(optax.tree.norm(state.params["adjoint"])) == 0
    grads, metrics = act(method, "masker", state.params, state.opt)
    owner = next(update for update in method.updates if update.name == "masker")
    assert owner.owns == ("masker", "adjoint")
    # What is left of the old solution, zero, after the step of `sgd(1)`.
    kept = optax.tree.scale(-1, grads["adjoint"])
    size = float(optax.tree.norm(kept))
    np.testing.assert_allclose(size, metrics["adjoint_norm"], rtol=1e-4)
    # From zero, the first step is rate times the right-hand side.
    np.testing.assert_allclose(metrics["adjoint_cosine"], 1, atol=1e-4)
    np.testing.assert_allclose(metrics["residual"], 1, atol=1e-5)


@pytest.mark.slow
def test_eight_devices_change_little(method, state):
    alone, wanted = act(method, "masker", state.params, state.opt)
    auto = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((8, 1), ("data", "fsdp"), auto, devices=jax.devices()[:8])
    batches = {name: put_batch(rows, mesh) for name, rows in BATCHES.items()}
    spread, metrics = act(method, "masker", state.params, state.opt, batches=batches)
    close(spread, alone, rtol=1e-3)
    for name in ("loss", "direct_norm", "through_head_norm", "residual"):
        np.testing.assert_allclose(metrics[name], wanted[name], rtol=1e-4)


OPTIONS = [
    {**RELEASED, "method__product": "difference", "method__head_dropout": 0.1},
    {"method__solver": "one_step", "method__pool": "mean", "model__dtype": "bfloat16"},
    {"method__solver": "nystrom", "method__iterations": 2, "method__masker": "flat"},
    {"method__precondition": "adam", "method__curvature": "hessian"},
]


@pytest.mark.parametrize("fields", OPTIONS)
def test_every_option_traces(fields):
    method = build(tiny_config("mlo_mae", **fields), classes=CLASSES)
    shapes = jax.eval_shape(method.init, KEY)
    assert shapes.keys() == {"model", "masker", "head"}
    batches = dict(BATCHES)
    if fields.get("method__pretrain_on_all"):
        batches["head"] = labelled(32)
    state = jax.eval_shape(lambda: start(method))
    step = stepper(method)
    after, metrics = jax.eval_shape(lambda s: step(s, batches, 0.75), state)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert "masker/loss" in metrics


@pytest.mark.parametrize(
    "solver", ["identity", pytest.param("cg", marks=pytest.mark.slow)]
)
def test_half_precision_changes_little(state, solver):
    """The model's products in bfloat16; solver vectors and sums stay in float32."""
    found = []
    for dtype in ("float32", "bfloat16"):
        fields = {"method__masker_hidden": 8, "method__solver": solver}
        config = tiny_config("mlo_mae", model__dtype=dtype, **fields)
        method = build(config, classes=CLASSES)
        found.append(act(method, "masker", state.params, state.opt)[0]["masker"])
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found[1]))
    exact, rounded = found
    error = optax.tree.norm(optax.tree.sub(rounded, exact)) / optax.tree.norm(exact)
    assert float(error) < 0.05
