"""One training step: every update in turn, and a guard against non-finite numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, PyTree

from sgmae_jax.methods.base import Batches, Gradient, Method, Metrics, Update
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

    *_, last = method.updates

    def step_fn(state: TrainState, batches: Batches, phase: Hashable):
        key = jax.random.wrap_key_data(state.key)
        opts = dict(zip(names, state.opt, strict=True))
        finite, jumped = jnp.bool_(True), jnp.bool_(False)
        params, batches, metrics = method.prepare(
            dict(state.params), batches, key, state.step, phase
        )
        for update in method.updates:
            gradient = update.gradient
            if update.reads:
                states = {name: opts[name] for name in update.reads}
                gradient = functools.partial(gradient, states=states)
            act = _accumulated(gradient, accumulate)

            def look(params, opt, act=act, update=update):
                grads, own = act(params, batches, key, state.step, phase)
                norm = optax.tree.norm(grads)
                good = jnp.isfinite(own["loss"]) & jnp.isfinite(norm)
                jump = jnp.bool_(False)
                if spiked(opt) is not None:  # so will its next state tell
                    owned = {name: params[name] for name in update.owns}
                    jump = spiked(update.optimizer.update(grads, opt, owned)[1])
                return grads, own | {"grad_norm": norm}, good, jump

            opt = opts[update.name]
            grads, own, good, jump = _every(update, state.step, look, params, opt)
            metrics = metrics | _behind(update, own)
            finite, jumped = finite & good, jumped | jump
            if update is not last:
                moved, opts[update.name] = _moved(
                    update, state.step, grads, params, opt
                )
                params = {**params, **moved}

        # What no one changes stays out of the choice, which on a CPU would copy it.
        sound, held = finite & ~jumped, dict(state.params)
        changing = [
            name
            for name in params
            if name in last.owns or params[name] is not held[name]
        ]

        def finished():
            moved, own = _moved(last, state.step, grads, params, opts[last.name])
            moved = {name: (params | moved)[name] for name in changing}
            # The metrics pass through, held by the barrier: what they read of the old
            # state is read before it is overwritten, and need not be copied for them.
            passed = jax.lax.optimization_barrier(metrics)
            return moved, tuple((opts | {last.name: own}).values()), passed

        before = {name: held[name] for name in changing}, state.opt, metrics
        moved, new_opt, metrics = _unless_void(sound, finished, before)
        new_params = {**held, **moved}

        def followed():
            return method.post_update(new_params, state.step + 1)

        # Apart, so that an average is taken of what is there, not computed with it.
        following = {name: held[name] for name in jax.eval_shape(followed)}
        new_params |= _unless_void(sound, followed, following)
        for update, opt in zip(method.updates, new_opt, strict=True):
            rate = learning_rate(opt)
            if update.every > 1:
                rate = jnp.where(state.step % update.every == 0, rate, jnp.nan)
            metrics |= _behind(update, {"lr": rate})
        void = (~finite).astype(jnp.int32)
        metrics["skipped"] = void
        if any(spiked(opt) is not None for opt in new_opt):
            metrics["spiked"] = (finite & jumped).astype(jnp.int32)
        state = TrainState(
            state.step + 1, new_params, new_opt, state.key, state.skipped + void
        )
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


def _behind(update: Update, metrics: Metrics) -> Metrics:
    """An update's metrics, behind its name, if it has one."""
    prefix = update.name and f"{update.name}/"
    return {prefix + name: value for name, value in metrics.items()}


def _moved(update: Update, step, grads, params, opt):
    """What the update owns and its optimizer's state after it; unchanged if not due."""

    def move():
        change, moved = update.optimizer.update(grads, opt, owned)
        return optax.apply_updates(owned, change), moved

    owned = {name: params[name] for name in update.owns}
    if update.every == 1:
        return move()
    return jax.lax.cond(step % update.every == 0, move, lambda: (owned, opt))


def _every(update: Update, step, look: Callable, params, opt):
    """Runs `look` when due; else gradients are 0, metrics NaN and nothing is wrong."""
    if update.every == 1:
        return look(params, opt)
    grads, own, _, _ = jax.eval_shape(look, params, opt)

    def rest(params, opt):
        none = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), grads)
        unknown = jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), own)
        return none, unknown, jnp.bool_(True), jnp.bool_(False)

    return jax.lax.cond(step % update.every == 0, look, rest, params, opt)


def _unless_void(sound: Bool[Array, ""], finished: Callable[[], PyTree], held: PyTree):
    """`finished()` if the step is sound, else `held`.

    On a CPU a branch, since there a selection costs copies: XLA computes the change of
    the parameters from the old moments once more, which thus cannot be overwritten.
    An accelerator's host would have to wait for the branch to be known.
    """

    def selected():
        return jax.tree.map(
            lambda new, old: jnp.where(sound, new, old), finished(), held
        )

    def branched():
        return jax.lax.cond(sound, finished, lambda: held)

    return jax.lax.platform_dependent(cpu=branched, default=selected)


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
