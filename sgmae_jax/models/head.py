"""The head that makes a classifier of features, and its loss."""

from __future__ import annotations

import flax.linen as nn
import jax
import optax
from jaxtyping import Array, Float, Int

from sgmae_jax.models.layers import Linear, at_least_float32, layer_norm


class ClassificationHead(nn.Module):
    """LayerNorm, dropout and one linear layer, computed in float32 at least.

    The kernel starts from a normal distribution cut off at two deviations, as ViT heads
    do and unlike the `Linear` layers of the encoder; the bias at 0.

    Attributes:
        classes: K, at least 1.
        dropout: chance of each normed feature to be dropped, in [0, 1).
        deviation: of the kernel at the start, above 0.
    """

    classes: int
    dropout: float = 0.0
    deviation: float = 0.02

    @nn.compact
    def __call__(
        self, features: Float[Array, "*rows D"], *, deterministic: bool = True
    ) -> Float[Array, "*rows K"]:
        """Logits of features.

        Args:
            features: of whole images.
            deterministic: drop nothing; otherwise `apply` needs a key "dropout".
        """
        features = at_least_float32(features)
        normed = layer_norm(features.dtype, "norm")(features)
        normed = nn.Dropout(self.dropout)(normed, deterministic=deterministic)
        linear = Linear(
            self.classes,
            dtype=features.dtype,
            kernel_init=nn.initializers.truncated_normal(self.deviation),
            name="linear",
        )
        return linear(normed)


def soft_targets(
    labels: Int[Array, " B"], classes: int, *, smoothing: float = 0.0
) -> Float[Array, "B K"]:
    """What the softmax of a batch's logits should be; each row sums to 1.

    Args:
        labels: in [0, K).
        classes: K.
        smoothing: share of each target spread evenly over all classes, in [0, 1].

    Reference: Szegedy et al., Rethinking the Inception Architecture (2016).
    """
    return optax.smooth_labels(jax.nn.one_hot(labels, classes), smoothing)


def cross_entropy(
    logits: Float[Array, "B K"], labels: Int[Array, " B"], *, smoothing: float = 0.0
) -> Float[Array, ""]:
    """Mean cross entropy of a batch, in nats; see `soft_targets`."""
    targets = soft_targets(labels, logits.shape[-1], smoothing=smoothing)
    return optax.softmax_cross_entropy(logits, targets).mean()


def accuracy(logits: Float[Array, "B K"], labels: Int[Array, " B"]) -> Float[Array, ""]:
    """Share of a batch whose largest logit is that of its label."""
    return (logits.argmax(-1) == labels).astype(logits.dtype).mean()
