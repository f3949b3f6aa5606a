"""AutoMAE's two small convolutional networks: mask generator and discriminator."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from sgmae_jax.models.encoder import uniform_bias

# U(-1/sqrt(fan_in), 1/sqrt(fan_in)), as the authors' framework begins a convolution.
_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_SLOPE = 0.2
# A last kernel needs something to stand on after two halvings.
SMALLEST_GRID = 4


def _conv3x3(outputs: int, inputs: int, name: str) -> nn.Conv:
    return nn.Conv(
        outputs,
        (3, 3),
        kernel_init=_uniform,
        bias_init=uniform_bias(9 * inputs),
        name=name,
    )


class MaskGenerator(nn.Module):
    """From attention maps to one logit a patch: two 3x3 convolutions.

    Attributes:
        grid: (h, w) in tokens.
        channels: between the two; the authors' 6 are half of ViT-B's 12 heads.

    Reference: hyperea/automae models_mae.py, scorer_pred.
    """

    grid: tuple[int, int]
    channels: int

    @nn.compact
    def __call__(self, attention: Float[Array, "B H N"]) -> Float[Array, "B N"]:
        """Logits of patches, any range, from one map a head."""
        batch, heads, tokens = attention.shape
        x = attention.swapaxes(1, 2).reshape(batch, *self.grid, heads)
        x = nn.relu(_conv3x3(self.channels, heads, name="hidden")(x))
        x = _conv3x3(1, self.channels, name="logit")(x)
        return x.reshape(batch, tokens)


class MaskDiscriminator(nn.Module):
    """One score a map: spectrally normalised convolutions without biases.

    Two halve the grid (kernel 4, stride 2), the last covers what is left: 3x3 for the
    authors' 14x14 grid, and whatever another grid leaves.

    Attributes:
        grid: (h, w) in tokens, each at least 4.

    Reference: hyperea/automae models_mae.py, Discriminator; Miyato et al., Spectral
    Normalization for GANs (2018).
    """

    grid: tuple[int, int]

    @nn.compact
    def __call__(self, maps: Float[Array, "B N"]) -> Float[Array, " B"]:
        """Scores, to be drawn to 1 for real maps and to 0 for generated ones.

        Every call makes one power iteration from the vectors in "batch_stats" and
        normalises by the result; see `scores` for what becomes of it.
        """
        x = maps.reshape(len(maps), *self.grid, 1)
        for layer, (channels, halve) in enumerate(((16, True), (32, True), (1, False))):
            conv = nn.Conv(
                channels,
                (4, 4) if halve else x.shape[1:3],
                strides=2 if halve else 1,
                padding=1 if halve else 0,
                use_bias=False,
                kernel_init=_uniform,
                name=f"conv{layer + 1}",
            )
            mutable = self.is_mutable_collection("batch_stats")
            x = nn.SpectralNorm(conv, name=f"norm{layer + 1}")(x, update_stats=mutable)
            x = nn.leaky_relu(x, _SLOPE) if halve else x
        return x.reshape(len(maps))

    def begin(self, key: Array) -> tuple[PyTree, PyTree]:
        """Fresh kernels, and the vectors of the power iteration.

        Returns:
            {"conv1": {"kernel": ...}, ...} and {"conv1": {"u": ..., "sigma": ...}, ...}
        """
        height, width = self.grid
        variables = self.init(key, jnp.zeros((1, height * width)))
        return variables["params"], _plain(variables["batch_stats"])

    def scores(
        self, kernels: PyTree, vectors: PyTree, maps: Float[Array, "B N"]
    ) -> tuple[Float[Array, " B"], PyTree]:
        """Scores of maps, and the vectors one power iteration on.

        Args:
            kernels: as from `begin`; gradients reach them through their norm as well.
            vectors: as from `begin` or from an earlier call; constants.
            maps: non-negative, each sums to 1.
        """
        found, state = self.apply(
            {"params": kernels, "batch_stats": _named(vectors)},
            maps,
            mutable=["batch_stats"],
        )
        return found, _plain(state["batch_stats"])


def _plain(stats: PyTree) -> PyTree:
    """{"norm1": {"conv1/kernel/u": ...}} as {"conv1": {"u": ...}}."""
    return {
        f"conv{norm.removeprefix('norm')}": {
            name.rsplit("/", 1)[-1]: value for name, value in entries.items()
        }
        for norm, entries in stats.items()
    }


def _named(vectors: PyTree) -> PyTree:
    """The inverse of `_plain`."""
    return {
        f"norm{conv.removeprefix('conv')}": {
            f"{conv}/kernel/{name}": value for name, value in entries.items()
        }
        for conv, entries in vectors.items()
    }
