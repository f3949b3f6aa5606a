"""Weights of others, in our layout: what they say of their network, leaf by leaf."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sgmae_jax.rules import per_channel
from sgmae_jax.schema import FIELDS
from sgmae_jax.weights.errors import WeightsError, some
from sgmae_jax.weights.fit import fit_statistics
from sgmae_jax.weights.formats import TIMM_EPS
from sgmae_jax.weights.names import (
    Arrays,
    Leaf,
    Naming,
    Part,
    Sizes,
    depth_of,
    leaves,
    one_spelling,
    to_ours,
)
from sgmae_jax.weights.said import HUGGINGFACE_EPS, Said

# What sits on top of an encoder: no part of a masked autoencoder.
_ON_TOP = re.compile(
    r"(head|head_dist|fc|fc_norm|pre_logits|classifier|pooler|vit\.pooler)\."
)
# Width -> heads, of the sizes that everybody uses.
_USUAL_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
_USUAL_DECODER_HEADS = {512: 16}
_EPS: dict[Naming, float] = {"timm": TIMM_EPS, "huggingface": HUGGINGFACE_EPS}
# Of a network without decoder: ours always has one, this is the smallest.
_NO_DECODER = {"decoder_width": 4, "decoder_depth": 1, "decoder_heads": 1}


class Translated(NamedTuple):
    """A foreign network in our terms.

    Attributes:
        fields: of the config; positions are written out and not among them.
        parts: "encoder" and, where it has one, "decoder".
        naming: whose names they had.
        left_out: names of the leaves that are not ours to take.
    """

    fields: dict[str, Any]
    parts: dict[Part, dict[str, Any]]
    naming: Naming
    left_out: tuple[str, ...]


def translate(
    arrays: Mapping[str, np.ndarray],
    said: Said,
    *,
    heads: int | None = None,
    decoder_heads: int | None = None,
) -> Translated:
    """Foreign tensors as our trees; every leaf has a place or is named.

    Args:
        arrays: by their names.
        said: what else is known.
        heads: of the encoder, where neither `said` nor the usual width tells.
        decoder_heads: likewise.

    Raises:
        WeightsError: a leaf is absent, unknown, or of another shape or type.
    """
    naming, arrays = one_spelling(arrays)
    left_out = tuple(name for name in arrays if _ON_TOP.match(name))
    arrays = {name: array for name, array in arrays.items() if name not in left_out}
    sizes = {"encoder": _encoder_sizes(naming, arrays)}
    letters = sizes["encoder"].letters
    patch, channels = (letters["R"], letters["S"]), letters["C"]
    if depth_of(naming, "decoder", arrays):
        sizes["decoder"] = _decoder_sizes(naming, arrays, letters)
    wanted = {
        part: list(leaves(naming, part, of_part)) for part, of_part in sizes.items()
    }
    arrays |= _absent_biases(arrays, wanted)
    _compare(arrays, [leaf for part in wanted.values() for leaf in part])
    grid = _grid(letters["T"] - 1, patch, said.image_size)
    statistics = _statistics(said, channels)
    fields: dict[str, Any] = {
        "model.preset": "",
        "model.patch_size": single(patch),
        "model.width": letters["D"],
        "model.depth": sizes["encoder"].depth,
        "model.heads": _heads("heads", letters["D"], said.heads, heads, _USUAL_HEADS),
        "model.mlp_ratio": _ratio(letters["M"], letters["D"]),
        "model.norm_eps": _EPS[naming] if said.norm_eps is None else said.norm_eps,
        "data.image_size": single((grid[0] * patch[0], grid[1] * patch[1])),
        "data.channels": channels,
        "data.mean": statistics[0],
        "data.std": statistics[1],
    }
    fields |= {f"model.{name}": value for name, value in _NO_DECODER.items()}
    if "decoder" in sizes:
        depth, own = sizes["decoder"]
        if own["M"] != int(own["D"] * fields["model.mlp_ratio"]):
            raise WeightsError(
                f"{_first(naming, 'decoder')['blocks.mlp.fc1.bias']} has {own['M']} "
                f"values: the MLP must be {fields['model.mlp_ratio']:g} times as wide "
                f"as the decoder ({own['D']}), as it is in the encoder"
            )
        fields |= {
            "model.decoder_width": own["D"],
            "model.decoder_depth": depth,
            "model.decoder_heads": _heads(
                "decoder_heads",
                own["D"],
                said.decoder_heads,
                decoder_heads,
                _USUAL_DECODER_HEADS,
            ),
        }
        if said.norm_pix is not None:
            fields["method.norm_pix"] = said.norm_pix
    parts = {part: to_ours(arrays, part_leaves) for part, part_leaves in wanted.items()}
    return Translated(fields, parts, naming, left_out)


def agreed(name: str, said: int | None, wished: int | None) -> int | None:
    """A number that the weights or the user says, or None.

    Args:
        name: of the field below `weights`.
        said: by the weights.
        wished: by the user.

    Raises:
        WeightsError: they contradict each other.
    """
    if said is not None and wished is not None and said != wished:
        raise WeightsError(f"it says {name} = {said}, config.weights.{name} = {wished}")
    return wished if said is None else said


def _encoder_sizes(naming: Naming, arrays: Arrays) -> Sizes:
    names = _first(naming, "encoder")
    kernel = _leaf(arrays, names["patch_embed.kernel"], 4)
    width, channels, rows, columns = kernel
    hidden = _leaf(arrays, names["blocks.mlp.fc1.bias"], 1)[0]
    tokens = _leaf(arrays, names["pos_embed"], 3)[1]
    allowed = FIELDS["data.channels"].rule(channels)
    if allowed:
        raise WeightsError(
            f"{names['patch_embed.kernel']} is {kernel}: its channels must be {allowed}"
        )
    letters = dict(D=width, C=channels, R=rows, S=columns, M=hidden, T=tokens)
    return Sizes(depth_of(naming, "encoder", arrays), letters)


def _decoder_sizes(naming: Naming, arrays: Arrays, encoder: Mapping[str, int]) -> Sizes:
    names = _first(naming, "decoder")
    width = _leaf(arrays, names["embed.bias"], 1)[0]
    hidden = _leaf(arrays, names["blocks.mlp.fc1.bias"], 1)[0]
    values = encoder["R"] * encoder["S"] * encoder["C"]
    own = dict(D=width, E=encoder["D"], M=hidden, P=values, T=encoder["T"])
    return Sizes(depth_of(naming, "decoder", arrays), own)


def _first(naming: Naming, part: Part) -> dict[str, str]:
    """Their name for each of our leaves, of the first layer."""
    any_size = Sizes(1, defaultdict(int))
    return {leaf.path: leaf.names[0] for leaf in leaves(naming, part, any_size)}


def _leaf(arrays: Arrays, name: str, axes: int) -> tuple[int, ...]:
    """The shape of a leaf that says how large the others are."""
    if name not in arrays:
        raise WeightsError(f"{name} is absent")
    shape = arrays[name].shape
    if len(shape) != axes or 0 in shape:
        raise WeightsError(f"{name} is {shape}: must have {axes} axes, none empty")
    return shape


def _absent_biases(arrays: Arrays, wanted: Mapping[Part, list[Leaf]]) -> Arrays:
    """Zeros for the biases of queries, keys and values where a part has none."""
    zeros: Arrays = {}
    for part in wanted.values():
        biases = [leaf for leaf in part if leaf.path.endswith("qkv.bias")]
        names = [(name, leaf) for leaf in biases for name in leaf.names]
        if not any(name in arrays for name, _ in names):
            for name, leaf in names:
                zeros[name] = np.zeros(leaf.shape[0] // len(leaf.names), np.float32)
    return zeros


def _compare(arrays: Arrays, wanted: list[Leaf]) -> None:
    shapes = {
        name: (leaf.shape[0] // len(leaf.names), *leaf.shape[1:])
        for leaf in wanted
        for name in leaf.names
    }
    wrong = [
        f"{name} is {arrays[name].shape} and must be {shape}"
        for name, shape in shapes.items()
        if name in arrays and arrays[name].shape != shape
    ]
    types = [
        f"{name} is {arrays[name].dtype} and must be float32, float16 or bfloat16"
        for name in shapes
        if name in arrays and arrays[name].dtype != np.float32
    ]
    complaints = [
        f"{some(names)} {word}"
        for names, word in (
            ([name for name in shapes if name not in arrays], "absent"),
            ([name for name in arrays if name not in shapes], "unexpected"),
        )
        if names
    ]
    complaints += [some(lines) for lines in (wrong, types) if lines]
    if complaints:
        raise WeightsError("; ".join(complaints))


def _heads(
    name: str,
    width: int,
    said: int | None,
    wished: int | None,
    usual: Mapping[int, int],
) -> int:
    heads = agreed(name, said, wished) or usual.get(width)
    if heads is None:
        raise WeightsError(
            f"does not say how many heads share its width of {width}: "
            f"config.weights.{name} must"
        )
    if type(heads) is not int or heads < 1 or width % heads or width % 4:
        raise WeightsError(
            f"width {width} must be a multiple of 4 and of {name}, {heads}"
        )
    return heads


def _ratio(hidden: int, width: int) -> float:
    """hidden / width, such that `int(width * ratio)` is `hidden` again."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _grid(
    tokens: int, patch: tuple[int, int], image_size: tuple[int, int] | None
) -> tuple[int, int]:
    if image_size is not None:
        grid = image_size[0] // patch[0], image_size[1] // patch[1]
        if grid[0] * grid[1] != tokens:
            raise WeightsError(
                f"its position table has {tokens} patches, its config {image_size} "
                f"pixels in patches of {patch}"
            )
        return grid
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise WeightsError(
            f"its position table has {tokens} patches: no square, and nothing says "
            "which rectangle"
        )
    return side, side


def _statistics(said: Said, channels: int) -> list[tuple[float, ...]]:
    """Mean and deviation a channel; those of ImageNet where nothing is said."""
    found = []
    for name, low_open in (("mean", False), ("std", True)):
        values = getattr(said, name)
        if values is None:
            values = fit_statistics(FIELDS[f"data.{name}"].default, channels)
        bad = per_channel(-10 if name == "mean" else 0, low_open=low_open)(values)
        if bad or len(values) != channels:
            raise WeightsError(f"its {name}, {values}: must be {channels} numbers")
        found.append(values)
    return found


def single(size: tuple[int, int]) -> int | tuple[int, int]:
    """A size field as people write it: one number for a square."""
    return size[0] if size[0] == size[1] else size
