"""SMA's networks as functions of a plain parameter tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from sgmae_jax.masking import Mask
from sgmae_jax.models.sma import Encoded, Inputs, SmaDecoder, SmaEncoder


@dataclass(frozen=True)
class SmaAutoencoder:
    """Encoder and decoder over rows of inputs.

    Attributes:
        encoder: that embeds and encodes.
        decoder: that reconstructs; `queries` of its own, or the encoder's positions.
    """

    encoder: SmaEncoder
    decoder: SmaDecoder

    def init(self, key: Array) -> PyTree:
        """Fresh float32 parameters, {"encoder": …, "decoder": …}."""

        def fresh(key):
            first, second = jax.random.split(key)
            encoder = init_encoder(self.encoder, first)
            encoded = some_encoded(self.encoder)
            decoder = self.decoder.init(
                second, encoded, *self._queries(encoder, jnp.zeros((1, self.length)))
            )
            return {"encoder": encoder, "decoder": decoder["params"]}

        return jax.jit(fresh)(key)

    @property
    def length(self) -> int:
        """Positions there are."""
        return self.encoder.length

    def embed(self, params: PyTree, inputs: Inputs) -> Float[Array, "B N E"]:
        """Embedded inputs."""
        return self._encoder(params, inputs, method="embed")

    def attention(
        self, params: PyTree, embedded: Float[Array, "B N E"], valid: Bool[Array, "B N"]
    ) -> Float[Array, "B H Q N"]:
        """The first layer's attention on the complete input, 0 at padding."""
        logits = self._encoder(params, embedded, method="logits")
        never = jnp.finfo(logits.dtype).min
        return jax.nn.softmax(jnp.where(valid[:, None, None], logits, never))

    def encode(
        self, params: PyTree, embedded: Array, valid: Array, *args: Any, **options: Any
    ) -> Encoded:
        """See `SmaEncoder.__call__`."""
        return self._encoder(params, embedded, valid, *args, **options)

    def predict(
        self,
        params: PyTree,
        embedded: Float[Array, "B N E"],
        valid: Bool[Array, "B N"],
        mask: Mask,
        *,
        gather: bool = True,
    ) -> Float[Array, "B N out_values"]:
        """Encodes what is visible and predicts every input from it."""
        encoded = self.encode(params, embedded, valid, mask, gather=gather)
        given = self._queries(params["encoder"], mask.loss_weight)
        own = {"params": params["decoder"]}
        return jnp.asarray(self.decoder.apply(own, encoded, *given))

    def _queries(self, encoder: PyTree, hidden: Float[Array, "B N"]):
        """(positions or None, hidden, the embeddings or None)."""
        own = self.decoder.queries
        positions = None if own else encoder["position"][: hidden.shape[1]]
        return positions, hidden, encoder["embedding"] if self.decoder.tied else None

    def _encoder(self, params: PyTree, *args: Any, **options: Any) -> Any:
        return self.encoder.apply({"params": params["encoder"]}, *args, **options)


def init_encoder(encoder: SmaEncoder, key: Array) -> PyTree:
    """Fresh parameters of an encoder."""
    shape = (1, encoder.length)
    channels, symbols = encoder.channels, encoder.symbols
    inputs = Inputs(
        jnp.ones(shape, bool),
        jnp.zeros((*shape, channels)) if channels else None,
        jnp.zeros(shape, jnp.int32) if symbols else None,
    )
    return encoder.init(
        key, inputs, method=lambda module, x: module(module.embed(x), x.valid)
    )["params"]


def some_encoded(encoder: SmaEncoder) -> Encoded:
    """Zeros in the shape of what an encoder makes of one row."""
    count = encoder.latents or encoder.length
    valid = None if encoder.latents else jnp.ones((1, count), bool)
    return Encoded(jnp.zeros((1, count, encoder.latent_width)), valid)
