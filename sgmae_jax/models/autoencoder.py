"""The masked autoencoder as functions of a plain parameter tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Shaped

from sgmae_jax.masking import Mask, select
from sgmae_jax.models.decoder import Decoder
from sgmae_jax.models.encoder import Encoder
from sgmae_jax.models.layers import Captured, LayerOutput, layer_index, layer_norm
from sgmae_jax.models.patches import patchify
from sgmae_jax.models.tokens import take_tokens


class Prediction(NamedTuple):
    """What `predict` returns.

    Attributes:
        tokens: predictions for all tokens, hidden or not, at least float32.
        cls: the decoder's output for the class token.
        latent: the encoder's output, class token first, in the compute dtype.
        captured: {"encoder": …, "decoder": …}, each as `Transformer.run_blocks` says.
    """

    tokens: Float[Array, "B N P"]
    cls: Float[Array, "B P"]
    latent: Float[Array, "B 1+K D"]
    captured: dict[str, Captured]


class Encoded(NamedTuple):
    """What `encode` returns: the encoder's output, split; and what was captured."""

    cls: Float[Array, "B D"]
    patches: Float[Array, "B N D"]
    captured: Captured


@dataclass(frozen=True)
class Autoencoder:
    """Encoder, decoder, and the images they are made for.

    Attributes:
        encoder: whose `grid` says how many patches an image has.
        decoder: of the same grid; its `out_values` may be any.
        patch_size: (height, width) in pixels.
        channels: of an image, C.
        mean: per channel, of images in [0, 1].
        std: per channel, likewise.

    Raises:
        ValueError: the parts contradict each other.
    """

    encoder: Encoder
    decoder: Decoder
    patch_size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        rows, columns = self.patch_size
        values = rows * columns * self.channels
        if self.encoder.patch_values != values:
            raise ValueError(
                f"patches of {rows}x{columns} pixels and {self.channels} channels have "
                f"{values} values, the encoder takes {self.encoder.patch_values}"
            )
        if self.encoder.grid != self.decoder.grid:
            raise ValueError(
                f"encoder and decoder differ in grid: {self.encoder.grid} and "
                f"{self.decoder.grid}"
            )
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(
                f"{self.channels} channels, but {len(self.mean)} means and "
                f"{len(self.std)} deviations"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens (h, w)."""
        return self.encoder.grid

    def init(self, key: Array) -> PyTree:
        """Fresh float32 parameters, {"encoder": …, "decoder": …}."""

        def fresh(key):
            first, second = jax.random.split(key)
            count = self.encoder.tokens
            patches = jnp.zeros((1, count, self.encoder.patch_values))
            encoder = self.encoder.init(
                first, patches, method=lambda module, x: module(module.embed(x))
            )
            latent = jnp.zeros((1, 1 + count, self.encoder.width))
            nothing_hidden = select(jnp.zeros((1, count)), count)
            decoder = self.decoder.init(second, latent, nothing_hidden)
            return {"encoder": encoder["params"], "decoder": decoder["params"]}

        # One compiled program instead of hundreds of small ones.
        return jax.jit(fresh)(key)

    def normalise(self, images: Shaped[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Standardises uint8 images per channel; floats pass, as already standard."""
        if images.dtype != jnp.uint8:
            return jnp.asarray(images)
        mean, std = jnp.asarray(self.mean), jnp.asarray(self.std)
        return (jnp.asarray(images, jnp.float32) / 255 - mean) / std

    def patches(self, images: Shaped[Array, "B H W C"]) -> Float[Array, "B N P"]:
        """Standardised patches of uint8 or already standardised float images.

        Raises:
            ValueError: images of another size or number of channels.
        """
        (h, w), (rows, columns) = self.grid, self.patch_size
        expected = (h * rows, w * columns, self.channels)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise ValueError(
                f"images must be [B, {', '.join(map(str, expected))}] (a grid of "
                f"{h}x{w} patches of {rows}x{columns} pixels, {self.channels} "
                f"channels), got {list(images.shape)}"
            )
        return patchify(self.normalise(images), self.patch_size)

    def embed(
        self, params: PyTree, images: Shaped[Array, "B H W C"]
    ) -> Float[Array, "B N D"]:
        """Tokens of all patches: projection plus position."""
        return self._apply_encoder(params, self.patches(images), method="embed")

    def predict(
        self,
        params: PyTree,
        tokens: Float[Array, "B N D"],
        mask: Mask,
        *,
        capture: Sequence[str] = (),
        scales: tuple[Array | None, Array | None] = (None, None),
    ) -> Prediction:
        """The one forward of the autoencoder: gate, gather, encode, fill in, decode.

        Args:
            params: as from `init`.
            tokens: of all patches, as from `embed`.
            mask: which of them the encoder sees, and how strongly.
            capture: any of "features", "attention", of encoder and decoder.
            scales: of the branches of encoder and decoder, f32[L,2,B] each, as
                `drop_path_scales` makes them; None drops nothing.
        """
        gated = tokens * mask.gate[..., None].astype(tokens.dtype)
        kept = take_tokens(gated, mask.ids_keep, mask)
        latent, of_encoder = self._apply_encoder(
            params, kept, mask.keep_valid, capture=capture, scales=scales[0]
        )
        out, of_decoder = self.decoder.apply(
            {"params": params["decoder"]},
            latent,
            mask,
            capture=capture,
            scales=scales[1],
        )
        captured = {"encoder": of_encoder, "decoder": of_decoder}
        return Prediction(out[:, 1:], out[:, 0], latent, captured)

    def encode(
        self,
        params: PyTree,
        images: Shaped[Array, "B H W C"],
        *,
        capture: Sequence[str] = (),
        scales: Float[Array, "L 2 B"] | None = None,
        normed: bool = True,
    ) -> Encoded:
        """Features of whole images: nothing is masked, nothing is random.

        Args:
            params: as from `init`; the encoder's alone are read.
            images: as `patches` takes them.
            capture: any of "features", "attention".
            scales: of the blocks' branches, as `drop_path_scales` makes them; None
                drops nothing.
            normed: False leaves the encoder's last norm out.
        """
        tokens = self.embed(params, images)
        z, captured = self._apply_encoder(
            params, tokens, capture=capture, scales=scales, normed=normed
        )
        return Encoded(z[:, 0], z[:, 1:], captured)

    def stream(
        self,
        params: PyTree,
        images: Shaped[Array, "B H W C"],
        depth: int,
        *,
        normed: bool = False,
    ) -> Float[Array, "B 1+N D"]:
        """The encoder's residual stream of whole images after its first blocks.

        Args:
            params: as from `init`; the encoder's alone are read.
            images: as `patches` takes them.
            depth: blocks, from 0 (embedded patches with their positions) to all.
            normed: apply the encoder's last norm to it.

        Returns:
            Class token first, in the compute dtype.

        Raises:
            ValueError: the encoder has fewer blocks, or depth < 0.
        """
        if depth < 0:
            raise ValueError(f"depth must be >= 0, got {depth}")
        if depth:
            x = self.layer(params, images, depth).features
        else:
            x = self._apply_encoder(params, self.embed(params, images), method="begin")
        if normed:
            encoder = self.encoder
            norm = layer_norm(encoder.dtype, None, encoder.norm_eps)
            x = jnp.asarray(norm.apply({"params": params["encoder"]["norm"]}, x))
        return x

    def layer(
        self,
        params: PyTree,
        images: Shaped[Array, "B H W C"],
        layer: int,
        *,
        part: Literal["encoder", "decoder"] = "encoder",
    ) -> LayerOutput:
        """One layer's features and attention for whole images, and nothing above it.

        Args:
            params: as from `init`; the decoder's are read for its layers only.
            images: as `patches` takes them.
            layer: counts from 1, or from the end with negative numbers.
            part: whose layer; the decoder is shown all tokens, none is a mask token.

        Raises:
            ValueError: there is no such layer.
        """
        own, pairs = {"params": params[part]}, None
        if part == "encoder":
            module: Encoder | Decoder = self.encoder
            x = module.apply(own, self.embed(params, images), method="begin")
        else:
            encoded = self.encode(params, images)
            latent = jnp.concatenate([encoded.cls[:, None], encoded.patches], axis=1)
            batch, count = encoded.patches.shape[:2]
            nothing_hidden = select(jnp.zeros((batch, count)), count)
            module, pairs = self.decoder, self.decoder.pairs()
            x = module.apply(own, latent, nothing_hidden, method="begin")
        layer_index(layer, module.depth)  # of no blocks there are no parameters
        blocks = params[part]["blocks"]
        return module.run_to_layer(blocks, jnp.asarray(x), layer, pairs)

    def _apply_encoder(self, params: PyTree, *args: Any, **options: Any) -> Any:
        return self.encoder.apply({"params": params["encoder"]}, *args, **options)
