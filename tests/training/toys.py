"""Tiny methods with closed forms, for testing the loop without a network."""

import jax
import jax.numpy as jnp
import optax

from sgmae_jax.methods.base import Method, Update, descend


def quadratic(owns, target, optimizer, every=1, name=""):
    """An update that pulls `params[owns]` towards `target` plus the batch's mean."""

    def loss(params, batches, key, step, phase):
        del key, step, phase
        pull = target + batches["train"]["x"].mean()
        return jnp.sum((params[owns]["kernel"] - pull) ** 2), {}

    return Update((owns,), descend((owns,), loss), optimizer, every, name)


def toy(*updates, init=None, **fields):
    """A method over one-leaf sub-trees."""
    start = init or {update.owns[0]: 0.0 for update in updates}
    return Method(
        init=lambda key: {
            name: {"kernel": jnp.full((3,), value, jnp.float32)}
            for name, value in start.items()
        },
        updates=updates,
        features={},
        encoder=lambda params: params,
        flops=lambda phase: None,
        **fields,
    )


def one_network(**fields):
    """One network, plain SGD with rate 0.1."""
    return toy(quadratic("model", 1.0, optax.sgd(0.1)), **fields)


def rows(*values):
    """A batch of scalars."""
    return {"train": {"x": jnp.asarray(values, jnp.float32)}}


KEY = jax.random.key(0)
