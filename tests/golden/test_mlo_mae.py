"""MLO-MAE: losses, gradients and hypergradients of the authors' code and library."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgmae_jax.bilevel import mixed_difference, mixed_product
from sgmae_jax.methods.pixels import pixel_targets
from tests.bilevel.quadratic import relative
from tests.golden.conversion import to_theirs
from tests.golden.fixtures import assert_gradients, assert_output, files
from tests.golden.methods import assert_scalar
from tests.golden.mlo_mae import HEAD, MASKER, networks, run, to_names

pytestmark = pytest.mark.parametrize("path", files("mlo_mae", "adamw/iter0/hyper_"))
# Each with one autoencoder step an iteration, or two.
ITERATIONS = [("sgd", 0), ("sgd_small_lr", 0), ("adamw", 0), ("adamw", 1)]
TWO_STEPS = [("sgd_unroll2", 0), ("adamw_unroll2", 0)]
# There a unit of the masking network changes sign between the differences' points.
KINKED = ("adamw_unroll2", 0)
SMOOTH = [place for place in ITERATIONS + TWO_STEPS if place != KINKED]


def each(places):
    return pytest.mark.parametrize(
        ("tag", "number"), places, ids=[f"{tag}-{i}" for tag, i in places]
    )


class Theirs:
    """What a fixture says of one iteration, and how far ours is from it."""

    def __init__(self, path, tag, number):
        self.place = f"{tag}/iter{number}/"
        self.fixture = networks(path).fixture

    def __getitem__(self, name):
        return self.fixture[self.place + name]

    def under(self, name):
        return self.fixture.under(f"{self.place}{name}/")

    def distance(self, name, tree, names=MASKER):
        """Relative, over all tensors that the fixture holds."""
        theirs = self.under(name)
        assert theirs
        return relative(to_names(names, tree, theirs), theirs)


@pytest.fixture
def double(quick_compilation):
    with jax.enable_x64(True):
        yield


def test_forward(path):
    nets = networks(path, "float32")
    fixture, levels, (theta, _, masker) = nets.fixture, nets.levels, nets.start
    images, _ = nets.batch("pretrain", 0)

    @jax.jit
    def forward(theta, masker):
        tokens = levels.model.embed(theta, images)
        chances = jax.nn.sigmoid(levels.logits(masker, theta, images))
        mask = nets.select(nets.start, images)
        prediction = levels.predict(theta, images, mask)
        pixels = pixel_targets(images, levels.model.patch_size, norm_pix=True)
        losses = [
            levels.reconstruction(theta, masker, images, mask),
            levels.weigh(prediction, jnp.ones_like(chances), images, mask),
        ]
        error = jnp.square(prediction - pixels).mean(-1)
        return tokens, chances, mask, prediction, error, losses

    tokens, chances, mask, prediction, error, losses = forward(theta, masker)
    assert_output(tokens, fixture["fwd/tokens"])
    assert_output(chances, fixture["fwd/probs"])
    np.testing.assert_array_equal(mask.hidden, fixture["fwd/mask"])
    np.testing.assert_array_equal(mask.ids_restore, fixture["fwd/ids_restore"])
    assert_output(prediction, fixture["fwd/pred"])
    assert_output(error, fixture["fwd/patch_mse"])
    assert_scalar(losses[0], fixture["fwd/pretrain_loss"])
    assert_scalar(losses[1], fixture["fwd/pretrain_loss_unweighted"])


def test_gradients(path):
    nets = networks(path, "float32")
    fixture, (theta, _, masker) = nets.fixture, nets.start
    images, _ = nets.batch("pretrain", 0)

    @jax.jit
    def gradients(theta, masker):
        mask = nets.select(nets.start, images)
        both = jax.grad(nets.levels.reconstruction, argnums=(0, 1))
        detached = jax.grad(nets.detached.reconstruction)
        given = theta, masker, images, mask
        return *both(*given), detached(*given)

    by_theta, by_masker, detached = gradients(theta, masker)
    theirs = fixture.under("grad_pretrain/theta/")
    assert_gradients(to_theirs(by_theta, theirs), theirs)
    theirs = fixture.under("grad_pretrain/phi/")
    assert_gradients(to_names(MASKER, by_masker, theirs), theirs)
    theirs = fixture.under("grad_pretrain_tokens_detached/theta/")
    assert_gradients(to_theirs(detached, theirs), theirs)


def test_the_head(path):
    nets = networks(path, "float32")
    fixture, (theta, head, _) = nets.fixture, nets.start
    images, labels = nets.batch("finetune", 0)
    found = jax.jit(nets.levels.features)(theta, images)
    assert_output(found, fixture["fwd/cls_features"])
    loss, gradient = jax.value_and_grad(nets.levels.head_loss)(head, found, labels)
    assert_scalar(loss, fixture["fwd/finetune_ce"])
    theirs = fixture.under("grad_finetune/w/")
    assert_gradients(to_names(HEAD, gradient, theirs), theirs)


@each(ITERATIONS + TWO_STEPS)
def test_steps(path, tag, number, double):
    """Theirs are of a float32 run, whose round-off Adam's quotients enlarge."""
    nets, theirs = networks(path), Theirs(path, tag, number)
    own = run(path, tag)[number]
    reference = theirs.under("theta_after_step")
    ours = to_theirs(own.after.theta, reference)
    for name, array in reference.items():
        atol = np.full(array.shape, 1e-5 if tag.startswith("adamw") else 3e-7)
        if name.endswith("attn.qkv.bias"):  # of keys: Adam makes steps of round-off
            atol[len(atol) // 3 : 2 * len(atol) // 3] = 1e-4
        worst = np.max(np.abs(ours[name] - array) / atol)
        assert worst <= 1, f"{name}: off by {worst:.2f} times the tolerance"
    assert theirs.distance("w_after_step", own.after.head, HEAD) < 1e-6
    loss, gradient = nets.judge(own.after, own.batches[2])
    assert_scalar(loss, theirs["masking_loss"], rtol=1e-6)
    assert theirs.distance("grad_masking_loss_w", gradient, HEAD) < 1e-6
    assert theirs.distance("phi_after", own.last.masker) < 1e-5


@each(ITERATIONS + TWO_STEPS)
def test_exact_products(path, tag, number, double):
    """Their values are stored in float32, or they would agree to more digits."""
    nets, theirs, own = networks(path), Theirs(path, tag, number), run(path, tag)
    given = own[number].after, own[number].batches
    found = nets.hyper(nets.levels, mixed_product, *given)
    assert theirs.distance("hyper_jvp_exact", found) < 1e-7
    found = nets.hyper(nets.detached, mixed_product, *given)
    assert theirs.distance("hyper_jvp_exact_tokens_detached", found) < 1e-7
    if tag == "sgd":
        found = nets.hyper(nets.levels, mixed_product, *given, (0.0, 1.0))
        assert theirs.distance("hyper_jvp_exact_path_via_finetune", found) < 1e-7


@each(ITERATIONS + TWO_STEPS)
def test_the_librarys_differences(path, tag, number, double):
    """One difference for each path are the library's numbers, kink or not."""
    theirs, own = Theirs(path, tag, number), run(path, tag)[number]
    assert theirs.distance("hyper_betty_float64", own.library) < 1e-7
    assert theirs.distance("hyper_betty_float32", own.library) < 5e-4


@each(SMOOTH)
def test_one_difference_for_both_paths(path, tag, number, double):
    """Its points are others, so it has another error, of the library's size.

    The library is 3e-4 to 2e-3 away from the exact product.
    """
    nets, theirs, own = networks(path), Theirs(path, tag, number), run(path, tag)
    given = own[number].after, own[number].batches
    found = nets.hyper(nets.levels, mixed_difference, *given)
    assert theirs.distance("hyper_betty_float64", found) < 1e-3
    assert theirs.distance("hyper_betty_float32", found) < 1e-3
    assert 1e-5 < theirs.distance("hyper_jvp_exact", found) < 2e-3


@each(ITERATIONS)
def test_unrolling(path, tag, number, double):
    nets, theirs, own = networks(path), Theirs(path, tag, number), run(path, tag)
    own, kind, rates = own[number], tag.split("_")[0], nets.rates(tag)[:2]
    found = nets.unrolled(kind, rates, own.states, own.before, own.batches)
    assert theirs.distance("hyper_unrolled_exact", found) < 1e-7
    if kind == "adamw":
        points = own.before, own.after
        other = nets.one_step(kind, rates, own.states, *points, own.batches)
        assert relative(other, found) < 1e-12
    # Of the identity's scales, rates are those of one step of gradient descent; but
    # its products are taken after the step.
    scales = rates[0], rates[0] * rates[1]
    scaled = nets.hyper(nets.levels, mixed_product, own.after, own.batches, scales)
    distance = theirs.distance("hyper_unrolled_exact", scaled)
    assert distance < 5e-3 if tag == "sgd_small_lr" else distance > 0.5


def test_a_kink_between_the_points_of_a_difference(path, double):
    """A hidden unit that changes sign there makes a difference of anything."""
    nets, theirs, own = networks(path), Theirs(path, *KINKED), run(path, KINKED[0])[0]
    found = nets.hyper(nets.levels, mixed_difference, own.after, own.batches)
    assert theirs.distance("hyper_jvp_exact", own.library) > 5
    assert theirs.distance("hyper_jvp_exact", found) > 5


def test_dropout_makes_differences_noise(path, double):
    """As released: other features are dropped at each of a difference's points."""
    nets, own = networks(path), run(path, "adamw")[0]
    clean = nets.hyper(nets.levels, mixed_product, own.after, own.batches)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def errors(product, fixed):
        def one(key):
            given = own.after, own.batches
            found = nets.hyper(nets.dropping, product, *given, key=key, fixed=fixed)
            apart = optax.tree.norm(optax.tree.sub(found, clean))
            return apart / optax.tree.norm(clean)

        return jax.lax.map(one, jax.random.split(jax.random.key(0), 6))

    noisy, moderate = errors(mixed_difference, False), errors(mixed_product, True)
    assert noisy.min() > 5
    # Exact products with the same features dropped everywhere err by these alone.
    assert moderate.max() < 1.5
