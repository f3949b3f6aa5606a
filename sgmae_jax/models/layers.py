"""Attention, MLP, the pre-norm block, and the transformer stacked from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Key, PyTree

from sgmae_jax.models.attention import by_query, library_attention
from sgmae_jax.models.gathering import held_whole
from sgmae_jax.models.positions import sincos_table

AttentionKind = Literal["matmul", "xla", "cudnn"]
PositionKind = Literal["sincos", "learned"]
# What a block keeps for the backward pass; the rest is computed again.
REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
    "full": jax.checkpoint_policies.nothing_saveable,
}
CAPTURE = ("features", "attention")

Captured = dict[str, Array]


class LayerOutput(NamedTuple):
    """What one layer shows.

    Attributes:
        features: the residual stream after it, class token first, compute dtype.
        attention: its maps, at least float32.
    """

    features: Float[Array, "B T D"]
    attention: Float[Array, "B H T T"]


class Linear(nn.Dense):
    """Dense over the last axis, xavier-uniform, computed on a matrix of rows."""

    kernel_init: nn.initializers.Initializer = nn.initializers.xavier_uniform()

    def __call__(self, inputs: Float[Array, "*rows I"]) -> Float[Array, "*rows O"]:
        # XLA's CPU backend is about twice as fast on a flat matrix of rows.
        rows = super().__call__(inputs.reshape(-1, inputs.shape[-1]))
        return rows.reshape(*inputs.shape[:-1], self.features)


def layer_norm(dtype: DTypeLike, name: str | None, eps: float = 1e-6) -> nn.LayerNorm:
    """LayerNorm with statistics of at least float32."""
    return nn.LayerNorm(eps, dtype=dtype, use_fast_variance=False, name=name)


def drop_path_scales(
    keys: Key[Array, " B"], *, depth: int, rate: float
) -> Float[Array, "L 2 B"]:
    """What the two branches of each block are multiplied by, example by example.

    A branch is dropped (0) or kept and scaled up by the inverse of its chance; the
    chance to be dropped rises linearly from 0 in the first block to `rate` in the last.

    Args:
        keys: one an example, so that what is dropped does not know its batch.
        depth: number of blocks.
        rate: in [0, 1).

    Reference: Huang et al., Deep Networks with Stochastic Depth (2016); timm DropPath.
    """
    chances = 1 - jnp.linspace(0.0, rate, depth)[:, None]

    def one(key: Array) -> Array:
        return jax.random.bernoulli(key, chances, (depth, 2)) / chances

    return jnp.moveaxis(jax.vmap(one)(keys), 0, -1)


def at_least_float32(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """float32, or float64 where that is what came in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The exact GELU, x times the chance that a normal number is below x.

    By erf: `jax.nn.gelu` takes erfc, which XLA expands into two branches on every
    number; the results differ by no more than rounding of numbers near x.
    """
    return 0.5 * x * (1 + jax.lax.erf(x * 2**-0.5))


def matmul_attention(
    qkv: Float[Array, "B T 3 H d"],
    key_valid: Bool[Array, "B T"] | Bool[Array, "1 1 T T"] | Float[Array, "B T"] | None,
) -> tuple[Float[Array, "B T H d"], Float[Array, "B H T T"]]:
    """Softmax attention by batched matrix products; differentiable in both modes.

    Args:
        qkv: queries, keys and values.
        key_valid: False = nobody attends to this token, or with four axes, this query
            (third axis) does not attend to this key; None = everybody may. Numbers
            are added to the scores of their tokens.

    Returns:
        The mixed values and the attention maps, the latter at least float32.
    """
    query, key, value = (qkv[:, :, part].swapaxes(1, 2) for part in range(3))
    query = query * query.shape[-1] ** -0.5  # [B, H, T, d], like the others
    scores = at_least_float32(jnp.matmul(query, key.mT))
    if key_valid is not None:
        own = by_query(key_valid)
        if own.dtype == bool:
            scores = jnp.where(own, scores, jnp.finfo(scores.dtype).min)
        else:
            scores = scores + own.astype(scores.dtype)
    # The largest score moves no result, only what exp can hold. Dividing after the
    # values are mixed leaves both passes a division, and the backward one a sum, of d
    # numbers a query instead of T.
    largest = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
    weights = jnp.exp(scores - largest)
    total = weights.sum(-1, keepdims=True)
    mixed = jnp.matmul(weights.astype(value.dtype), value) / total.astype(value.dtype)
    return mixed.swapaxes(1, 2), weights / total


class Attention(nn.Module):
    """Multi-head self-attention with one fused qkv projection."""

    heads: int
    dtype: DTypeLike
    kind: AttentionKind
    with_maps: bool

    @nn.compact
    def __call__(self, x, key_valid):
        batch, tokens, width = x.shape
        qkv = Linear(3 * width, dtype=self.dtype, name="qkv")(x)
        qkv = qkv.reshape(batch, tokens, 3, self.heads, width // self.heads)
        # The library's kernels never hold the maps, so asking for them costs the
        # plain form.
        if self.kind == "matmul" or self.with_maps:
            mixed, maps = matmul_attention(qkv, key_valid)
        else:
            mixed, maps = library_attention(qkv, key_valid, self.kind), None
        mixed = mixed.reshape(batch, tokens, width)
        return Linear(width, dtype=self.dtype, name="proj")(mixed), maps


class Mlp(nn.Module):
    """Two dense layers around the exact (erf) GELU."""

    hidden: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        hidden = Linear(self.hidden, dtype=self.dtype, name="fc1")(x)
        return Linear(x.shape[-1], dtype=self.dtype, name="fc2")(gelu(hidden))


class Block(nn.Module):
    """x += Attention(Norm x); x += Mlp(Norm x). Carries x, returns what is captured."""

    heads: int
    hidden: int
    dtype: DTypeLike
    attention: AttentionKind
    capture: tuple[str, ...]
    norm_eps: float = 1e-6

    @nn.compact
    def __call__(self, x, key_valid, scales=None):
        def scaled(branch, index):
            if scales is None:
                return branch
            return branch * scales[index][:, None, None].astype(branch.dtype)

        attention = Attention(
            self.heads,
            self.dtype,
            self.attention,
            "attention" in self.capture,
            name="attn",
        )
        normed = layer_norm(self.dtype, "norm1", self.norm_eps)(x)
        mixed, maps = attention(normed, key_valid)
        x = x + scaled(mixed, 0)
        mlp = Mlp(self.hidden, self.dtype, name="mlp")
        x = x + scaled(mlp(layer_norm(self.dtype, "norm2", self.norm_eps)(x)), 1)
        captured = {"features": x, "attention": maps}
        return x, {name: captured[name] for name in self.capture}


class Transformer(nn.Module, kw_only=True):
    """What encoder and decoder share: positions, a stack of blocks, the last norm.

    Attributes:
        grid: tokens (h, w).
        width: D, a multiple of `heads` (and of 4, for the position table).
        depth: number of blocks, L >= 1, of a decoder >= 0.
        heads: attention heads, H.
        mlp_ratio: hidden width of the MLP over D.
        positions: "sincos" (fixed) or "learned" (a parameter that starts there).
        dtype: of compute; parameters are float32, and so are the statistics of
            norms and softmax.
        attention: "matmul" (ours; also for forward-mode derivatives), "xla" or
            "cudnn" (`jax.nn.dot_product_attention`; cudnn needs bfloat16 or float16
            and an NVIDIA GPU). Where attention maps are captured, all compute them
            by "matmul".
        unroll: layers written out per step of the scan; `depth` or more leaves no
            loop. Never changes the parameters.
        remat: what the backward pass recomputes: "none", "dots" (all but the dense
            layers' products) or "full" (whole blocks).
        norm_eps: of every norm.
    """

    grid: tuple[int, int]
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    positions: PositionKind = "sincos"
    dtype: DTypeLike = "float32"
    attention: AttentionKind = "matmul"
    unroll: int = 1
    remat: str = "none"
    norm_eps: float = 1e-6
    LEAST_DEPTH: ClassVar[int] = 1

    def __post_init__(self):
        for field, allowed in (
            ("positions", get_args(PositionKind)),
            ("attention", get_args(AttentionKind)),
            ("remat", tuple(REMAT)),
        ):
            value = getattr(self, field)
            if value not in allowed:
                raise ValueError(f"{field} {value!r}: must be one of {allowed}")
        least = {"width": 1, "depth": self.LEAST_DEPTH, "heads": 1, "unroll": 1}
        for field, low in least.items():
            if getattr(self, field) < low:
                raise ValueError(
                    f"{field} {getattr(self, field)}: must be at least {low}"
                )
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of {self.heads} heads")
        if self.attention == "cudnn":
            if jnp.dtype(self.dtype).itemsize > 2:
                raise ValueError(
                    f"attention 'cudnn' computes in bfloat16 or float16, not in "
                    f"{jnp.dtype(self.dtype).name}; choose 'matmul' or 'xla'"
                )
            if self.width // self.heads % 8:
                raise ValueError(
                    f"attention 'cudnn' needs heads of a multiple of 8 values, "
                    f"{self.width} / {self.heads} gives {self.width // self.heads}"
                )
        super().__post_init__()

    @property
    def tokens(self) -> int:
        """N, tokens of the whole grid."""
        return self.grid[0] * self.grid[1]

    def position_rows(self) -> Float[Array, "1+N D"]:
        """The position table, CLS first, in the compute dtype; called in `setup`."""
        table = sincos_table(self.grid, self.width)
        if self.positions == "learned":
            learned = self.param("pos_embed", lambda _: jnp.asarray(table, jnp.float32))
            return learned.astype(self.dtype)
        return jnp.asarray(table, self.dtype)

    def run_blocks(
        self,
        x: Float[Array, "B T D"],
        key_valid: Bool[Array, "B T"] | Bool[Array, "1 1 T T"] | None,
        capture: Sequence[str],
        scales: Float[Array, "L 2 B"] | None = None,
        normed: bool = True,
    ) -> tuple[Float[Array, "B T D"], Captured]:
        """All blocks and the last norm; called inside a compact method.

        Args:
            x: what the first block takes.
            key_valid: see `matmul_attention`.
            capture: any of "features", "attention".
            scales: as `drop_path_scales` makes them; None drops nothing.
            normed: False leaves the last norm out.

        Returns:
            The tokens, and what `capture` names: "features" [L, B, T, D] (the
            residual stream after each block), "attention" [L, B, H, T, T].

        Raises:
            ValueError: `capture` names something else.
        """
        unknown = set(capture) - set(CAPTURE)
        if unknown:
            raise ValueError(f"capture {sorted(unknown)}: can capture {CAPTURE}")
        if not self.depth:
            if normed:
                x = layer_norm(self.dtype, "norm", self.norm_eps)(x)
            return x, self._nothing_captured(x, capture)
        unroll = min(self.unroll, self.depth)
        block = nn.map_variables(Block, "params", trans_in_fn=held_whole, init=True)
        if self.remat != "none":
            # Inside a loop XLA cannot merge the recomputation with the first pass;
            # written out it could, so then it must be told not to.
            block = nn.remat(
                block, policy=REMAT[self.remat], prevent_cse=unroll == self.depth
            )
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast if scales is None else 0),
            length=self.depth,
            unroll=unroll,
        )(
            self.heads,
            int(self.width * self.mlp_ratio),
            self.dtype,
            self.attention,
            tuple(capture),
            self.norm_eps,
            name="blocks",
        )
        x, captured = stack(x, key_valid, scales)
        if normed:
            x = layer_norm(self.dtype, "norm", self.norm_eps)(x)
        return x, captured

    def _nothing_captured(self, x: Array, capture: Sequence[str]) -> Captured:
        """What `run_blocks` captures of no blocks."""
        batch, tokens = x.shape[:2]
        empty = {
            "features": jnp.zeros((0, *x.shape), x.dtype),
            "attention": jnp.zeros((0, batch, self.heads, tokens, tokens)),
        }
        return {name: empty[name] for name in capture}

    def run_to_layer(
        self,
        blocks: PyTree,
        x: Float[Array, "B T D"],
        layer: int,
        key_valid: Bool[Array, "1 1 T T"] | None = None,
    ) -> LayerOutput:
        """The blocks up to one of them, whose features and attention are returned.

        The layers above cost nothing, and of those below nothing is kept: made for
        reading one layer of a frozen network. Needs no binding to parameters.

        Args:
            blocks: parameters of all blocks, stacked, as under "blocks".
            x: what the first block takes.
            layer: counts from 1, or from the end with negative numbers.
            key_valid: see `matmul_attention`.

        Raises:
            ValueError: there is no such layer.
        """
        last = layer_index(layer, self.depth)
        hidden = int(self.width * self.mlp_ratio)

        def block(*capture: str) -> Block:
            # Detached from this module: applied to parameters it is handed.
            return Block(
                self.heads,
                hidden,
                self.dtype,
                self.attention,
                capture,
                self.norm_eps,
                parent=None,
            )

        def step(x, params):
            return block().apply({"params": params}, x, key_valid)

        below = jax.tree.map(lambda leaf: leaf[:last], blocks)
        x, _ = jax.lax.scan(step, x, below, unroll=max(1, min(self.unroll, last)))
        own = jax.tree.map(lambda leaf: leaf[last], blocks)
        _, captured = block(*CAPTURE).apply({"params": own}, x, key_valid)
        return LayerOutput(**captured)


def layer_index(layer: int, depth: int) -> int:
    """Index from 0 of a layer that counts from 1, or from the end when negative.

    Raises:
        ValueError: there is no such layer.
    """
    if layer == 0 or not -depth <= layer <= depth:
        raise ValueError(
            f"layers count from 1 to {depth} (or from the end, -1 to -{depth}), "
            f"got {layer}"
        )
    return layer - 1 if layer > 0 else depth + layer
