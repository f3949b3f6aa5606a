"""SMA's encoder, decoder and head: any inputs that are a row of tokens.

Reference: Xie et al., Self-Guided Masked Autoencoders for Domain-Agnostic
Self-Supervised Learning (2024); Johnathan-Xie/sma modeling_sma.py.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key

from sgmae_jax.masking import Mask
from sgmae_jax.models.layers import REMAT, at_least_float32, layer_norm
from sgmae_jax.models.sma_layers import (
    NORM_EPS,
    OUTER_NORM_EPS,
    AttentionLayer,
    dropped,
    folded,
    linear,
    normal,
)
from sgmae_jax.models.tokens import take_tokens


class Inputs(NamedTuple):
    """A batch of rows of N inputs.

    Attributes:
        valid: False at padding.
        values: C numbers an input, standardised; None where all inputs are symbols.
        symbols: index of an embedding; -1 where the numbers are meant. None where all
            inputs are numbers.
    """

    valid: Bool[Array, "B N"]
    values: Float[Array, "B N C"] | None = None
    symbols: Int[Array, "B N"] | None = None


class Encoded(NamedTuple):
    """What the encoder makes of its inputs.

    Attributes:
        states: of visible inputs, or of latents.
        valid: False at padding; None where there is none.
    """

    states: Float[Array, "B K D"]
    valid: Bool[Array, "B K"] | None


class SmaEncoder(nn.Module, kw_only=True):
    """Embeds inputs; one layer looks at them all; a stack goes on with what is visible.

    Attributes:
        length: positions there are, >= N.
        channels: C, numbers an input; 0 where all are symbols.
        symbols: embeddings there are; 0 where all inputs are numbers.
        width: of embedded inputs, E.
        latents: how many learned latents query the inputs; 0: the inputs themselves do.
        latent_width: D; E without latents.
        depth: layers after the first, >= 1.
        heads: of these.
        first_heads: of the first layer.
        qk_width: queries and keys of the later layers, all heads together.
        first_qk_width: likewise, of the first layer.
        v_width: values of the later layers and, as its output is as wide, the first.
        mlp_ratio: hidden width of an MLP over its width.
        dtype: of compute.
        attention_dropout: chance of an attention weight to be dropped.
        dropout: of embedded inputs and of every branch.
        unroll: layers written out per step of the scan.
        remat: as of `Transformer`.
    """

    length: int
    channels: int
    symbols: int
    width: int
    latents: int
    latent_width: int
    depth: int
    heads: int
    first_heads: int
    qk_width: int
    first_qk_width: int
    v_width: int
    mlp_ratio: float = 1.0
    dtype: DTypeLike = "float32"
    attention_dropout: float = 0.0
    dropout: float = 0.0
    unroll: int = 1
    remat: str = "none"

    def setup(self):
        if self.channels:
            self.project = linear(self.width, self.dtype, None)
        if self.symbols:
            shape = (self.symbols, self.width)
            self.embedding = self.param("embedding", normal, shape)
        self.position = self.param("position", normal, (self.length, self.width))
        self.norm = layer_norm(self.dtype, None, OUTER_NORM_EPS)
        if self.latents:
            shape = (self.latents, self.latent_width)
            self.latent = self.param("latent", normal, shape)
        self.first = AttentionLayer(
            self.first_heads,
            self.first_qk_width,
            self.v_width,
            self.mlp_ratio,
            dtype=self.dtype,
            attention_dropout=self.attention_dropout,
            dropout=self.dropout,
        )

    def embed(self, inputs: Inputs) -> Float[Array, "B N E"]:
        """Numbers projected, symbols looked up, with positions, normed."""
        x = None
        if inputs.values is not None:
            x = self.project(inputs.values)
        if inputs.symbols is not None:
            table = self.embedding.astype(self.dtype)
            rows = jax.vmap(lambda row: table[row])(jnp.maximum(inputs.symbols, 0))
            known = inputs.symbols[..., None] >= 0
            x = rows if x is None else jnp.where(known, rows, x)
        assert x is not None
        return self.norm(x + self.position[: x.shape[1]].astype(self.dtype))

    def logits(self, embedded: Float[Array, "B N E"]) -> Float[Array, "B H Q N"]:
        """The first layer's, on the complete input; nothing is blocked."""
        return self.first.logits(self._queries(embedded), embedded)

    @nn.compact
    def __call__(
        self,
        embedded: Float[Array, "B N E"],
        valid: Bool[Array, "B N"],
        mask: Mask | None = None,
        *,
        gather: bool = True,
        noise: Key[Array, " B"] | None = None,
        scales: Float[Array, "L 2 B"] | None = None,
    ) -> Encoded:
        """Encodes what is visible.

        Args:
            embedded: as from `embed`.
            valid: False at padding.
            mask: what is hidden, padding included, as `mask_valid` makes it; None: all
                that is valid is seen.
            gather: after the first layer hidden inputs are removed; otherwise they stay
                and nobody looks at them, which gives the same at a higher price.
            noise: for dropout, one key an example; None: nothing is dropped.
            scales: of the later layers' branches; None: 1.
        """
        seen = valid if mask is None else mask.hidden < 0.5
        embedded = dropped(embedded, folded(noise, 0), self.dropout)
        x = self.first(self._queries(embedded), embedded, seen, folded(noise, 1))
        x_valid: Array | None = seen
        if self.latents:
            x_valid = None
        elif mask is not None and gather:
            x = take_tokens(x, mask.ids_keep, mask)
            x_valid = mask.keep_valid
        return Encoded(self._stack(x, x_valid, noise, scales), x_valid)

    def _queries(self, embedded: Array) -> Array:
        if not self.latents:
            return embedded
        shape = (embedded.shape[0], *self.latent.shape)
        return jnp.broadcast_to(self.latent.astype(self.dtype), shape)

    def _stack(self, x, valid, noise, scales):
        """The later layers; called inside the compact method."""
        unroll = min(self.unroll, self.depth)
        step = _in_scan
        if self.remat != "none":
            step = nn.remat(
                step, policy=REMAT[self.remat], prevent_cse=unroll == self.depth
            )
        keys = None
        if noise is not None:
            keys = jax.vmap(lambda n: folded(noise, n))(2 + jnp.arange(self.depth))
        stack = nn.scan(
            step,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(
                nn.broadcast,
                nn.broadcast if keys is None else 0,
                nn.broadcast if scales is None else 0,
            ),
            length=self.depth,
            unroll=unroll,
        )
        layer = AttentionLayer(
            self.heads,
            self.qk_width,
            self.v_width,
            self.mlp_ratio,
            dtype=self.dtype,
            attention_dropout=self.attention_dropout,
            dropout=self.dropout,
            name="blocks",
        )
        return stack(layer, x, valid, keys, scales)[0]


def _in_scan(layer, x, key_valid, noise, scales):
    """A layer of the stack, as a scan wants it."""
    return layer(x, None, key_valid, noise, scales), None


class SmaDecoder(nn.Module, kw_only=True):
    """Queries look once at what the encoder made, and are projected.

    To reconstruct, a query stands for an input: the position it has in the encoder, or
    a learned one. To answer, there is one learned query.

    Attributes:
        width: of a query.
        heads: of the layer.
        qk_width: of all heads' queries, and of their keys.
        v_width: of all heads' values.
        out_values: numbers predicted of a query.
        queries: learned ones; 0: they are given.
        residual: whether a query is added to what attention makes of it.
        mask_token: whether a learned vector is added to queries of hidden inputs.
        tied: predictions are products with the encoder's embeddings.
        mlp_ratio: hidden width of the MLP over the width.
        dtype: of compute.
        attention_dropout, dropout: as of `AttentionLayer`.
    """

    width: int
    heads: int
    qk_width: int
    v_width: int
    out_values: int
    queries: int = 0
    residual: bool = False
    mask_token: bool = False
    tied: bool = False
    mlp_ratio: float = 1.0
    dtype: DTypeLike = "float32"
    attention_dropout: float = 0.0
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        encoded: Encoded,
        positions: Float[Array, "N D"] | None = None,
        hidden: Float[Array, "B N"] | None = None,
        embedding: Float[Array, "out_values D"] | None = None,
        noise: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B N out_values"]:
        """Predictions of every query, at least float32.

        Args:
            encoded: by the encoder.
            positions: the queries, where there are none of its own.
            hidden: 1 where an input was hidden; read for the mask token.
            embedding: of the encoder, where predictions are tied.
            noise: for dropout, one key an example; None: nothing is dropped.
        """
        keys = layer_norm(self.dtype, "keys_norm", NORM_EPS)(encoded.states)
        if self.queries:
            positions = self.param("query", normal, (self.queries, self.width))
        assert positions is not None
        x = positions.astype(self.dtype)[None]
        x = jnp.broadcast_to(x, (len(keys), *x.shape[1:]))
        if self.mask_token:
            assert hidden is not None
            token = self.param("mask_token", normal, (self.width,))
            x = x + hidden[..., None].astype(self.dtype) * token.astype(self.dtype)
        layer = AttentionLayer(
            self.heads,
            self.qk_width,
            self.v_width,
            self.mlp_ratio,
            self.residual,
            self.dtype,
            self.attention_dropout,
            self.dropout,
            name="layer",
        )
        x = layer(x, keys, encoded.valid, noise)
        x = layer_norm(self.dtype, "norm", OUTER_NORM_EPS)(x)
        if self.tied:
            bias = self.param("bias", nn.initializers.zeros, (self.out_values,))
            assert embedding is not None
            out = x @ embedding.astype(self.dtype).T + bias.astype(self.dtype)
        else:
            out = linear(self.out_values, self.dtype, "pred")(x)
        return at_least_float32(out)
