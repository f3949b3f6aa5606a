"""Self-guided masks: hide what belongs together, as the model itself sees it.

Reference: Shin et al., Self-Guided Masked Autoencoder (NeurIPS 2024). What the text
of this module calls "our reading" is not said in the parts of it that we could read.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from sgmae_jax.masking.keys import check_keys
from sgmae_jax.masking.ncut import STEPS, Cut, normalised_cut
from sgmae_jax.masking.relations import (
    EXACT,
    attention_relations,
    cosine_relations,
    edge_weights,
    unit,
)
from sgmae_jax.masking.select import inverse, select
from sgmae_jax.masking.types import Context, Mask, num_keep

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Bool, Float, Int, Key

Relation = Literal["cosine", "attention"]
Side = Literal["cls_attention", "seed", "size", "border"]
Threshold = Literal["zero", "mean"]
HintMode = Literal["random", "similarity"]

# 9 of the 147 hidden tokens of 14x14 at 75 %, as counted in the paper's figure 1.
HINT_RATIO = 0.0625
# Relations that differ by less say nothing.
_FLAT = 1e-4
# A part of one token is an outlier, not an object.
_SMALLEST = 2


class Guidance(NamedTuple):
    """What the features of an image say about what to hide.

    Attributes:
        relevance: how much a token belongs to the object; the highest are hidden.
            Constant where `degenerate`, which makes the mask a random one.
        object: the side of the cut that is the object; empty where `degenerate`.
        cut: how it was divided, and how well.
        degenerate: there is no object to hide: all tokens are alike, all are unlike,
            one side has fewer than two tokens, or a number is not finite.
    """

    relevance: Float[Array, "B N"]
    object: Bool[Array, "B N"]
    cut: Cut
    degenerate: Bool[Array, " B"]


# One program also where the caller does not jit: a hundred small ones start slowly.
@partial(
    jax.jit, static_argnames=("relation", "side", "threshold", "tau", "steps", "grid")
)
def guide(
    features: Float[Array, "B N D"],
    attention: Float[Array, "B H 1+N 1+N"] | None = None,
    *,
    relation: Relation = "cosine",
    side: Side = "cls_attention",
    threshold: Threshold = "zero",
    tau: float = 0.0,
    steps: int = STEPS,
    grid: tuple[int, int] | None = None,
) -> Guidance:
    """Divides the patches of each image in two, and scores how object-like each is.

    No gradient flows into features or attention. If the tokens of an image change
    places, so does the result (for `relation="cosine"`; with attention up to the
    residual of the solver).

    Args:
        features: of patch tokens, from any layer of any network.
        attention: maps of that layer, class token first; None where neither
            `relation` nor `side` needs it.
        relation: what joins two tokens: the cosine of their features or the attention
            between them.
        side: which part is the object: the one that the class token attends to more
            (a patch), the one with the largest entry of the eigenvector (TokenCut's
            seed), the smaller one, or the one with the smaller share of its tokens at
            the border of the image (objects are rarely cut off, backgrounds are).
        threshold: where the eigenvector is cut, at zero or at its mean.
        tau: relations not above it do not join two tokens; >= 0, since a graph to cut
            has no negative weights.
        steps: of the eigen-solver, see `normalised_cut`.
        grid: tokens (h, w); needed by `side="border"` alone.

    Returns:
        Guidance, float32.

    Raises:
        ValueError: an unknown choice, attention that is needed and not given, a
            negative tau, no grid for "border", or shapes that do not fit.

    Reference: "similarity-score-based masking strategy" (caption of figure VIII). The
        graph, the rule for the side and the mean relation as score are our reading.
    """
    _check_choice("relation", relation, Relation)
    _check_choice("side", side, Side)
    _check_choice("threshold", threshold, Threshold)
    if attention is None and (relation == "attention" or side == "cls_attention"):
        raise ValueError(
            f"relation={relation!r} with side={side!r} needs the attention maps, which "
            "were not given"
        )
    if tau < 0:
        raise ValueError(f"tau must be >= 0, got {tau}")
    _check_shapes(features, attention)
    features = jnp.asarray(jax.lax.stop_gradient(features), jnp.float32)
    finite = jnp.isfinite(features).all((1, 2))
    features = jnp.where(finite[:, None, None], features, 0)
    if attention is not None:
        attention = jnp.asarray(jax.lax.stop_gradient(attention), jnp.float32)
        sound = jnp.isfinite(attention).all((1, 2, 3))
        attention = jnp.where(sound[:, None, None, None], attention, 0)
        finite &= sound
    if relation == "cosine":
        relations = cosine_relations(features)
        # Moves with the tokens, and lies where the leading eigenvectors are.
        start = unit(features) @ _direction(features.shape[-1])
    else:
        assert attention is not None
        relations, start = attention_relations(attention), None
    cut = normalised_cut(edge_weights(relations, tau), steps=steps, start=start)

    level = cut.vector.mean(-1, keepdims=True) if threshold == "mean" else 0.0
    first = cut.vector > level
    if side == "cls_attention":
        assert attention is not None
        looked_at = attention.mean(1)[:, 0, 1:]
        keep = _mean_in(looked_at, first) >= _mean_in(looked_at, ~first)
    elif side == "border":
        border = _border(grid, first.shape[-1])
        keep = _mean_in(border, first) <= _mean_in(border, ~first)
    elif side == "size":
        keep = 2 * first.sum(-1) <= first.shape[-1]
    else:  # the largest entry is positive, see `Cut`
        keep = jnp.ones_like(finite)
    chosen = jnp.where(keep[:, None], first, ~first)

    count = first.sum(-1)
    too_small = jnp.minimum(count, first.shape[-1] - count) < _SMALLEST
    degenerate = ~finite | _flat(relations) | too_small
    chosen &= ~degenerate[:, None]
    relevance = jnp.einsum(
        "bnm,bm->bn", relations, chosen.astype(jnp.float32), precision=EXACT
    ) / jnp.maximum(chosen.sum(-1, keepdims=True), 1)
    return Guidance(relevance, chosen, cut, degenerate)


def informed_mask(
    keys: Key[Array, " B"],
    relevance: Float[Array, "B N"],
    *,
    ratio: float,
    hints: int | Int[Array, ""] = 0,
    hint_mode: HintMode = "random",
) -> Mask:
    """Hides the most relevant tokens; hints then swap some of them for others.

    First the N - K most relevant tokens are hidden; ties are broken at random, so that
    constant relevance gives a random mask. Then `hints` of the hidden ones are
    revealed, and of all that is now visible as many are hidden again at random.

    Args:
        keys: one an example.
        relevance: higher = hidden first; what is not finite counts as 0.
        ratio: share hidden, static; exactly N - K tokens are, hints or not.
        hints: how many are swapped; may be traced, and is clipped to [0, N - K].
        hint_mode: which are revealed: random ones, or the most relevant.

    Returns:
        Mask with `loss_weight` = `hidden` and `gate` = 1.

    Raises:
        ValueError: an unknown mode, or shapes that do not fit.

    Reference: the paper's figure 1 shows a swap at a constant ratio; how the tokens
        are drawn is our reading.
    """
    _check_choice("hint_mode", hint_mode, HintMode)
    check_keys(keys)
    if relevance.ndim != 2 or relevance.shape[0] != keys.shape[0]:
        raise ValueError(
            f"relevance must have axes (B = {keys.shape[0]}, N), got {relevance.shape}"
        )
    tokens = relevance.shape[1]
    kept = num_keep(tokens, ratio)
    ties, reveal, hide = jax.vmap(
        lambda key: jax.random.uniform(key, (3, tokens)), out_axes=1
    )(keys)
    relevance = jax.lax.stop_gradient(relevance)
    relevance = jnp.where(jnp.isfinite(relevance), relevance, 0)
    rank = inverse(jnp.lexsort((ties, relevance)).astype(jnp.int32))
    hidden = rank >= kept
    count = jnp.clip(jnp.asarray(hints, jnp.int32), 0, tokens - kept)
    if hint_mode == "similarity":
        reveal = -rank.astype(jnp.float32)
    queue = jnp.argsort(jnp.where(hidden, reveal, jnp.inf)).astype(jnp.int32)
    pool = ~hidden | (inverse(queue) < count)
    return select(jnp.where(pool, hide, 2.0), kept)


def hint_count(
    num_hidden: int,
    first: float,
    last: float,
    progress: float | Float[Array, ""],
) -> Int[Array, ""]:
    """Hints at a point of the guided part of training; traced, so never recompiled.

    Args:
        num_hidden: N - K.
        first: share of the hidden tokens at its beginning, in [0, 1].
        last: share at its end; in between it is linear.
        progress: in [0, 1]; clipped.

    Returns:
        round(share * num_hidden), int32.
    """
    share = first + (last - first) * jnp.clip(progress, 0.0, 1.0)
    return jnp.round(share * num_hidden).astype(jnp.int32)


def guided_mask(
    keys: Key[Array, " B"],
    context: Context,
    *,
    ratio: float,
    layer: int = -2,
    relation: Relation = "cosine",
    side: Side = "cls_attention",
    threshold: Threshold = "zero",
    tau: float = 0.0,
    steps: int = STEPS,
    hint_ratio: float = HINT_RATIO,
    hint_ratio_end: float | None = None,
    hint_steps: int = 1,
    hint_mode: HintMode = "random",
) -> Mask:
    """The self-guided mask in one call: features in, `Mask` out.

    Args:
        keys: one an example.
        context: offers features, and attention where `relation` or `side` needs it.
        ratio: share hidden, static.
        layer: whose features are read, as `Context` counts; the last but one by
            default.
        relation: see `guide`.
        side: see `guide`.
        threshold: see `guide`.
        tau: see `guide`.
        steps: see `guide`.
        hint_ratio: share of the hidden tokens that is swapped for visible ones.
        hint_ratio_end: share from step `hint_steps` on, reached linearly; None:
            constant.
        hint_steps: length of that schedule, in steps of `context.step`; >= 1.
        hint_mode: see `informed_mask`.

    Raises:
        ValueError: an unknown choice, a number out of range, or a context that lacks
            what is needed or whose parts do not fit each other.
    """
    last = hint_ratio if hint_ratio_end is None else hint_ratio_end
    if not (0 <= hint_ratio <= 1 and 0 <= last <= 1):
        raise ValueError(f"hint ratios must be in [0, 1], got {hint_ratio} and {last}")
    if hint_steps < 1:
        raise ValueError(f"hint_steps must be >= 1, got {hint_steps}")
    tokens = context.num_tokens
    features = context.features(layer)
    if features.ndim == 3 and features.shape[1] != tokens:
        raise ValueError(
            f"a grid of {context.grid[0]}x{context.grid[1]} has {tokens} tokens, the "
            f"features have {features.shape[1]}: give those of patches alone, without "
            "the class token"
        )
    needs_maps = relation == "attention" or side == "cls_attention"
    guidance = guide(
        features,
        context.attention(layer) if needs_maps else None,
        relation=relation,
        side=side,
        threshold=threshold,
        tau=tau,
        steps=steps,
        grid=context.grid,
    )
    hints = hint_count(
        tokens - num_keep(tokens, ratio), hint_ratio, last, context.step / hint_steps
    )
    return informed_mask(
        keys, guidance.relevance, ratio=ratio, hints=hints, hint_mode=hint_mode
    )


def _flat(relations: Array) -> Array:
    """Whether all pairs of different tokens are related alike.

    Their differences are measured by the largest relation of all, a token's to itself
    included: cosines of 1e-8 are rounding, however much one is twice another.
    """
    size = relations.shape[-1]
    other = ~np.eye(size, dtype=bool)
    highest = jnp.max(relations, axis=(1, 2), where=other, initial=-jnp.inf)
    lowest = jnp.min(relations, axis=(1, 2), where=other, initial=jnp.inf)
    return ~(highest - lowest > _FLAT * jnp.abs(relations).max((1, 2)))


def _check_shapes(features: Array, attention: Array | None) -> None:
    if features.ndim != 3:
        raise ValueError(f"features must have axes (B, N, D), got {features.shape}")
    batch, tokens, _ = features.shape
    if attention is None:
        return
    sides = (attention.shape[:1], attention.shape[2:])
    if attention.ndim != 4 or sides != ((batch,), (1 + tokens, 1 + tokens)):
        raise ValueError(
            "attention must have axes (B, H, 1 + N, 1 + N), class token first: beside "
            f"features {features.shape} [{batch}, H, {1 + tokens}, {1 + tokens}], got "
            f"{attention.shape}"
        )


def _border(grid: tuple[int, int] | None, tokens: int) -> Array:
    """1 for the outermost tokens of the grid."""
    if grid is None or grid[0] * grid[1] != tokens:
        raise ValueError(f'side="border" needs the grid of the {tokens} tokens: {grid}')
    border = np.ones(grid, np.float32)
    border[1:-1, 1:-1] = 0
    return jnp.asarray(border.reshape(-1))


def _mean_in(values: Array, part: Array) -> Array:
    return (values * part).sum(-1) / jnp.maximum(part.sum(-1), 1)


def _direction(width: int) -> Array:
    """A fixed direction in feature space."""
    return jnp.asarray(np.random.default_rng(1).standard_normal(width), jnp.float32)


def _check_choice(name: str, value: object, allowed: object) -> None:
    choices = get_args(allowed)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
