"""Ways to solve (A + damping) q = w for q, where A is known by its products only.

A solver is anything with the two methods of `Solver`. Failure is a value: a solution
says how large its residual is, and nothing is raised or printed.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from sgmae_jax.bilevel.products import Operator, damped, diagonal_product, norm

# A search direction with less curvature than this, by its squared length, ends CG.
_FLAT = 1e-12


class Solution(NamedTuple):
    """What a solver returns.

    Attributes:
        vector: q.
        residual: |(A + damping) q - w| / |w|; NaN where no product was made.
        iterations: products made.
        negative_curvature: 1 if the operator was seen not to be positive definite.
    """

    vector: PyTree
    residual: Float[Array, ""]
    iterations: Int[Array, ""]
    negative_curvature: Int[Array, ""]


class Solver(Protocol):
    """Solves (A + damping) q = w; instances hold static numbers only.

    Attributes:
        products: whether `solve` calls the operator at all.
    """

    products: ClassVar[bool]

    def init(self, like: PyTree) -> PyTree:
        """The state before the first solve; () for a solver that keeps none."""
        ...

    def solve(
        self,
        operator: Operator,
        wanted: PyTree,
        state: PyTree = (),
        *,
        damping: float | PyTree = 0.0,
        precondition: float | PyTree = 1.0,
    ) -> tuple[Solution, PyTree]:
        """One solve.

        Args:
            operator: A, symmetric, without the damping.
            wanted: w, not zero.
            state: of the solve before, or from `init`.
            damping: >= 0; a tree damps each coordinate by its own.
            precondition: > 0, of the order of 1 / diag(A); a scalar or a tree.

        Returns:
            The solution, and the state for the next solve.
        """
        ...


@dataclass(frozen=True)
class Identity:
    """q = scale * P w: the inverse Hessian is taken for a multiple of the identity.

    Reference: DARTS (2019); "darts" of leopard-ai/betty has scale 1 and no P.
    """

    products: ClassVar[bool] = False
    scale: float = 1.0

    def init(self, like: PyTree) -> PyTree:
        del like
        return ()

    def solve(self, operator, wanted, state=(), *, damping=0.0, precondition=1.0):
        del operator, damping
        found = optax.tree.scale(self.scale, diagonal_product(precondition, wanted))
        return _without_product(found), state


@dataclass(frozen=True)
class OneStep:
    """q = -(du/dg)' w: what w feels of one optimizer step whose gradient changes.

    Args:
        pull: u's derivative by g, transposed; see `optimizer_step`.

    Reference: Choe et al., Making Scalable Meta Learning Practical (2023), for Adam.
    """

    products: ClassVar[bool] = False
    pull: Operator

    def init(self, like: PyTree) -> PyTree:
        del like
        return ()

    def solve(self, operator, wanted, state=(), *, damping=0.0, precondition=1.0):
        del operator, damping, precondition
        return _without_product(optax.tree.scale(-1, self.pull(wanted))), state


@dataclass(frozen=True)
class Neumann:
    """q = rate * sum over k = 0 … terms of (I - rate P (A + damping))^k P w.

    The same as terms + 1 unrolled steps of gradient descent from a stationary point.
    It diverges where rate P A has an eigenvalue above 2.

    Args:
        terms: products, >= 1.
        rate: > 0.

    Reference: Lorraine et al., Optimizing Millions of Hyperparameters (2020).
    """

    products: ClassVar[bool] = True
    terms: int
    rate: float

    def init(self, like: PyTree) -> PyTree:
        del like
        return ()

    def solve(self, operator, wanted, state=(), *, damping=0.0, precondition=1.0):
        operator = damped(operator, damping)

        def step(term: PyTree) -> PyTree:
            return optax.tree.scale(self.rate, diagonal_product(precondition, term))

        def body(_, carry):
            found, left = carry
            term = step(left)
            return optax.tree.add(found, term), optax.tree.sub(left, operator(term))

        start = optax.tree.zeros_like(wanted), wanted
        found, left = jax.lax.fori_loop(0, self.terms, body, start)
        residual = _relative(left, wanted)
        found = optax.tree.add(found, step(left))  # the last term costs no product
        return _solution(found, residual, self.terms, False), state


@dataclass(frozen=True)
class ConjugateGradient:
    """Preconditioned conjugate gradients with Steihaug's guard.

    They stop where a direction has no positive curvature, and return what they have
    so far; at the first iteration that is P w.

    Args:
        iterations: at most, >= 1.
        tolerance: they stop at this residual, or at what rounding leaves.

    Reference: Steihaug, The Conjugate Gradient Method and Trust Regions (1983).
    """

    products: ClassVar[bool] = True
    iterations: int
    tolerance: float = 0.0

    def init(self, like: PyTree) -> PyTree:
        del like
        return ()

    def solve(self, operator, wanted, state=(), *, damping=0.0, precondition=1.0):
        operator = damped(operator, damping)
        improve = functools.partial(diagonal_product, precondition)
        # Inner products of a tiny right-hand side would underflow.
        size = norm(wanted)
        whole = jnp.where(size > 0, size, 1)
        unit = jax.tree.map(lambda w: w / whole, wanted)
        # Beyond rounding, the curvature underflows and looks negative.
        enough = max(self.tolerance, float(jnp.finfo(size.dtype).eps))

        class Carry(NamedTuple):
            found: PyTree
            left: PyTree  # the residual
            direction: PyTree
            slope: Float[Array, ""]  # left' P left
            made: Int[Array, ""]
            bent: Bool[Array, ""]  # negative curvature was met

        def going(now: Carry):
            far = optax.tree.norm(now.left) > enough
            return (now.made < self.iterations) & far & ~now.bent

        def body(now: Carry):
            product = operator(now.direction)
            curvature = optax.tree.vdot(now.direction, product)
            flat = _FLAT * optax.tree.vdot(now.direction, now.direction)
            bent = ~(curvature > flat)  # NaN too
            length = now.slope / jnp.where(bent, 1, curvature)
            found = optax.tree.add_scale(now.found, length, now.direction)
            left = optax.tree.add_scale(now.left, -length, product)
            steeper = improve(left)
            slope = optax.tree.vdot(left, steeper)
            direction = optax.tree.add_scale(steeper, slope / now.slope, now.direction)
            # Where there is no curvature: what there was, or the first direction.
            start = now.made == 0
            kept = optax.tree.where(start, now.direction, now.found)
            lost = optax.tree.where(start, optax.tree.sub(now.left, product), now.left)
            return Carry(
                found=optax.tree.where(bent, kept, found),
                left=optax.tree.where(bent, lost, left),
                direction=direction,
                slope=slope,
                made=now.made + 1,
                bent=bent,
            )

        first = improve(unit)
        last = jax.lax.while_loop(
            going,
            body,
            Carry(
                found=optax.tree.zeros_like(unit),
                left=unit,
                direction=first,
                slope=optax.tree.vdot(unit, first),
                made=jnp.int32(0),
                bent=jnp.bool_(False),
            ),
        )
        found = optax.tree.scale(size, last.found)
        residual = optax.tree.norm(last.left)
        return _solution(found, residual, last.made, last.bent), state


@dataclass(frozen=True)
class Tracked:
    """q <- q - rate P ((A + damping) q - w): one step a solve, q is kept between them.

    For a w and an A that change slowly, as they do along training.

    Args:
        rate: > 0; below 2 by the largest eigenvalue of P (A + damping).

    Reference: Dagreou et al., A Framework for Bilevel Optimization (2022), SOBA.
    """

    products: ClassVar[bool] = True
    rate: float

    def init(self, like: PyTree) -> PyTree:
        return optax.tree.zeros_like(like)

    def solve(self, operator, wanted, state=(), *, damping=0.0, precondition=1.0):
        left = optax.tree.sub(wanted, damped(operator, damping)(state))
        step = diagonal_product(precondition, left)
        found = optax.tree.add_scale(state, self.rate, step)
        residual = _relative(left, wanted)
        return _solution(found, residual, 1, False), found


@dataclass(frozen=True)
class Nystrom:
    """The inverse of a low-rank picture of A, seen in random directions, plus damping.

    It needs a damping > 0, a number, and fits operators whose spectrum falls fast.

    Args:
        rank: random directions, one product each, >= 1.
        seed: of these.

    Reference: Hataya and Yamada, Nystrom Method for Accurate and Scalable Implicit
    Differentiation (2023), with Gaussian directions instead of coordinates.
    """

    products: ClassVar[bool] = True
    rank: int
    seed: int = 0

    def init(self, like: PyTree) -> PyTree:
        del like
        return ()

    def solve(self, operator, wanted, state=(), *, damping=0.0, precondition=1.0):
        del precondition
        if not (isinstance(damping, (int, float)) and damping > 0):
            raise ValueError(f"Nystrom needs a number > 0 as damping, got {damping!r}")
        directions = _gaussian(jax.random.key(self.seed), self.rank, wanted)
        columns = jax.lax.map(operator, directions)
        core = _inner(directions, columns)
        gram = _inner(columns, columns)
        # Symmetric up to rounding; directions that A does not see drop out.
        small = (core + core.T) / 2 + gram / damping
        seen = jax.tree.reduce(
            jnp.add,
            jax.tree.map(
                lambda c, w: jnp.tensordot(c, w, w.ndim, precision="highest"),
                columns,
                wanted,
            ),
        )
        factor = jnp.linalg.lstsq(small, seen)[0] / damping**2
        found = jax.tree.map(
            lambda w, c: w / damping - jnp.tensordot(factor, c, 1, precision="highest"),
            wanted,
            columns,
        )
        left = optax.tree.sub(damped(operator, damping)(found), wanted)
        residual = _relative(left, wanted)
        return _solution(found, residual, self.rank + 1, False), state


def _gaussian(key: Array, count: int, like: PyTree) -> PyTree:
    """`count` random trees, stacked."""
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    drawn = [
        jax.random.normal(one, (count, *leaf.shape), leaf.dtype)
        for one, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)


def _inner(first: PyTree, second: PyTree) -> Float[Array, "k k"]:
    """Inner products of all pairs of two stacks of trees."""

    def of_leaves(a: Array, b: Array) -> Array:
        flat = a.reshape(len(a), -1), b.reshape(len(b), -1)
        return jnp.matmul(flat[0], flat[1].T, precision="highest")

    return jax.tree.reduce(jnp.add, jax.tree.map(of_leaves, first, second))


def _relative(left: PyTree, wanted: PyTree) -> Float[Array, ""]:
    size = norm(wanted)
    return norm(left) / jnp.where(size > 0, size, 1)


def _without_product(found: PyTree) -> Solution:
    return _solution(found, jnp.nan, 0, False)


def _solution(found: PyTree, residual: Any, products: Any, bent: Any) -> Solution:
    return Solution(
        vector=found,
        residual=jnp.asarray(residual, jnp.float32),
        iterations=jnp.asarray(products, jnp.int32),
        negative_curvature=jnp.asarray(bent, jnp.int32),
    )
