"""AdamW as masked autoencoders use it: schedule, decay mask, clipping."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

# Leaves that never decay: biases, and the scales of norms.
_UNDECAYED = ("bias", "scale")


def decay_mask(params: PyTree) -> PyTree:
    """True for every leaf that weight decay applies to.

    The authors decay tensors of two and more axes, class and mask tokens included.
    Layers are stacked here, so a bias has two axes as well: names decide, not axes.

    Args:
        params: any parameter tree whose leaves carry Flax names.

    Returns:
        A tree of bool like `params`.

    Reference: facebookresearch/mae main_pretrain.py (timm's parameter groups).
    """

    def decays(path, leaf):
        del leaf
        return getattr(path[-1], "key", None) not in _UNDECAYED

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


def make_adamw(optim, *, batch_size: int, steps_per_epoch: int, total_steps: int):
    """The pre-training optimizer of a config.

    Args:
        optim: the config's `optim` section.
        batch_size: images a step, all devices and micro-batches together; the peak
            rate is base_lr * batch_size / 256.
        steps_per_epoch: optimizer steps an epoch.
        total_steps: length of the schedule.

    Returns:
        An optax transformation whose state shows `learning_rate`.
    """
    schedule = warmup_cosine(
        optim.base_lr * batch_size / 256,
        optim.warmup_epochs,
        total_steps / steps_per_epoch,
        optim.min_lr,
    )

    def rate(count):
        return schedule(count / steps_per_epoch)

    fixed = ("b1", "b2", "eps", "eps_root", "weight_decay", "mask")
    adamw = optax.inject_hyperparams(optax.adamw, static_args=fixed)(
        learning_rate=rate,
        b1=optim.b1,
        b2=optim.b2,
        eps=optim.eps,
        weight_decay=optim.weight_decay,
        mask=decay_mask,
    )
    if optim.clip_norm is None:
        return adamw
    return optax.chain(optax.clip_by_global_norm(optim.clip_norm), adamw)


def learning_rate(state: optax.OptState) -> Array:
    """The rate of the last step as the state of `make_adamw` shows it, else NaN."""

    def is_rate(path, value):
        del path
        return isinstance(value, jax.Array)  # not the state of its schedule

    return optax.tree.get(state, "learning_rate", jnp.nan, filtering=is_rate)
