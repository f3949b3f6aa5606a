"""The losses of three nested problems: fill in, classify, choose what to hide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped

from sgmae_jax.bilevel import Operator, gauss_newton
from sgmae_jax.masking import Mask
from sgmae_jax.methods.base import Params
from sgmae_jax.methods.image import pool_tokens
from sgmae_jax.methods.patch_weights import weighted_error
from sgmae_jax.methods.pixels import pixel_targets
from sgmae_jax.models import Autoencoder
from sgmae_jax.models.head import ClassificationHead, cross_entropy
from sgmae_jax.models.layers import at_least_float32

# (variable, what it depends on) -> products with a curvature
Curvature = Callable[[Any, Any], Operator]


@dataclass(frozen=True)
class ThreeLevels:
    """An autoencoder (theta), a head on its encoder, and a masking network.

    Attributes:
        model: the autoencoder.
        masker: tokens -> logits, large = hide.
        head: features -> logits of the classes.
        pool: what it reads, "cls" or "mean".
        norm_pix: targets are standardised patch by patch.
        weight_norm: see `weighted_error`.
        token_gradient: whether the autoencoder may lower its loss by way of the tokens
            that the masking network reads.
    """

    model: Autoencoder
    masker: nn.Module
    head: ClassificationHead
    pool: str
    norm_pix: bool
    weight_norm: str
    token_gradient: bool = False

    def init(self, key: Key[Array, ""]) -> Params:
        """Fresh parameters of "model", "masker" and "head"."""
        first, second, third = jax.random.split(key, 3)
        encoder = self.model.encoder
        tokens = jnp.zeros((1, encoder.tokens, encoder.width))
        return {
            "model": self.model.init(first),
            "masker": self.masker.init(second, tokens)["params"],
            "head": self.head.init(third, jnp.zeros((1, encoder.width)))["params"],
        }

    def logits(
        self, masking: PyTree, theta: PyTree, images: Shaped[Array, "B H W C"]
    ) -> Float[Array, "B N"]:
        """How willingly each patch is hidden."""
        # Deviation: the authors' encoder can lower its loss by making weights small.
        tokens = self.model.embed(theta, images)
        if not self.token_gradient:
            tokens = jax.lax.stop_gradient(tokens)
        return jnp.asarray(self.masker.apply({"params": masking}, tokens))

    def predict(
        self, theta: PyTree, images: Float[Array, "B H W C"], mask: Mask
    ) -> Float[Array, "B N P"]:
        """The autoencoder's patches."""
        tokens = self.model.embed(theta, images)
        return self.model.predict(theta, tokens, mask).tokens

    def reconstruction(
        self,
        theta: PyTree,
        masking: PyTree,
        images: Float[Array, "B H W C"],
        mask: Mask,
    ) -> Float[Array, ""]:
        """Stage I: the error of hidden patches, each by its chance to be hidden."""
        chances = jax.nn.sigmoid(self.logits(masking, theta, images))
        prediction = self.predict(theta, images, mask)
        return self.weigh(prediction, chances, images, mask)

    def reconstruction_curvature(
        self, images: Float[Array, "B H W C"], mask: Mask
    ) -> Curvature:
        """Gauss-Newton's, of the weighted squared error."""

        def curvature(theta: PyTree, masking: PyTree) -> Operator:
            chances = jax.nn.sigmoid(self.logits(masking, theta, images))
            return gauss_newton(
                lambda theta: self.predict(theta, images, mask),
                lambda prediction: self.weigh(prediction, chances, images, mask),
                theta,
            )

        return curvature

    def features(
        self, theta: PyTree, images: Shaped[Array, "B H W C"]
    ) -> Float[Array, "B D"]:
        """Of whole images."""
        encoded = self.model.encode(theta, images)
        return at_least_float32(pool_tokens(encoded, self.pool))

    def classify(
        self,
        weights: PyTree,
        features: Float[Array, "B D"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B K"]:
        """The head's logits; with a key, it drops features, if it drops any."""
        return jnp.asarray(
            self.head.apply(
                {"params": weights},
                features,
                deterministic=key is None,
                rngs=None if key is None else {"dropout": key},
            )
        )

    def head_loss(
        self,
        weights: PyTree,
        features: Float[Array, "B D"],
        labels: Int[Array, " B"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, ""]:
        """Stages II and III: cross entropy."""
        return cross_entropy(self.classify(weights, features, key), labels)

    def solve_head(
        self,
        weights: PyTree,
        features: Float[Array, "B D"],
        labels: Int[Array, " B"],
        *,
        hold: float,
        steps: int,
    ) -> PyTree:
        """Stage II on the features of one batch, held near where it starts.

        Args:
            weights: where it starts.
            features: computed once, whatever the number of steps.
            labels: of their images.
            hold: half the squared distance from the start costs this much.
            steps: of L-BFGS.
        """

        def objective(moved: PyTree) -> Float[Array, ""]:
            away = optax.tree.norm(optax.tree.sub(moved, weights), squared=True)
            return self.head_loss(moved, features, labels) + hold / 2 * away

        optimizer = optax.lbfgs()
        look = optax.value_and_grad_from_state(objective)

        def step(_, carry):
            moved, state = carry
            value, gradient = look(moved, state=state)
            change, state = optimizer.update(
                gradient, state, moved, value=value, grad=gradient, value_fn=objective
            )
            return optax.apply_updates(moved, change), state

        start = weights, optimizer.init(weights)
        return jax.lax.fori_loop(0, steps, step, start)[0]

    def head_curvature(self, labels: Int[Array, " B"]) -> Curvature:
        """Gauss-Newton's of the head, on features."""

        def curvature(weights: PyTree, features: PyTree) -> Operator:
            return gauss_newton(
                lambda weights: self.classify(weights, features),
                lambda logits: cross_entropy(logits, labels),
                weights,
            )

        return curvature

    def weigh(
        self,
        prediction: Float[Array, "B N P"],
        chances: Float[Array, "B N"],
        images: Float[Array, "B H W C"],
        mask: Mask,
    ) -> Float[Array, ""]:
        """The weighted error of a prediction."""
        pixels = pixel_targets(images, self.model.patch_size, norm_pix=self.norm_pix)
        error = jnp.square(prediction - pixels).mean(-1)
        return weighted_error(error, chances, mask.hidden, self.weight_norm)
