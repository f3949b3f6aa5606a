"""AdamW and LARS as masked autoencoders use them: schedule, decay mask, guards."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

# Leaves that never decay: biases, and the scales of norms.
_UNDECAYED = ("bias", "scale")


def decay_mask(params: PyTree, spared: Collection[str] = ()) -> PyTree:
    """True for every leaf that weight decay applies to.

    The authors decay tensors of two and more axes, class and mask tokens included.
    Layers are stacked here, so a bias has two axes as well: names decide, not axes.

    Args:
        params: any parameter tree whose leaves carry Flax names.
        spared: names of further leaves that do not decay.

    Returns:
        A tree of bool like `params`.

    Reference: facebookresearch/mae main_pretrain.py (timm's parameter groups).
    """

    def decays(path, leaf):
        del leaf
        return getattr(path[-1], "key", None) not in (*_UNDECAYED, *spared)

    return jax.tree_util.tree_map_with_path(decays, params)


def warmup_cosine(
    peak: float, warmup: float, total: float, minimum: float = 0.0
) -> Callable:
    """Learning rate by (fractional) epoch: linear from exactly 0, then half a cosine.

    Args:
        peak: rate at the end of the warm-up.
        warmup: its length in epochs, >= 0.
        total: length of the whole schedule in epochs, > warmup.
        minimum: rate at the end.

    Returns:
        epoch -> rate; traceable.

    Reference: facebookresearch/mae util/lr_sched.py.
    """
    cosine = optax.cosine_decay_schedule(peak, total - warmup, minimum / peak)
    if not warmup:
        return cosine
    linear = optax.linear_schedule(0.0, peak, warmup)
    return optax.join_schedules([linear, cosine], [warmup])


def make_adamw(
    optim,
    *,
    batch_size: int,
    steps_per_epoch: int,
    total_steps: int,
    spared: Collection[str] = (),
) -> optax.GradientTransformation:
    """The AdamW of a config.

    Args:
        optim: the config's `optim` section.
        batch_size: images a step, all devices and micro-batches together; the peak
            rate is base_lr * batch_size / 256.
        steps_per_epoch: optimizer steps an epoch.
        total_steps: length of the schedule.
        spared: names of leaves that do not decay, beside biases and scales.

    Returns:
        An optax transformation whose state shows `learning_rate`.
    """
    fixed = ("b1", "b2", "eps", "eps_root", "weight_decay", "mask")
    adamw = optax.inject_hyperparams(optax.adamw, static_args=fixed)(
        learning_rate=_rate(optim, batch_size, steps_per_epoch, total_steps),
        b1=optim.b1,
        b2=optim.b2,
        eps=optim.eps,
        weight_decay=optim.weight_decay,
        mask=functools.partial(decay_mask, spared=spared),
    )
    return _guarded(optim, adamw)


def make_lars(
    optim,
    *,
    momentum: float,
    trust: float,
    batch_size: int,
    steps_per_epoch: int,
    total_steps: int,
) -> optax.GradientTransformation:
    """The LARS of a config: SGD with momentum whose steps are shares of the weights.

    What does not decay (biases, scales) has no trust ratio either. The ratio is 1 where
    weights or update are 0. `optax.lars` puts the rate into the momentum, the authors
    outside: while the rate changes, the two are not the same.

    Args:
        optim: the config's `optim` section; of Adam's fields none is read.
        momentum: share of the last step that is kept, in [0, 1).
        trust: length of a tensor's update over that of its weights, before rate and
            momentum.
        batch_size: as of `make_adamw`.
        steps_per_epoch: optimizer steps an epoch.
        total_steps: length of the schedule.

    Returns:
        An optax transformation whose state shows `learning_rate`.

    Reference:
        You et al., Large Batch Training of Convolutional Networks (2017);
        facebookresearch/mae util/lars.py.
    """
    ratio = optax.scale_by_trust_ratio(trust_coefficient=trust)
    descent = optax.inject_hyperparams(optax.scale_by_learning_rate)(
        learning_rate=_rate(optim, batch_size, steps_per_epoch, total_steps)
    )
    lars = optax.chain(
        optax.add_decayed_weights(optim.weight_decay, decay_mask),
        optax.masked(ratio, decay_mask),
        optax.trace(momentum),
        descent,
    )
    return _guarded(optim, lars)


def _rate(optim, batch_size: int, steps_per_epoch: int, total_steps: int) -> Callable:
    """The learning rate of a step, from 0, in a run of known length."""
    schedule = warmup_cosine(
        optim.base_lr * batch_size / 256,
        optim.warmup_epochs,
        total_steps / steps_per_epoch,
        optim.min_lr,
    )

    def rate(count):
        return schedule(count / steps_per_epoch)

    return rate


def _guarded(optim, optimizer: optax.GradientTransformation):
    before = []
    if optim.spike is not None:
        before.append(watch_spikes(optim.spike, optim.spike_window))
    if optim.clip_norm is not None:
        before.append(optax.clip_by_global_norm(optim.clip_norm))
    return optax.chain(*before, optimizer) if before else optimizer


class Spikes(NamedTuple):
    """What `watch_spikes` remembers.

    Attributes:
        norms: of the last good gradients, a ring.
        seen: good steps so far; before the ring is full, nothing is a spike.
        spiked: whether the last gradient was one.
    """

    norms: Float[Array, "W"]
    seen: Int[Array, ""]
    spiked: Bool[Array, ""]


def watch_spikes(factor: float, window: int) -> optax.GradientTransformation:
    """Tells gradients that are far longer than the last ones; changes none.

    Whoever makes the step void must put the old state back with the parameters: thus
    neither a spike nor a number that is not finite ever enters the median.

    Args:
        factor: a spike is longer than the median by more than this, > 1.
        window: good steps in the median, >= 2.
    """

    def init(params: PyTree) -> Spikes:
        del params
        return Spikes(jnp.zeros(window), jnp.int32(0), jnp.bool_(False))

    def update(grads: PyTree, state: Spikes, params: PyTree | None = None):
        del params
        norm = optax.tree.norm(grads).astype(jnp.float32)
        full = state.seen >= window
        return grads, Spikes(
            state.norms.at[state.seen % window].set(norm),
            state.seen + 1,
            full & (norm > factor * jnp.median(state.norms)),
        )

    return optax.GradientTransformation(init, update)


def spiked(state: optax.OptState) -> Bool[Array, ""] | None:
    """Whether the last gradient was a spike; None where nobody watches."""
    found = [one for _, one in optax.tree.get_all_with_path(state, "spiked")]
    return functools.reduce(jnp.logical_or, found) if found else None


def learning_rate(state: optax.OptState) -> Array:
    """The rate of the last step as the optimizer's state shows it, else NaN."""

    def is_rate(path, value):
        del path
        return isinstance(value, jax.Array)  # not the state of its schedule

    return optax.tree.get(state, "learning_rate", jnp.nan, filtering=is_rate)
