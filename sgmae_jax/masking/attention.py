"""Masks from attention: hide what a few of the queries look at most.

Reference: Xie et al., Self-Guided Masked Autoencoders for Domain-Agnostic
Self-Supervised Learning (2024); Johnathan-Xie/sma transforms_sma.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
import numpy as np

from sgmae_jax.masking.keys import check_keys
from sgmae_jax.masking.select import inverse, select
from sgmae_jax.masking.types import Context, Mask, num_keep

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Bool, Float, Int, Key

HEADS = ("mean", "random_mix")
Heads = Literal["mean", "random_mix"]


def rounded_share(
    count: Int[Array, " B"], share: float | Array, parts: float = 1.0
) -> Int[Array, " B"]:
    """round(count * share / parts), half to even, of float32 products as the authors'.

    0.15 of 30 is 4: the product is 4.5 in float32, and above it in float64.

    Args:
        count: >= 0.
        share: of it, >= 0.
        parts: what the share is divided by, > 0.
    """
    product = count.astype(jnp.float32) * jnp.float32(share)
    return jnp.round(product / jnp.float32(parts)).astype(jnp.int32)


def draw(
    keys: Key[Array, " B"], among: Bool[Array, "B N"], count: Int[Array, " B"]
) -> Bool[Array, "B N"]:
    """Draws `count` of the places that are True, without replacement, or all of them.

    What is drawn does not change when places that are False are added at the end.
    """
    tokens = among.shape[1]
    noise = jax.vmap(lambda key: jax.random.uniform(key, (tokens,)))(keys)
    return among & (_rank(jnp.where(among, noise, jnp.inf)) < count[:, None])


def attention_scores(
    attention: Float[Array, "B H Q N"],
    chosen: Bool[Array, "B Q"],
    *,
    head: Int[Array, "B Q"] | None = None,
    mask_self: bool = False,
) -> Float[Array, "B N"]:
    """How much the chosen queries look at each input; no gradient flows into it.

    Args:
        attention: rows sum to 1; 0 at padding.
        chosen: the queries that count.
        head: which head's row stands for a query; None: the mean of all heads.
        mask_self: queries are inputs as well (Q = N), and the chosen ones get H, more
            than attention can give them where fewer than H queries are chosen.

    Returns:
        Float32, >= 0; larger = hidden rather.

    Reference: Xie et al. (2024), section 3; transforms_sma.py.
    """
    attention = jax.lax.stop_gradient(attention).astype(jnp.float32)
    heads = attention.shape[1]
    if head is None:
        rows = attention.mean(1)
    else:
        # A sum over heads, as JAX refuses to gather along a divided batch.
        which = jax.nn.one_hot(head, heads, dtype=jnp.float32, axis=1)
        rows = (attention * which[..., None]).sum(1)
    scores = (chosen[..., None] * rows).sum(1)
    return jnp.where(chosen, jnp.float32(heads), scores) if mask_self else scores


def guided_by_attention(
    keys: Key[Array, " B"],
    attention: Float[Array, "B H Q N"],
    valid: Bool[Array, "B N"],
    *,
    ratio: float,
    per_query: float,
    heads: Heads = "mean",
    self_attention: bool = True,
    mask_self: bool = False,
    length: int | None = None,
) -> Float[Array, "B N"]:
    """SMA's scores: draw queries, and heads where they are mixed, and add up.

    Args:
        keys: one an example; what is drawn follows from them.
        attention: of the first layer on the complete input; 0 at padding.
        valid: False at padding.
        ratio: share of the inputs to be hidden.
        per_query: inputs that one query stands for, c.
        heads: "mean", or "random_mix": one head drawn for each query.
        self_attention: queries are inputs, and drawn among the valid ones: of n, round
            (n ratio / c). Otherwise queries are latents, and round(length ratio / c)
            are drawn whatever an example's own length.
        mask_self: hide the chosen queries themselves; with self-attention only.
        length: of an input without padding; None: N.

    Returns:
        See `attention_scores`.

    Raises:
        ValueError: a value out of range, or shapes that do not belong together.
    """
    check_keys(keys)
    if heads not in HEADS:
        raise ValueError(f"heads must be one of {HEADS}, got {heads!r}")
    if not 0 <= ratio <= 1 or per_query <= 0:
        raise ValueError(
            f"ratio must be in [0, 1] and per_query > 0, got {ratio} and {per_query}"
        )
    batch, number, queries, tokens = attention.shape
    if valid.shape != (batch, tokens) or (self_attention and queries != tokens):
        raise ValueError(
            f"attention {attention.shape} and valid {valid.shape} do not belong "
            "together" + (": queries must be the inputs" if self_attention else "")
        )
    if mask_self and not self_attention:
        raise ValueError("mask_self needs queries that are inputs (self_attention)")
    if self_attention:
        candidates = valid
        count = rounded_share(valid.sum(-1), ratio, per_query)
    else:
        candidates = jnp.ones((batch, queries), bool)
        count = jnp.full((batch,), round((length or tokens) * ratio / per_query))
    # Deviation: at least one query; with none the authors' scores are all equal.
    count = jnp.maximum(count, 1)
    chosen = draw(_fold(keys, 0), candidates, count)
    head = None
    if heads == "random_mix":
        head = jax.vmap(lambda key: jax.random.randint(key, (queries,), 0, number))(
            _fold(keys, 1)
        )
    return attention_scores(attention, chosen, head=head, mask_self=mask_self)


def mask_valid(
    keys: Key[Array, " B"],
    scores: Float[Array, "B N"],
    valid: Bool[Array, "B N"],
    *,
    ratio: float,
    random: float | Float[Array, ""] = 0.0,
) -> Mask:
    """Hides a share of each example's valid inputs: by score, and some at random.

    Of n valid inputs round(ratio n) are hidden, whatever `random` is.

    Args:
        keys: one an example; used where some are drawn at random.
        scores: larger = hidden rather; of equal ones the lower index.
        valid: False at padding, which the encoder never sees and no loss counts.
        ratio: share to hide, in [0, 1]; static.
        random: share of these that is drawn at random instead, in [0, 1]; traced.

    Returns:
        Mask whose `hidden` is 1 for what is hidden and for padding, whose `loss_weight`
        is 1 for what is hidden alone, and whose `ids_keep` are in the order of inputs,
        with `keep_valid`.

    Reference: transforms_sma.py (`varying_length`).
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio must be in [0, 1], got {ratio}")
    length = valid.sum(-1)
    hide = rounded_share(length, ratio)
    # Deviation: the authors round both parts by themselves, and may hide one more or
    # less than the ratio says; the part drawn at random is what is left here.
    by_score = jnp.minimum(rounded_share(length, ratio * (1 - random)), hide)
    scores = jnp.where(valid, jax.lax.stop_gradient(scores), -jnp.inf)
    guided = valid & (_rank(-scores) < by_score[:, None])
    drawn = draw(_fold(keys, 2), valid & ~guided, hide - by_score)
    masked = (guided | drawn).astype(jnp.float32)
    # Padding comes last; equal numbers keep the order of inputs.
    order = jnp.where(valid, masked, 2.0)
    tokens = valid.shape[1]
    slots = tokens - round_half_even(tokens, ratio)
    mask = select(order, slots, count=length - hide)
    return mask._replace(loss_weight=masked)


def round_half_even(count: int, share: float) -> int:
    """`rounded_share` of Python numbers, for shapes."""
    return int(np.round(np.float32(count) * np.float32(share)))


def random_share(
    step: Int[Array, ""] | int, steps: int, start: float
) -> Float[Array, ""]:
    """The share drawn at random, from `start` down to 0 along half a cosine.

    Args:
        step: of training.
        steps: T, from which on nothing is random; 0: nothing ever is.
        start: share at step 0, in [0, 1].

    Reference: modeling_sma.py, the callback of the masking noise.
    """
    if not steps:
        return jnp.float32(0)
    place = jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0, 1)
    return start * 0.5 * (1 + jnp.cos(jnp.pi * place))


def attention_mask(
    keys: Key[Array, " B"],
    context: Context,
    *,
    ratio: float,
    layer: int = 1,
    per_query: float = 3.0,
    heads: Heads = "mean",
    mask_self: bool = False,
    random: float = 0.0,
    random_steps: int = 0,
) -> Mask:
    """SMA's mask for images: hides the patches that a layer's attention is on.

    The class token is no input that could be hidden: it is never drawn as a query, and
    attention to it is left out, as if a row's softmax were over patches alone.

    Args:
        keys: one an example.
        context: its attention and step are read.
        ratio: share of the patches to hide; N - num_keep(N, ratio) are, as by every
            mask of images.
        layer: whose attention, counted from 1, or from the end.
        per_query: patches that one drawn query stands for.
        heads: "mean" or "random_mix", see `guided_by_attention`.
        mask_self: hide the drawn patches too.
        random: share of the hidden patches that is drawn at random at step 0.
        random_steps: steps over which that share falls to 0.

    Raises:
        TypeError: keys of the wrong kind.
        ValueError: a value out of range, or a context without attention.
    """
    if not 0 <= random <= 1 or random_steps < 0:
        raise ValueError(
            "random must be in [0, 1] and random_steps >= 0, got "
            f"{random} and {random_steps}"
        )
    tokens = context.num_tokens
    hide = tokens - num_keep(tokens, ratio)
    check_keys(keys)
    patches = context.attention(layer)[:, :, 1:, 1:].astype(jnp.float32)
    patches = patches / jnp.maximum(patches.sum(-1, keepdims=True), 1e-30)
    valid = jnp.ones((keys.shape[0], tokens), bool)
    scores = guided_by_attention(
        keys,
        patches,
        valid,
        ratio=ratio,
        per_query=per_query,
        heads=heads,
        mask_self=mask_self,
    )
    share = random_share(context.step, random_steps, random)
    by_score = jnp.round(hide * (1 - share)).astype(jnp.int32)
    guided = _rank(-scores) < by_score
    noise = jax.vmap(lambda key: jax.random.uniform(key, (tokens,)))(_fold(keys, 2))
    return select(jnp.where(guided, 2.0, noise), tokens - hide)


def _rank(values: Float[Array, "B N"]) -> Int[Array, "B N"]:
    """Place of each value from the smallest, 0, up; of equals the lower index first."""
    order = jnp.argsort(values, axis=-1, stable=True).astype(jnp.int32)
    return inverse(order)


def _fold(keys: Key[Array, " B"], purpose: int) -> Key[Array, " B"]:
    return jax.vmap(lambda key: jax.random.fold_in(key, purpose))(keys)
