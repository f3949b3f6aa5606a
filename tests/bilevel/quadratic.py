"""Three quadratic levels whose hypergradient is known in closed form.

L1 = x'Ax/2 - x'(Bt + b);  L2 = y'Cy/2 - y'(Dx + d)
L3 = |Px + Qy - z|^2/2 + rho |t|^2/2
dL3/dt = B'A^-1 (P'r + D'C^-1 Q'r) + rho t  with  r = Px* + Qy* - z
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

RHO = 0.1


def spd(random, size, low, high):
    """Symmetric with eigenvalues evenly from low to high."""
    basis, _ = np.linalg.qr(random.normal(size=(size, size)))
    return basis * np.linspace(low, high, size) @ basis.T


@dataclasses.dataclass(eq=False)
class Quadratic:
    """The closed forms are NumPy's; the losses are for JAX under `enable_x64`."""

    seed: int = 0
    sizes: tuple[int, int, int] = (30, 12, 8)

    def __post_init__(self):
        n, m, k = self.sizes
        random = np.random.default_rng(self.seed)

        def draw(*shape):
            return random.normal(size=shape)

        self.A, self.C = spd(random, n, 0.05, 1), spd(random, m, 0.1, 1)
        self.B, self.b, self.D, self.d = draw(n, k), draw(n), draw(m, n) / 8, draw(m)
        self.P, self.Q, self.z, self.t = draw(k, n), draw(k, m), draw(k), draw(k)

    def lower(self, x, t):
        return x @ self.A @ x / 2 - x @ (self.B @ t + self.b)

    def middle(self, y, x):
        return y @ self.C @ y / 2 - y @ (self.D @ x + self.d)

    def outer(self, x, y, t):
        return jnp.sum((self.P @ x + self.Q @ y - self.z) ** 2) / 2 + RHO * t @ t / 2

    def x_of(self, t):
        return np.linalg.solve(self.A, self.B @ t + self.b)

    def y_of(self, x):
        return np.linalg.solve(self.C, self.D @ x + self.d)

    def value(self, t):
        """The outer loss of the responses, for finite differences."""
        x = self.x_of(t)
        residual = self.P @ x + self.Q @ self.y_of(x) - self.z
        return residual @ residual / 2 + RHO * t @ t / 2

    def gradient(self, t, weights=(1.0, 1.0)):
        """The closed form; the weights are of the path by x and of that by y."""
        x = self.x_of(t)
        r = self.P @ x + self.Q @ self.y_of(x) - self.z
        by_y = self.D.T @ np.linalg.solve(self.C, self.Q.T @ r)
        wanted = weights[0] * self.P.T @ r + weights[1] * by_y
        return self.B.T @ np.linalg.solve(self.A, wanted) + RHO * t


def relative(found, expected):
    """The norm of a difference by the norm of what is expected, of two trees."""
    flat = [
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        for tree in (found, expected)
    ]
    return float(np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1]))


def cosine(one, other):
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
