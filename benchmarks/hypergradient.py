"""Every solver's hypergradient against the derivative of solving all levels again.

    python -m benchmarks.hypergradient [--steps 400] [--rounds 15]

A small ViT, one batch a level, float32. Autoencoder and head are brought to their
minima by gradient descent; a ridge on each (the autoencoder's around a trained one)
makes sure that there is one. The derivative of the validation loss through all these
steps, by reverse mode, is what the solvers are compared with, at the same point. A
solver's time is that of a whole hypergradient over that of an MAE step on as many
images, alternating; its memory is the compiler's count of temporaries, over that
step's. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.bare import Sizes
from benchmarks.measure import interleave
from benchmarks.ours import config_of
from sgmae_jax.bilevel import (
    ConjugateGradient,
    Hypergradient,
    Identity,
    Level,
    Neumann,
    Nystrom,
    OneStep,
    Solver,
    Tracked,
    adam_scale,
    gauss_newton,
    hessian,
    hypergradient,
    mixed_difference,
    mixed_product,
    optimizer_step,
    unroll,
)
from sgmae_jax.data import open_source
from sgmae_jax.masking import Mask, num_keep, select
from sgmae_jax.methods.image import make_autoencoder
from sgmae_jax.methods.solving import cosine, floored
from sgmae_jax.methods.three_levels import ThreeLevels
from sgmae_jax.models.head import ClassificationHead
from sgmae_jax.models.patch_maskers import SharedMasker

BATCH, RATIO = 32, 0.75
SIZES = Sizes(32, 8, 32, 2, 2, 16, 1, 2)
RIDGE, HEAD_RIDGE = 0.2, 0.03
RATE, HEAD_RATE, HEAD_STEPS = 0.05, 0.1, 600
TRAINING = 200
B2 = 0.95
ADAMW = optax.adamw(1e-3, b1=0.9, b2=B2, weight_decay=RIDGE)
DESCENT = optax.sgd(RATE, momentum=0.9)


class Point(NamedTuple):
    """Where hypergradients are compared: three batches and all variables.

    Attributes:
        theta: the autoencoder, at its minimum.
        centre: where its ridge holds it: as it was after some training.
        head: the head, at its own.
        masking: the masking network.
        tokens: what this reads, so that it reaches the outer loss on one way only.
        fill: images of the lower level.
        mask: theirs.
        teach: images of the middle level, and their labels.
        judge: images of the outer level, and their labels.
        adam: AdamW's state.
    """

    theta: Any
    centre: Any
    head: Any
    masking: Any
    tokens: jax.Array
    fill: jax.Array
    mask: Mask
    teach: tuple[jax.Array, jax.Array]
    judge: tuple[jax.Array, jax.Array]
    adam: Any


class Problem:
    """Three levels with ridges; the arrays are handed in, so that none is folded."""

    def __init__(self, sizes: Sizes = SIZES):
        config = config_of(sizes, BATCH)
        self.source = open_source("synthetic", image_size=(sizes.image, sizes.image))
        self.levels = ThreeLevels(
            model=make_autoencoder(config),
            masker=SharedMasker(sizes.width),
            head=ClassificationHead(len(self.source.classes)),
            pool="cls",
            norm_pix=True,
            weight_norm="sum",
        )

    def begin(self) -> Point:
        """Random variables, and the images."""
        model = self.levels.model
        items = [self.source[i] for i in range(3 * BATCH)]
        pixels = jnp.asarray(np.stack([item["image"] for item in items]))
        fill, teach, judge = jnp.split(model.normalise(pixels), 3)
        labels = jnp.asarray([item["label"] for item in items])
        _, taught, judged = jnp.split(labels, 3)
        params = self.levels.init(jax.random.key(0))
        theta, masking = params["model"], params["masker"]
        logits = self.levels.logits(masking, theta, fill)
        return Point(
            theta=theta,
            centre=theta,
            head=params["head"],
            masking=masking,
            tokens=model.embed(theta, fill),
            fill=fill,
            mask=select(logits, num_keep(model.encoder.tokens, RATIO)),
            teach=(teach, taught),
            judge=(judge, judged),
            adam=ADAMW.init(theta),
        )

    def settle(self, at: Point, steps: int) -> Point:
        """All variables but the masking network at their minima."""
        trained = unroll(
            self.lower(at), optax.adam(3e-3), at.theta, at.masking, steps=TRAINING
        )
        at = at._replace(theta=trained, centre=trained)
        theta = unroll(self.lower(at), DESCENT, at.theta, at.masking, steps=steps)
        at = at._replace(theta=theta, head=self.respond(at, theta))
        state, width = at.adam, 4
        for first in range(0, BATCH, width):  # the noise of small batches
            part = at._replace(
                fill=at.fill[first : first + width],
                tokens=at.tokens[first : first + width],
                mask=jax.tree.map(lambda x, i=first: x[i : i + width], at.mask),
            )
            gradient = jax.grad(self.lower(part))(theta, at.masking)
            _, state = ADAMW.update(gradient, state, theta)
        return at._replace(adam=state)

    def chances(self, at: Point, masking):
        logits = self.levels.masker.apply({"params": masking}, at.tokens)
        return jax.nn.sigmoid(logits)

    def lower(self, at: Point):
        """Stage I with its ridge."""

        def loss(theta, masking):
            prediction = self.levels.predict(theta, at.fill, at.mask)
            error = self.levels.weigh(
                prediction, self.chances(at, masking), at.fill, at.mask
            )
            away = optax.tree.sub(theta, at.centre)
            return error + RIDGE / 2 * optax.tree.norm(away, squared=True)

        return loss

    def fitted(self, at: Point):
        """Gauss-Newton's curvature of Stage I, without the ridge."""

        def curvature(theta, masking):
            chances = self.chances(at, masking)
            return gauss_newton(
                lambda theta: self.levels.predict(theta, at.fill, at.mask),
                lambda out: self.levels.weigh(out, chances, at.fill, at.mask),
                theta,
            )

        return curvature

    def bent(self, at: Point):
        """The Hessian of Stage I, without the ridge."""

        def curvature(theta, masking):
            product = hessian(lambda theta: self.lower(at)(theta, masking), theta)
            return lambda v: optax.tree.add_scale(product(v), -RIDGE, v)

        return curvature

    def middle(self, at: Point):
        """Stage II with its ridge."""

        def loss(weights, features):
            value = self.levels.head_loss(weights, features, at.teach[1])
            return value + HEAD_RIDGE / 2 * optax.tree.norm(weights, squared=True)

        return loss

    def respond(self, at: Point, theta):
        """The head's minimum for an encoder."""
        features = self.levels.features(theta, at.teach[0])
        descent = optax.sgd(HEAD_RATE, momentum=0.9)
        return unroll(self.middle(at), descent, at.head, features, steps=HEAD_STEPS)

    def outer(self, at: Point):
        """Stage III."""

        def loss(features, weights, masking):
            del masking
            return self.levels.head_loss(weights, features, at.judge[1])

        return loss

    def unrolled(self, at: Point, steps: int):
        """The reference: the derivative through every step of both levels."""

        def outcome(masking):
            theta = unroll(self.lower(at), DESCENT, at.theta, masking, steps=steps)
            features = self.levels.features(theta, at.judge[0])
            return self.outer(at)(features, self.respond(at, theta), masking)

        return jax.grad(outcome)(at.masking)

    def differentiate(
        self,
        at: Point,
        state: Any,
        solver: Solver | None,
        *,
        curvature: str = "hessian",
        by_adam: bool = False,
        head: Solver = ConjugateGradient(40),  # noqa: B008
        product=mixed_product,
    ) -> Hypergradient:
        """The hypergradient by one solver; None is one step of AdamW."""
        lower = self.lower(at)
        if solver is None:
            gradient = jax.grad(lower)(at.theta, at.masking)
            solver = OneStep(optimizer_step(ADAMW, gradient, at.adam, at.theta))
        precondition: Any = 1.0
        if by_adam:
            scale = floored(adam_scale(at.adam, b2=B2))
            precondition = jax.tree.map(jnp.reciprocal, scale)
        return hypergradient(
            self.outer(at),
            Level(self.middle(at), head, product=product),
            Level(
                lower,
                solver,
                damping=RIDGE,
                precondition=precondition,
                curvature=(self.bent if curvature == "hessian" else self.fitted)(at),
                product=product,
            ),
            at.theta,
            at.head,
            at.masking,
            views=(
                lambda theta: self.levels.features(theta, at.teach[0]),
                lambda theta: self.levels.features(theta, at.judge[0]),
            ),
            states=((), state),
        )

    def mae_step(self, at: Point):
        """One AdamW step of the same model on the same images, the unit of cost."""
        gradient = jax.grad(self.lower(at))(at.theta, at.masking)
        change, state = ADAMW.update(gradient, at.adam, at.theta)
        return optax.apply_updates(at.theta, change), state


FITTED = {"curvature": "gauss_newton"}
# name -> (solver, options, solves before the one that is looked at)
SOLVERS: dict[str, tuple[Solver | None, dict[str, Any], int]] = {
    "identity, by differences (released)": (
        Identity(),
        {"head": Identity(), "product": mixed_difference},
        0,
    ),
    "identity": (Identity(), {"head": Identity()}, 0),
    "identity; the head's system solved": (Identity(), {}, 0),
    "one step of AdamW": (None, {}, 0),
    "Neumann, 5": (Neumann(5, RATE), {}, 0),
    "Neumann, 50": (Neumann(50, RATE), {}, 0),
    "CG, 2": (ConjugateGradient(2), {}, 0),
    "CG, 5": (ConjugateGradient(5), {}, 0),
    "CG, 20": (ConjugateGradient(20), {}, 0),
    "CG, 100": (ConjugateGradient(100), {}, 0),
    "CG, 5, by AdamW": (ConjugateGradient(5), {"by_adam": True}, 0),
    "Gauss-Newton CG, 2": (ConjugateGradient(2), FITTED, 0),
    "Gauss-Newton CG, 5": (ConjugateGradient(5), FITTED, 0),
    "Gauss-Newton CG, 20": (ConjugateGradient(20), FITTED, 0),
    "Gauss-Newton CG, 5, by AdamW": (
        ConjugateGradient(5),
        {**FITTED, "by_adam": True},
        0,
    ),
    "tracked, Gauss-Newton, 1st solve": (Tracked(RATE), FITTED, 0),
    "tracked, Gauss-Newton, 50th": (Tracked(RATE), FITTED, 49),
    "tracked, Hessian, 50th": (Tracked(RATE), {}, 49),
    "Nystrom, 20": (Nystrom(20), {}, 0),
}


def compile_unit(problem: Problem, at: Point) -> jax.stages.Compiled:
    """The MAE step that hypergradients are counted in."""
    return jax.jit(problem.mae_step).lower(at).compile()


def compile_solver(
    problem: Problem, at: Point, name: str
) -> tuple[jax.stages.Compiled, Any]:
    """One of `SOLVERS`: (point, state) -> (hypergradient, state, lower solution).

    Returns:
        The program and its first state.
    """
    solver, fields, _ = SOLVERS[name]

    def run(at, state):
        found = problem.differentiate(at, state, solver, **fields)
        return found.value, found.states[1], found.lower._replace(vector=())

    state = () if solver is None else solver.init(at.theta)
    return jax.jit(run).lower(at, state).compile(), state


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    problem = Problem()
    at = jax.jit(problem.settle, static_argnums=1)(problem.begin(), 4 * options.steps)
    slope = optax.tree.norm(jax.jit(jax.grad(problem.lower(at)))(at.theta, at.masking))
    reference = jax.jit(problem.unrolled, static_argnums=1)(at, options.steps)
    size = optax.tree.norm(reference)
    print(f"|gradient| of the autoencoder: {slope:.1e}; |reference|: {size:.1e}\n")

    unit = compile_unit(problem, at)
    base = unit.memory_analysis().temp_size_in_bytes
    programs: dict[str, Any] = {"MAE step": functools.partial(unit, at)}
    rows = {}
    for name, (_, _, before) in SOLVERS.items():
        compiled, state = compile_solver(problem, at, name)
        for _ in range(before):
            _, state, _ = compiled(at, state)
        value, _, solution = compiled(at, state)
        error = optax.tree.norm(optax.tree.sub(value, reference)) / size
        memory = compiled.memory_analysis().temp_size_in_bytes / base
        rows[name] = (cosine(value, reference), error, solution, memory)
        programs[name] = functools.partial(compiled, at, state)
    seconds = interleave(programs, rounds=options.rounds)
    print(
        "| solver | cosine | relative error | residual | products | "
        "time | memory |\n|---|---|---|---|---|---|---|"
    )
    for name, (angle, error, solution, memory) in rows.items():
        time = statistics.median(
            own / plain
            for own, plain in zip(seconds[name], seconds["MAE step"], strict=True)
        )
        left = solution.residual
        print(
            f"| {name}{', bent' if solution.negative_curvature else ''} | "
            f"{angle:.4f} | {error:.2g} | "
            f"{'–' if jnp.isnan(left) else f'{left:.1e}'} | "
            f"{int(solution.iterations)} | {time:.1f} | {memory:.1f} |"
        )
    step = 1e3 * statistics.median(seconds["MAE step"])
    print(f"\nOne MAE step of {BATCH} images: {step:.1f} ms, {base / 2**20:.1f} MiB.")


if __name__ == "__main__":
    main()
