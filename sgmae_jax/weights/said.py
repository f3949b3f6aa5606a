"""What the JSON files beside foreign weights say of the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sgmae_jax.config import pair
from sgmae_jax.schema import FIELDS
from sgmae_jax.weights.errors import WeightsError

HUGGINGFACE_EPS = 1e-12  # the default of its ViTConfig and ViTMAEConfig
# timm's arguments that make another network than names and shapes tell.
_OTHER_NETWORKS = ("act_layer", "norm_layer", "block_fn", "attn_layer", "mlp_layer")


class Said(NamedTuple):
    """What stands beside the weights; None: nothing.

    Attributes:
        heads: of the encoder.
        decoder_heads: of the decoder.
        norm_eps: of every norm.
        image_size: (height, width) in pixels.
        mean: a channel, of pixels in [0, 1].
        std: likewise.
        norm_pix: whether the decoder predicts patches by their own deviation.
    """

    heads: int | None = None
    decoder_heads: int | None = None
    norm_eps: float | None = None
    image_size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    norm_pix: bool | None = None


def described(config: Mapping[str, Any], processor: Mapping[str, Any]) -> Said:
    """What a folder's JSON files say of the network.

    Args:
        config: config.json, of timm or Hugging Face; may be empty.
        processor: preprocessor_config.json; may be empty.

    Raises:
        WeightsError: they describe another kind of network, or nothing sensible.
    """
    try:
        if "architecture" in config:
            return _of_timm(config)
        return _of_huggingface(config, processor) if config else Said()
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise WeightsError(f"its config makes no sense: {error!r}") from None


def _of_timm(config: Mapping[str, Any]) -> Said:
    arguments = dict(config.get("model_args") or {})
    # Older files have the fields of `pretrained_cfg` at the top.
    about = config.get("pretrained_cfg") or config
    for name in _OTHER_NETWORKS:
        if arguments.get(name) is not None:
            raise WeightsError(f"its config sets {name}, which is no plain ViT's")
    size = arguments.get("img_size")
    if size is None and about.get("input_size"):
        size = about["input_size"][1:]
    return Said(
        heads=arguments.get("num_heads"),
        decoder_heads=config.get("decoder_num_heads"),
        image_size=_pair(size),
        mean=_numbers(about.get("mean")),
        std=_numbers(about.get("std")),
    )


def _of_huggingface(config: Mapping[str, Any], processor: Mapping[str, Any]) -> Said:
    if config["model_type"] not in ("vit", "vit_mae"):
        raise WeightsError(
            f"its config's model_type is {config['model_type']!r}, not vit or vit_mae"
        )
    if config.get("hidden_act", "gelu") != "gelu":
        raise WeightsError(f"its hidden_act is {config['hidden_act']!r}, not gelu")
    plain = processor.get("do_normalize", True)
    channels = config.get("num_channels", 3)
    if complaint := FIELDS["data.channels"].rule(channels):
        raise WeightsError(f"its num_channels is {channels!r}: must be {complaint}")
    mean, std = processor.get("image_mean"), processor.get("image_std")
    return Said(
        heads=config["num_attention_heads"],
        decoder_heads=config.get("decoder_num_attention_heads"),
        norm_eps=float(config.get("layer_norm_eps", HUGGINGFACE_EPS)),
        image_size=_pair(config.get("image_size")),
        mean=_numbers(mean) if plain else (0.0,) * channels,
        std=_numbers(std) if plain else (1.0,) * channels,
        norm_pix=config.get("norm_pix_loss"),
    )


def _pair(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    complaint = FIELDS["data.image_size"].rule(size)
    if complaint:
        raise WeightsError(f"its image size, {size!r}, must be {complaint}")
    return pair(size)


def _numbers(values: Any) -> tuple[float, ...] | None:
    return None if values is None else tuple(map(float, values))
