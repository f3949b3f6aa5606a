"""An encoder under a classification head, for the methods that train one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree, Shaped

from sgmae_jax.methods.base import Metrics
from sgmae_jax.methods.image import pool_tokens
from sgmae_jax.models import Autoencoder
from sgmae_jax.models.head import ClassificationHead, accuracy


@dataclass(frozen=True)
class Classifier:
    """Logits of whole images from params["model"]["encoder"] and params["head"].

    Attributes:
        model: whose encoder sees the images.
        head: on the pooled tokens.
        pool: "mean" (of the patch tokens) or "cls".
        normed: whether the tokens go through the encoder's last norm first.
    """

    model: Autoencoder
    head: ClassificationHead
    pool: str
    normed: bool = True

    def init_head(self, key: Key[Array, ""]) -> PyTree:
        """Fresh parameters of the head."""
        return self.head.init(key, jnp.zeros((1, self.model.encoder.width)))["params"]

    def logits(
        self,
        params: Any,
        images: Shaped[Array, "B H W C"],
        scales: Float[Array, "L 2 B"] | None = None,
    ) -> Float[Array, "B K"]:
        """At least float32; nothing is masked.

        Args:
            params: with "model" and "head".
            images: uint8, or floats that are already standardised.
            scales: of the blocks' branches, see `drop_path_scales`; None: all 1.
        """
        encoded = self.model.encode(
            params["model"], images, scales=scales, normed=self.normed
        )
        features = pool_tokens(encoded, self.pool)
        return jnp.asarray(self.head.apply({"params": params["head"]}, features))

    def loss(
        self,
        params: Any,
        images: Shaped[Array, "B H W C"],
        targets: Float[Array, "B K"],
        scales: Float[Array, "L 2 B"] | None = None,
    ) -> tuple[Float[Array, ""], Metrics]:
        """Mean cross entropy, in nats, and "accuracy": of the targets' largest.

        Args:
            params: with "model" and "head".
            images: as of `logits`.
            targets: what the softmax of the logits should be.
            scales: as of `logits`.
        """
        logits = self.logits(params, images, scales)
        value = optax.softmax_cross_entropy(logits, targets).mean()
        return value, {"accuracy": accuracy(logits, targets.argmax(-1))}
