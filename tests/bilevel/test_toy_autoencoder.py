"""A toy masked autoencoder with a learned mask, against re-solving all its levels.

The mask network weighs the patches' errors; the autoencoder is trained on these, a head
on its features, and the head's validation loss judges the mask network. Which patches
are hidden is fixed.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sgmae_jax.bilevel import (
    ConjugateGradient,
    Identity,
    Level,
    best_response,
    hypergradient,
    unroll,
)
from tests.bilevel.quadratic import relative

BATCH, PATCHES, PIXELS, WIDTH, CLASSES = 24, 8, 3, 4, 3
RIDGE = 0.05

pytestmark = pytest.mark.usefixtures("double", "quick_compilation")


@functools.cache
def data():
    """Patches, hidden ones and labels, to train and to validate."""
    random = np.random.default_rng(0)
    images = random.normal(size=(2, BATCH, PATCHES, PIXELS))
    images += random.normal(
        size=(2, BATCH, 1, PIXELS)
    )  # patches have to do with others
    order = random.permuted(np.tile(np.arange(PATCHES), (BATCH, 1)), axis=1)
    labels = np.argmax(images.mean(2), -1)
    return {
        "train": images[0],
        "valid": images[1],
        "hidden": (order < PATCHES // 2).astype(float),
        "train labels": labels[0],
        "valid labels": labels[1],
    }


@functools.cache
def starts():
    random = np.random.default_rng(1)
    theta = {
        "encoder": random.normal(size=(PIXELS, WIDTH)),
        "bias": random.normal(size=WIDTH),
        "decoder": random.normal(size=(WIDTH, PIXELS)),
        "positions": random.normal(size=(PATCHES, PIXELS)),
    }
    head = {"w": np.zeros((WIDTH, CLASSES)), "b": np.zeros(CLASSES)}
    mask_net = {
        "in": random.normal(size=(PATCHES * PIXELS, 6)) / 5,
        "out": random.normal(size=(6, PATCHES)),
    }
    return theta, head, mask_net


def ridge(tree):
    return RIDGE / 2 * optax.tree.norm(tree, squared=True)


def encode(theta, images, visible):
    tokens = jnp.tanh(images @ theta["encoder"] + theta["bias"])
    weights = visible / jnp.sum(visible, 1, keepdims=True)
    return jnp.sum(tokens * weights[..., None], 1)


def features(theta, images):
    return encode(theta, images, jnp.ones(images.shape[:2]))


def errors(theta, at):
    """Of each patch: [B, N]."""
    code = encode(theta, at["train"], 1 - at["hidden"])
    guess = (code @ theta["decoder"])[:, None] + theta["positions"]
    return jnp.mean((guess - at["train"]) ** 2, -1)


def weigh(mask_net, at):
    flat = at["train"].reshape(len(at["train"]), -1)
    return jax.nn.sigmoid(jnp.tanh(flat @ mask_net["in"]) @ mask_net["out"])


def reconstruction(theta, sigma, at):
    return jnp.sum(sigma * at["hidden"] * errors(theta, at)) / jnp.sum(at["hidden"])


def lower(theta, mask_net, at):
    return reconstruction(theta, weigh(mask_net, at), at) + ridge(theta)


def judged(head, seen, labels):
    logits = seen @ head["w"] + head["b"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def middle(head, seen, at):
    return judged(head, seen, at["train labels"]) + ridge(head)


def newton(loss, start, steps):
    """The minimum of a loss near the start, and the norm of its gradient there."""
    flat, back = ravel_pytree(start)
    gradient = jax.grad(lambda flat: loss(back(flat)))

    def step(flat, _):
        return flat - jnp.linalg.solve(
            jax.jacobian(gradient)(flat), gradient(flat)
        ), None

    flat, _ = jax.lax.scan(step, flat, length=steps)
    return back(flat), jnp.linalg.norm(gradient(flat))


@jax.jit
def resolved(mask_net, theta, head):
    """All levels anew, near what is given: theta, head, validation loss, gradients."""
    at = data()
    theta, first = newton(lambda theta: lower(theta, mask_net, at), theta, 7)
    seen = features(theta, at["train"])
    head, second = newton(lambda head: middle(head, seen, at), head, 7)
    value = judged(head, features(theta, at["valid"]), at["valid labels"])
    return theta, head, value, jnp.stack([first, second])


@functools.cache
def minima():
    with jax.enable_x64(True):
        theta, head, mask_net = starts()
        run = functools.partial(unroll, optimizer=optax.sgd(0.1), steps=3000)
        theta = jax.jit(
            lambda theta: run(
                lambda x, h: lower(x, h, data()), inner=theta, hyper=mask_net
            )
        )(theta)
        theta, head, _, gradients = resolved(mask_net, theta, head)
        assert gradients.max() < 1e-13
        return jax.device_get((theta, head, mask_net))


EXACT = ConjugateGradient(150, tolerance=1e-12)


def solved(theta, head, mask_net, at, solver=EXACT):
    return hypergradient(
        lambda seen, head, _: judged(head, seen, at["valid labels"]),
        Level(lambda head, seen: middle(head, seen, at), solver),
        Level(lambda theta, net: lower(theta, net, at), solver),
        theta,
        head,
        mask_net,
        views=(
            lambda theta: features(theta, at["train"]),
            lambda theta: features(theta, at["valid"]),
        ),
    )


compiled = jax.jit(solved, static_argnames="solver")


def test_it_is_the_slope_of_re_solving_everything():
    theta, head, mask_net = minima()
    found = compiled(theta, head, mask_net, data())
    assert found.lower.residual < 1e-10 and found.middle.residual < 1e-10
    assert not found.lower.negative_curvature
    flat, back = ravel_pytree(mask_net)
    slope = ravel_pytree(found.value)[0]
    random = np.random.default_rng(2)
    for _ in range(4):
        along = random.normal(size=flat.size)
        values = []
        for size in (2e-5, -2e-5):
            _, _, value, gradients = resolved(back(flat + size * along), theta, head)
            assert gradients.max() < 1e-13
            values.append(value)
        difference = (values[0] - values[1]) / 4e-5
        assert abs(difference - slope @ along) < 1e-6 * np.linalg.norm(slope)
        assert abs(difference - slope @ along) < 1e-4 * abs(difference)


def test_best_responses_agree():
    theta, head, mask_net = minima()
    at, solver = data(), EXACT
    respond = best_response(Level(lambda x, net: lower(x, net, at), solver))
    answer = best_response(Level(lambda y, seen: middle(y, seen, at), solver))

    @jax.jit
    @jax.grad
    def slope(mask_net):
        x = respond(theta, mask_net)
        y = answer(head, features(x, at["train"]))
        return judged(y, features(x, at["valid"]), at["valid labels"])

    found = compiled(theta, head, mask_net, at)
    assert relative(slope(mask_net), found.value) < 1e-9


def by_weights(theta, head, mask_net, solver):
    """The hypergradient by the patches' weights themselves."""
    at = data()
    sigma = weigh(mask_net, at)
    found = hypergradient(
        lambda x, y, _: judged(y, features(x, at["valid"]), at["valid labels"]),
        Level(
            lambda y, x: middle(y, features(x, at["train"]), at), ConjugateGradient(30)
        ),
        Level(lambda x, sigma: reconstruction(x, sigma, at) + ridge(x), solver),
        theta,
        head,
        sigma,
    )
    return sigma, found


@pytest.mark.parametrize("solver", [ConjugateGradient(100), Identity()], ids=repr)
def test_a_weights_derivative_is_the_change_of_its_patchs_error(solver):
    theta, head, mask_net = minima()
    at = data()
    sigma, found = jax.jit(functools.partial(by_weights, solver=solver))(
        theta, head, mask_net
    )
    assert ((found.value != 0) == (at["hidden"] != 0)).all()
    flat, back = ravel_pytree(theta)
    each = jax.jit(jax.jacobian(lambda flat: errors(back(flat), at)))(flat)
    change = each @ ravel_pytree(found.lower.vector)[0]
    expected = -at["hidden"] / at["hidden"].sum() * change
    assert relative(found.value, expected) < 1e-12
    # All weights together scale the loss.
    slope = jax.grad(reconstruction)(theta, sigma, at)
    assert (
        relative(
            [jnp.sum(sigma * found.value)],
            [-optax.tree.vdot(slope, found.lower.vector)],
        )
        < 1e-11
    )


# In between, rounding decides: conjugate gradients amplify it until they converge.
@pytest.mark.parametrize(
    ("solver", "bound"),
    [(ConjugateGradient(5), 1e-11), (EXACT, 1e-9)],
    ids=repr,
)
def test_one_device_or_eight_it_is_the_same(solver, bound):
    theta, head, mask_net = minima()
    alone = compiled(theta, head, mask_net, data(), solver=solver)
    devices = jax.devices()
    assert len(devices) == 8
    mesh = Mesh(np.array(devices), "batch")
    split = NamedSharding(mesh, PartitionSpec("batch"))
    shared = jax.device_put(
        (theta, head, mask_net), NamedSharding(mesh, PartitionSpec())
    )
    spread = jax.device_put(data(), split)
    assert spread["train"].addressable_shards[0].data.shape[0] == BATCH // 8
    together = compiled(*shared, spread, solver=solver)
    assert len(together.value["in"].sharding.device_set) == 8
    assert relative(together.value, alone.value) < bound
