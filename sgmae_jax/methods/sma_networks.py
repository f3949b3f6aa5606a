"""SMA's networks as a config describes them, for inputs of any domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from sgmae_jax.config import ConfigError, grid_of, near, pair
from sgmae_jax.data.byte_text import SYMBOLS
from sgmae_jax.data.columns import columns_from
from sgmae_jax.methods.base import Batch
from sgmae_jax.models import patchify
from sgmae_jax.models.presets import PRESETS, Size, encoder_size
from sgmae_jax.models.sma import Inputs, SmaDecoder, SmaEncoder
from sgmae_jax.rules import Field, choice, integer, optional

# Of the encoder; a run that is fine-tuned has them from the run it begins with.
ENCODER_FIELDS = {
    "encoder_type": Field(
        "self_attention",
        choice("self_attention", "latent"),
        "what queries the inputs: they themselves, or learned latents",
    ),
    "latents": Field(256, integer(1), "how many, of encoder_type 'latent'"),
    "latent_width": Field(None, optional(integer(1)), "None: model.width"),
    "first_heads": Field(
        None, optional(integer(1)), "of the layer that looks at inputs; None: the same"
    ),
    "qk_width": Field(None, optional(integer(1)), "of queries and keys; None: width"),
    "first_qk_width": Field(
        None, optional(integer(1)), "of that layer; None: both same"
    ),
    "v_width": Field(None, optional(integer(1)), "of values; None: width"),
}


class InputShape(NamedTuple):
    """What a row of inputs is like.

    Attributes:
        length: N.
        channels: numbers an input; 0 where all are symbols.
        symbols: how many there are; 0 where all inputs are numbers.
        allowed: symbols an input may be, bool [N, symbols]; None: any.
    """

    length: int
    channels: int
    symbols: int
    allowed: np.ndarray | None = None


def input_shape(config, facts: Mapping[str, Any]) -> InputShape:
    """Of rows as their facts say, of images as their patches are.

    Args:
        config: of the run.
        facts: "inputs" of `Run.facts`; empty for images.
    """
    if not facts:
        height, width = grid_of(config)
        rows, columns = pair(config.model.patch_size)
        return InputShape(height * width, rows * columns * config.data.channels, 0)
    if facts["kind"] == "bytes":
        return InputShape(facts["length"], 0, SYMBOLS)
    table = columns_from(facts)
    allowed = table.allowed() if table.symbols else None
    return InputShape(len(table.columns), table.channels, table.symbols, allowed)


def read_inputs(config) -> Callable[[Batch], Inputs]:
    """Batches as inputs: rows as they are, images as standardised patches."""

    def inputs(batch: Batch) -> Inputs:
        if "image" in batch:
            return image_inputs(config, batch["image"])
        return Inputs(batch["valid"], batch.get("values"), batch.get("symbols"))

    return inputs


def image_inputs(config, images) -> Inputs:
    """Patches of images u8[B,H,W,C]; of one pixel each with model.patch_size = 1."""
    mean, std = jnp.asarray(config.data.mean), jnp.asarray(config.data.std)
    standard = (jnp.asarray(images, jnp.float32) / 255 - mean) / std
    patches = patchify(standard, pair(config.model.patch_size))
    return Inputs(jnp.ones(patches.shape[:2], bool), patches)


def make_encoder(config, shape: InputShape, **options: Any) -> SmaEncoder:
    """The encoder of a config.

    Args:
        config: its `model` section, and ENCODER_FIELDS of its `method` section.
        shape: of the inputs.
        **options: dropout rates.
    """
    part, method, size = config.model, config.method, size_of(config)
    latents = method.latents if method.encoder_type == "latent" else 0
    width = size.width
    if latents:
        width = method.latent_width or size.width
    qk_width = method.qk_width or width
    return SmaEncoder(
        length=shape.length,
        channels=shape.channels,
        symbols=shape.symbols,
        width=size.width,
        latents=latents,
        latent_width=width,
        depth=size.depth,
        heads=size.heads,
        first_heads=method.first_heads or size.heads,
        qk_width=qk_width,
        first_qk_width=method.first_qk_width or qk_width,
        v_width=method.v_width or width,
        mlp_ratio=part.mlp_ratio,
        dtype=part.dtype,
        unroll=part.unroll,
        remat=part.remat,
        **options,
    )


def make_decoder(config, out_values: int, **options: Any) -> SmaDecoder:
    """A decoder as wide as the embedded inputs, with model.decoder_heads.

    Args:
        config: of the run.
        out_values: numbers predicted of a query.
        **options: further fields of `SmaDecoder`.
    """
    width = size_of(config).width
    return SmaDecoder(
        width=width,
        heads=config.model.decoder_heads,
        qk_width=width,
        v_width=width,
        out_values=out_values,
        mlp_ratio=config.model.mlp_ratio,
        dtype=config.model.dtype,
        **options,
    )


def size_of(config) -> Size:
    """Width of embedded inputs, layers after the first, and their heads."""
    part = config.model
    return encoder_size(part.preset, part.width, part.depth, part.heads)


def check_sizes(config) -> None:
    """What the sizes of SMA's networks must agree on.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    part, method = config.model, config.method
    if part.preset and part.preset not in PRESETS:
        raise ConfigError(
            f"config.model.preset = {part.preset!r}: must be empty or one of "
            f"{', '.join(PRESETS)}{near(part.preset, PRESETS)}"
        )
    for name in ("width", "depth", "heads"):
        if not part.preset and part[name] is None:
            raise ConfigError(
                f"config.model.{name} = None: must be set when model.preset is empty"
            )
    if part.attention != "matmul":
        raise ConfigError(
            f"config.model.attention = {part.attention!r}: must be 'matmul', SMA's "
            "masks are made of attention that the library's kernels do not show"
        )
    encoder = make_encoder(config, InputShape(1, 1, 0))
    for what, total, heads in (
        ("method.qk_width", encoder.qk_width, encoder.heads),
        ("method.v_width", encoder.v_width, encoder.heads),
        ("method.first_qk_width", encoder.first_qk_width, encoder.first_heads),
        ("method.v_width", encoder.v_width, encoder.first_heads),
        ("model.width", encoder.width, part.decoder_heads),
    ):
        if total % heads:
            raise ConfigError(
                f"config.{what}: {total} must be a multiple of the {heads} heads that "
                "share it (model.heads, method.first_heads, model.decoder_heads)"
            )
    if method.encoder_type == "self_attention" and method.latent_width is not None:
        raise ConfigError(
            f"config.method.latent_width = {method.latent_width}: must be None without "
            "latents"
        )


def forward_macs(encoder: SmaEncoder, decoder: SmaDecoder, seen: int) -> int:
    """Multiply-adds of one forward pass for one row.

    Args:
        encoder: of the network.
        decoder: of the network, or a head.
        seen: inputs that the layers after the first see.
    """
    length, states = encoder.length, encoder.latents or seen

    def layer(queries, keys, width, key_width, qk, v) -> int:
        projected = queries * width * qk + keys * key_width * (qk + v)
        mixed = queries * (keys * (qk + v) + v * width)
        return projected + mixed + 2 * int(queries * width**2 * encoder.mlp_ratio)

    embedded = length * encoder.channels * encoder.width
    first = layer(
        encoder.latents or length,
        length,
        encoder.latent_width,
        encoder.width,
        encoder.first_qk_width,
        encoder.v_width,
    )
    width = encoder.latent_width
    later = layer(states, states, width, width, encoder.qk_width, encoder.v_width)
    queries = decoder.queries or length
    last = layer(
        queries, states, decoder.width, width, decoder.qk_width, decoder.v_width
    )
    out = queries * decoder.width * decoder.out_values
    return embedded + first + encoder.depth * later + last + out
