"""What optimizers' states are used for, against optax itself."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgmae_jax.bilevel import (
    ConjugateGradient,
    Level,
    OneStep,
    adam_scale,
    implicit_vjp,
    mixed_product,
    optimizer_step,
)
from sgmae_jax.optimizer import make_adamw
from tests.bilevel.quadratic import Quadratic, relative

OPTIM = dict(
    base_lr=0.01,
    warmup_epochs=2,
    min_lr=0.0,
    b1=0.9,
    b2=0.95,
    eps=1e-8,
    weight_decay=0.05,
)


class Section:
    """A config's section."""

    def __init__(self, **fields):
        vars(self).update(fields)


def injected(clip):
    section = Section(**OPTIM, clip_norm=clip, spike=None)
    return make_adamw(section, batch_size=256, steps_per_epoch=3, total_steps=30)


OPTIMIZERS = {
    "adamw": lambda: optax.adamw(0.01, b2=0.95, weight_decay=0.05),
    "clipped": lambda: optax.chain(
        optax.clip_by_global_norm(0.5), optax.adamw(0.01, b2=0.95)
    ),
    "injected": lambda: injected(None),
    "injected, clipped": lambda: injected(0.5),
    "sgd": lambda: optax.sgd(0.1, momentum=0.9),
}


def loss(x, t):
    return jnp.sum(jnp.sin(x["w"] * t) ** 2) + jnp.sum(x["bias"] * t[:2]) ** 3


def started(optimizer, steps=3):
    """A point, an optimizer's state after some steps there, and a hyper-variable."""
    random = np.random.default_rng(0)
    x = {"w": jnp.asarray(random.normal(size=4)), "bias": jnp.array([0.3, 0.2])}
    t = jnp.asarray(random.normal(size=4))
    state = optimizer.init(x)
    update = jax.jit(optimizer.update)
    for _ in range(steps):
        change, state = update(jax.grad(loss)(x, t), state, x)
        x = optax.apply_updates(x, change)
    return x, state, t


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_step_is_reverse_mode_through_the_update(name, double):
    optimizer = OPTIMIZERS[name]()
    x, state, t = started(optimizer)
    wanted = {"w": jnp.arange(1.0, 5.0), "bias": jnp.array([-1.0, 2.0])}

    @jax.jit
    def through(t):
        change, _ = optimizer.update(jax.grad(loss)(x, t), state, x)
        return optax.tree.vdot(wanted, optax.apply_updates(x, change))

    pull = optimizer_step(optimizer, jax.grad(loss)(x, t), state, x)
    level = Level(loss, OneStep(pull))
    found, solved, _ = jax.jit(lambda w: implicit_vjp(level, x, t, w))(wanted)
    assert relative(found, jax.grad(through)(t)) < 1e-12
    assert relative(found, -mixed_product(loss, x, t, solved.vector)) < 1e-12
    assert np.linalg.norm(found) > 1e-4
    if "clipped" in name:  # and the clipping was at work
        assert optax.tree.norm(jax.grad(loss)(x, t)) > 0.5


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_gradient_that_is_and_was_zero_is_pulled_to_a_number(name, steps):
    """In float32; of Adam's root, the derivative at 0 is none."""
    optimizer = OPTIMIZERS[name]()
    x, gradient = {"w": jnp.ones(3)}, {"w": jnp.array([0.0, -0.5, 1.0])}
    state = optimizer.init(x)
    for _ in range(steps):
        _, state = optimizer.update(gradient, state, x)
    pulled = optimizer_step(optimizer, gradient, state, x)(x)["w"]
    assert jnp.isfinite(pulled).all()
    # As it is to a gradient that is nearly zero.
    near = {"w": gradient["w"].at[0].set(1e-13)}
    expected = optimizer_step(optimizer, near, state, x)(x)["w"]
    error = jnp.abs(pulled - expected).max()
    assert error <= 1e-4 * jnp.abs(expected).max()


@pytest.mark.parametrize("count", [2000, 3])
def test_late_steps_of_adam_are_samas_closed_form(count, double):
    """Written down without the bias correction, it is right late only."""
    b1, b2, eps, rate = 0.9, 0.99, 1e-8, 0.01
    optimizer = optax.adam(rate, b1=b1, b2=b2, eps=eps)
    random = np.random.default_rng(0)
    x = jnp.zeros(20)
    old, new = jnp.asarray(random.normal(size=(2, 20)))
    state = optimizer.init(x)
    state = optax.tree.set(state, count=jnp.int32(count), mu=0.3 * old, nu=0.5 + old**2)
    m, v = b1 * 0.3 * old + (1 - b1) * new, b2 * (0.5 + old**2) + (1 - b2) * new**2
    root = jnp.sqrt(v)
    bent = m * (1 - b2) * new / (root * (root + eps) ** 2)
    by_gradient = -rate * ((1 - b1) / (root + eps) - bent)
    # It is diagonal: ones pull it out.
    found = optimizer_step(optimizer, new, state, x)(jnp.ones(20))
    error = relative(found, by_gradient)
    assert error < 1e-6 if count == 2000 else error > 0.1


@pytest.mark.parametrize("steps", [0, 1, 5])
@pytest.mark.parametrize("name", ["adamw", "clipped", "injected", "injected, clipped"])
def test_the_scale_is_adams_denominator(name, steps, double):
    optimizer = OPTIMIZERS[name]()
    x, state, _ = started(optimizer, steps)
    found = jax.jit(lambda s: adam_scale(s, b2=0.95, eps=1e-8))(state)
    assert jax.tree.structure(found) == jax.tree.structure(x)
    if steps == 0:
        assert all((leaf == 1e-8).all() for leaf in jax.tree.leaves(found))
        return
    (adam,) = [
        node
        for node in jax.tree.leaves(
            state, is_leaf=lambda n: isinstance(n, optax.ScaleByAdamState)
        )
        if isinstance(node, optax.ScaleByAdamState)
    ]
    # Of a constant gradient optax finds the same v at every count.
    keeping = optax.scale_by_adam(b1=0.0, b2=0.95, eps=1e-8)
    last = jax.tree.map(
        lambda v: jnp.sqrt(v / (1 - 0.95 ** float(adam.count))), adam.nu
    )
    constant = keeping.init(x)
    for _ in range(steps):
        update, constant = keeping.update(last, constant)
    theirs = jax.tree.map(jnp.divide, last, update)
    assert relative(found, theirs) < 1e-9


def test_a_state_without_moments_has_no_scale():
    state = optax.sgd(0.1).init(jnp.ones(3))
    with pytest.raises(KeyError, match="no second moments"):
        adam_scale(state, b2=0.95)


def test_around_adamws_rest_decay_by_the_scale_is_the_damping(double):
    """P grad + decay x = 0 with P kept: dx/dt = -(H + decay / P)^-1 d2L/dx dt."""
    problem = Quadratic()
    decay, t = 0.05, jnp.asarray(problem.t)
    scale = np.random.default_rng(3).uniform(0.1, 2, size=30)  # 1 / P
    rests = np.linalg.solve(
        problem.A + decay * np.diag(scale), problem.B @ problem.t + problem.b
    )
    gradient = jax.grad(problem.lower)(jnp.asarray(rests), t)
    assert np.abs(gradient / scale + decay * rests).max() < 1e-9
    jacobian = np.linalg.solve(problem.A + decay * np.diag(scale), problem.B)
    level = Level(
        problem.lower,
        ConjugateGradient(60, tolerance=1e-13),
        damping=jnp.asarray(decay * scale),
        precondition=jnp.asarray(1 / (np.diag(problem.A) + decay * scale)),
    )
    wanted = np.random.default_rng(4).normal(size=30)
    found, solved, _ = jax.jit(lambda x, t, w: implicit_vjp(level, x, t, w))(
        rests, t, wanted
    )
    assert relative(found, jacobian.T @ wanted) < 1e-10
    assert solved.residual < 1e-12


def test_the_scale_of_a_state_damps_and_preconditions(double):
    """All of it together, from a state that training left."""
    problem = Quadratic()
    optimizer = optax.adamw(0.01, b2=0.9, weight_decay=0.05)
    t, x = jnp.asarray(problem.t), jnp.zeros(30)

    @jax.jit
    def train(x):
        def step(carry, _):
            x, state = carry
            gradient = jax.grad(problem.lower)(x, t)
            change, state = optimizer.update(gradient, state, x)
            return (optax.apply_updates(x, change), state), None

        return jax.lax.scan(step, (x, optimizer.init(x)), length=50)[0]

    x, state = train(x)
    scale = adam_scale(state, b2=0.9)
    level = Level(
        problem.lower,
        ConjugateGradient(100, tolerance=1e-13),
        damping=0.05 * scale,
        precondition=1 / scale,
    )
    wanted = np.random.default_rng(4).normal(size=30)
    found, solved, _ = jax.jit(lambda x, t, w: implicit_vjp(level, x, t, w))(
        x, t, wanted
    )
    jacobian = np.linalg.solve(problem.A + 0.05 * np.diag(scale), problem.B)
    assert relative(found, jacobian.T @ wanted) < 1e-9
    assert not solved.negative_curvature
