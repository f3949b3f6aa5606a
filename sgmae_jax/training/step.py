"""One training step: every update in turn, and a guard against non-finite numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable

import jax
import jax.numpy as jnp
import optax

from sgmae_jax.methods.base import Batches, Gradient, Method, Metrics
from sgmae_jax.optimizer import learning_rate, spiked
from sgmae_jax.training.mesh import replicated
from sgmae_jax.training.state import TrainState


def make_step(
    method: Method, *, accumulate: int = 1
) -> Callable[[TrainState, Batches, Hashable], tuple[TrainState, Metrics]]:
    """Builds what training jits: (state, batches, phase) -> (state, metrics).

    If a loss or a gradient is not finite, or is a spike where the optimizer watches for
    them (`optim.spike`), the step is void: parameters, moments and whatever
    `post_update` averages stay as they were, and only the step counter and the count
    of skipped steps move on.

    Args:
        method: what to train.
        accumulate: micro-batches a step; gradients and metrics are their means.

    Returns:
        A pure function; `phase` must be static. Metrics hold, for each update, its
        own metrics, "grad_norm" and "lr" (behind its name, if it has one), and
        "skipped" (1 if the step was void as not finite) and, where spikes are watched
        for, "spiked" (1 if it was void as one).

    Raises:
        ValueError: not exactly one update is without a name, or two share one.
    """
    names = [update.name for update in method.updates]
    if names.count("") != 1 or len(set(names)) < len(names):
        raise ValueError(f"updates must have names but for one, each its own: {names}")

    def step_fn(state: TrainState, batches: Batches, phase: Hashable):
        key = jax.random.wrap_key_data(state.key)
        params, opts = dict(state.params), []
        by_name = dict(zip(names, state.opt, strict=True))
        metrics: Metrics = {}
        finite, jumped = jnp.bool_(True), None
        params, batches, noted = method.prepare(params, batches, key, state.step, phase)
        metrics |= noted
        for update, opt in zip(method.updates, state.opt, strict=True):
            gradient = update.gradient
            if update.reads:
                states = {name: by_name[name] for name in update.reads}
                gradient = functools.partial(gradient, states=states)
            act = _accumulated(gradient, accumulate)

            def move(params, opt, act=act, update=update):
                grads, own = act(params, batches, key, state.step, phase)
                norm = optax.tree.norm(grads)
                good = jnp.isfinite(own["loss"]) & jnp.isfinite(norm)
                owned = {name: params[name] for name in update.owns}
                change, opt = update.optimizer.update(grads, opt, owned)
                params = {**params, **optax.apply_updates(owned, change)}
                own |= {"grad_norm": norm, "lr": learning_rate(opt)}
                return params, opt, own, good

            params, opt, own, good = _every(update.every, move, state.step, params, opt)
            prefix = update.name and f"{update.name}/"
            metrics |= {prefix + name: value for name, value in own.items()}
            opts.append(opt)
            by_name[update.name] = opt
            finite &= good
            if (jump := spiked(opt)) is not None:
                jumped = jump if jumped is None else jumped | jump
        params = method.post_update(params, state.step + 1)
        sound = finite if jumped is None else finite & ~jumped
        new_params, new_opt = jax.tree.map(
            lambda new, old: jnp.where(sound, new, old),
            (params, tuple(opts)),
            (state.params, state.opt),
        )
        void = (~finite).astype(jnp.int32)
        state = TrainState(
            state.step + 1, new_params, new_opt, state.key, state.skipped + void
        )
        metrics["skipped"] = void
        if jumped is not None:
            metrics["spiked"] = (finite & jumped).astype(jnp.int32)
        return state, metrics

    return step_fn


def jitted_step(
    method: Method, shardings: TrainState, *, accumulate: int = 1
) -> jax.stages.Wrapped:
    """`make_step` as training runs it: the old state is given up, the new one placed.

    Args:
        method: what to train.
        shardings: of the state, as `state_shardings` makes them.
        accumulate: see `make_step`.
    """
    mesh = jax.tree.leaves(shardings)[0].mesh
    step_fn = make_step(method, accumulate=accumulate)

    def on_mesh(state: TrainState, batches: Batches, phase: Hashable):
        # The blocks ask for it, to gather their weights; see `held_whole`.
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return step_fn(state, batches, phase)

    return jax.jit(
        on_mesh,
        static_argnums=2,
        donate_argnums=0,
        out_shardings=(shardings, replicated(mesh)),
    )


def _every(every: int, move: Callable, step, params, opt):
    """Runs `move` on steps divisible by `every`; on others metrics are NaN."""
    if every == 1:
        return move(params, opt)
    shapes = jax.eval_shape(move, params, opt)

    def rest(params, opt):
        metrics = jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), shapes[2])
        return params, opt, metrics, jnp.bool_(True)

    return jax.lax.cond(step % every == 0, move, rest, params, opt)


def _accumulated(gradient: Gradient, parts: int) -> Gradient:
    """The mean of a gradient and its metrics over `parts` micro-batches."""
    if parts == 1:
        return gradient

    def summed(params, batches, key, step, phase):
        def split(leaf):  # strided: every device keeps a share of every part
            folded = leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:])
            return folded.swapaxes(0, 1)

        def add(total, part):
            return jax.tree.map(
                jnp.add, total, gradient(params, part, key, step, phase)
            )

        micro = jax.tree.map(split, batches)
        first = jax.tree.map(lambda leaf: leaf[0], micro)
        shapes = jax.eval_shape(
            lambda part: gradient(params, part, key, step, phase), first
        )
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        total, _ = jax.lax.scan(lambda c, part: (add(c, part), None), zeros, micro)
        return jax.tree.map(lambda leaf: leaf / parts, total)

    return summed
