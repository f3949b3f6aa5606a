"""What a mask is, and what a generator may look at to make one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from jax import Array

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Key


class Mask(NamedTuple):
    """Which tokens the encoder sees, and how the others count.

    Attributes:
        ids_keep: tokens the encoder sees, in the order it sees them.
        ids_restore: place of token n in the hide order; `take(x, ids_restore)` of
            "kept tokens, then mask tokens" puts every token back where it belongs.
        hidden: 1 where the encoder does not see the token, else 0.
        loss_weight: weight of a token's loss; `select` sets it to `hidden`.
        gate: multiplies token embeddings, the channel for gradients; default 1.
        keep_valid: False marks a padding slot of `ids_keep`. None says that every
            slot is real, which is known while tracing: no attention mask is built.
    """

    ids_keep: Int[Array, "B K"]
    ids_restore: Int[Array, "B N"]
    hidden: Float[Array, "B N"]
    loss_weight: Float[Array, "B N"]
    gate: Float[Array, "B N"]
    keep_valid: Bool[Array, "B K"] | None = None


@dataclass(frozen=True, init=False)
class Context:
    """What a generator may look at: a plain object that never crosses a jit boundary.

    Features and attention are functions, so that what is not asked for is never
    computed. Where an array is given instead, it stands for every layer. Asking for
    one that the caller did not provide raises `ValueError`.

    Attributes:
        grid: (h, w) in tokens.
        images: normalised, or None.
        step: training step, for schedules.
        features: layer -> f32[B,N,D], patch tokens after that encoder layer. Layers
            count from 1, or from the end with negative numbers.
        attention: layer -> f32[B,H,1+N,1+N], class token first.
    """

    grid: tuple[int, int]
    images: Float[Array, "B H W C"] | None
    step: int | Int[Array, ""]
    features: Callable[[int], Array]
    attention: Callable[[int], Array]

    def __init__(
        self,
        grid: tuple[int, int],
        images: Float[Array, "B H W C"] | None = None,
        step: int | Int[Array, ""] = 0,
        features: Callable[[int], Array] | Float[Array, "B N D"] | None = None,
        attention: Callable[[int], Array] | Float[Array, "B H 1+N 1+N"] | None = None,
    ) -> None:
        given = {
            "grid": grid,
            "images": images,
            "step": step,
            "features": _by_layer("features", features),
            "attention": _by_layer("attention", attention),
        }
        for name, value in given.items():
            object.__setattr__(self, name, value)

    @property
    def num_tokens(self) -> int:
        """Tokens of one image, h * w."""
        height, width = self.grid
        return height * width


def _by_layer(
    name: str, given: Callable[[int], Array] | Array | None
) -> Callable[[int], Array]:
    if given is None:
        return partial(_absent, name)
    return given if callable(given) else partial(_any_layer, given)


def _absent(name: str, layer: int) -> Array:
    raise ValueError(
        f"the mask asks for {name} of layer {layer}, but this Context carries none: "
        f"pass Context(..., {name}=array, or a function of the layer)"
    )


def _any_layer(given: Array, layer: int) -> Array:
    del layer
    return given


class MaskFn(Protocol):
    """A generator: row i of its mask follows from keys[i] and image i alone."""

    def __call__(
        self, keys: Key[Array, " B"], context: Context, *, ratio: float, **options: Any
    ) -> Mask: ...


def num_keep(num_tokens: int, ratio: float) -> int:
    """Number of tokens the encoder sees, int(N * (1 - ratio)).

    Rounds down like the authors' code, floating point included: ten tokens at 0.9
    keep none, because 10 * (1 - 0.9) is just below one.

    Args:
        num_tokens: tokens of one image, >= 1.
        ratio: share to hide, in [0, 1]; a Python number, since shapes follow from it.

    Returns:
        K, in [0, num_tokens].

    Raises:
        ValueError: a value out of range.

    Reference: `random_masking` in facebookresearch/mae.
    """
    if num_tokens < 1:
        raise ValueError(f"num_tokens must be >= 1, got {num_tokens}")
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio must be in [0, 1], got {ratio}")
    return int(num_tokens * (1 - ratio))
