"""A mask function is tried out before training: by tracing, then on a small batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from sgmae_jax.masking.keys import example_keys
from sgmae_jax.masking.resolve import MaskError, match_call, name_of
from sgmae_jax.masking.types import Context, Mask, MaskFn, num_keep

if TYPE_CHECKING:
    from jax import Array


def check_mask_fn(
    fn: MaskFn,
    *,
    grid: tuple[int, int],
    ratio: float,
    batch: int = 2,
    options: Mapping[str, Any] | None = None,
    image_shape: tuple[int, int, int] | None = None,
    feature_width: int = 32,
    attention_heads: int = 2,
) -> None:
    """Say what is wrong with a mask function, in one line, before it is trusted.

    The call is matched with the signature, traced without values, and run: a batch,
    two examples together, and the same two alone. Images, features and attention are
    random; the latter two are made only for the layers that are asked for.

    Args:
        fn: the generator, see `MaskFn`.
        grid: (h, w) in tokens.
        ratio: share to hide, as it will be passed.
        batch: examples of the trial, >= 1.
        options: further keyword arguments, as they will be passed.
        image_shape: (H, W, C), or None where the context will carry no images.
        feature_width: D of the features offered.
        attention_heads: H of the attention offered.

    Raises:
        MaskError: what is wrong, and with which function.
        ValueError: batch < 1.
    """
    if batch < 1:
        raise ValueError(f"batch must be >= 1, got {batch}")
    name = name_of(fn)
    options = dict(options or {})
    match_call(fn, options)

    def run(keys: Array) -> Mask:
        context = _trial_context(
            keys, grid, image_shape, feature_width, attention_heads
        )
        return fn(keys, context, ratio=ratio, **options)

    ids = jnp.arange(max(batch, 2))
    keys = example_keys(jax.random.key(0), jnp.zeros_like(ids), ids, "check_mask_fn")
    jitted = jax.jit(run)
    try:
        traced = jitted.eval_shape(keys[:batch])
    except jax.errors.JAXTypeError as error:
        raise MaskError(
            f"{name} cannot be traced (it must not turn arrays into Python values): "
            f"{_first_line(error)}"
        ) from error
    except Exception as error:
        raise MaskError(f"{name} fails: {_first_line(error)}") from error
    _check_types(traced, name, batch, grid[0] * grid[1], ratio)

    def values(keys: Array) -> Mask:
        return jax.tree.map(np.asarray, jitted(keys))

    try:
        whole, pair = values(keys[:batch]), values(keys[:2])
        alone = [values(keys[i : i + 1]) for i in range(2)]
    except Exception as error:
        raise MaskError(f"{name} fails when run: {_first_line(error)}") from error
    _check_values(whole, name)
    joined = jax.tree.map(lambda *rows: np.concatenate(rows), *alone)
    for field, one, two in zip(Mask._fields, joined, pair, strict=True):
        # Gates and weights come out of networks, whose sums may be ordered otherwise.
        slack = 1e-5 if field in ("loss_weight", "gate") else 0.0
        if one is None or two is None:
            continue
        if not np.allclose(one, two, rtol=slack, atol=slack):
            raise MaskError(
                f"{name}: {field} of an example changes with the batch it sits in; "
                "draw from its own key, e.g. with jax.vmap over keys"
            )


def _trial_context(
    keys: Array,
    grid: tuple[int, int],
    image_shape: tuple[int, int, int] | None,
    width: int,
    heads: int,
) -> Context:
    """A context of noise; each example's own, whatever batch it sits in."""
    tokens = grid[0] * grid[1]

    def noise(purpose: int, shape: tuple[int, ...]) -> Array:
        def one(key: Array) -> Array:
            own = jax.random.fold_in(key, purpose % 2**32)  # layers may be negative
            return jax.random.normal(own, shape)

        return jax.vmap(one)(keys)

    def features(layer: int) -> Array:
        return noise(2 * layer, (tokens, width))

    def attention(layer: int) -> Array:
        shape = (heads, 1 + tokens, 1 + tokens)
        return jax.nn.softmax(noise(2 * layer + 1, shape))

    images = None if image_shape is None else noise(0, image_shape)
    return Context(grid=grid, images=images, features=features, attention=attention)


def _check_types(mask: Any, name: str, batch: int, tokens: int, ratio: float) -> None:
    if not isinstance(mask, Mask):
        raise MaskError(f"{name} returns {type(mask).__name__}, not a Mask")
    kept = num_keep(tokens, ratio)
    if mask.keep_valid is not None and np.ndim(mask.keep_valid) == 2:
        kept = mask.keep_valid.shape[1]  # padding: the number of slots is free
    expected = {
        "ids_keep": ((batch, kept), "int32"),
        "ids_restore": ((batch, tokens), "int32"),
        "hidden": ((batch, tokens), "float32"),
        "loss_weight": ((batch, tokens), "float32"),
        "gate": ((batch, tokens), "float32"),
        "keep_valid": ((batch, kept), "bool"),
    }
    for field, (shape, dtype) in expected.items():
        value = getattr(mask, field)
        if value is None and field == "keep_valid":
            continue
        got = (tuple(np.shape(value)), str(getattr(value, "dtype", type(value))))
        if got != (shape, dtype):
            raise MaskError(
                f"{name}: {field} must be {dtype}{list(shape)} (N = {tokens}, "
                f"ratio = {ratio}), got {got[1]}{list(got[0])}"
            )


def _check_values(mask: Any, name: str) -> None:
    """Numbers of a concrete mask: a permutation, its inverse, and what is hidden."""

    def need(holds: Any, message: str) -> None:
        if not np.all(holds):
            raise MaskError(f"{name}: {message}")

    slots, tokens = mask.ids_keep.shape[1], mask.ids_restore.shape[1]
    need(
        np.sort(mask.ids_restore, axis=1) == np.arange(tokens),
        "ids_restore is not a permutation of 0 .. N-1",
    )
    order = np.argsort(mask.ids_restore, axis=1)
    need(
        mask.ids_keep == order[:, :slots],
        "ids_keep and ids_restore disagree: ids_restore[ids_keep[k]] must be k",
    )
    need(np.isin(mask.hidden, (0, 1)), "hidden holds other values than 0 and 1")
    seen = np.arange(tokens) < slots
    if mask.keep_valid is not None:
        seen = np.pad(mask.keep_valid, ((0, 0), (0, tokens - slots)))
    shown = np.take_along_axis(mask.hidden == 0, order, axis=1)
    need(
        shown == seen,
        "hidden must be 0 on the tokens of ids_keep"
        + ("" if mask.keep_valid is None else " (where keep_valid)")
        + f" and 1 on all others; it has {int(mask.hidden[0].sum())} ones of {tokens}",
    )
    need(np.isfinite(mask.loss_weight), "loss_weight is not finite")
    need(np.isfinite(mask.gate), "gate is not finite")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
