"""Folders that timm and Hugging Face's transformers load as their own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sgmae_jax.config import grid_of, pair
from sgmae_jax.models.presets import encoder_size
from sgmae_jax.weights.errors import WeightsError
from sgmae_jax.weights.export import CONFIG, PREPROCESSOR, export_encoder, write_folder
from sgmae_jax.weights.fit import with_positions
from sgmae_jax.weights.names import Naming, Part, Sizes, leaves, to_theirs
from sgmae_jax.weights.tensors import DECODER, WEIGHTS

TIMM_EPS = 1e-6


def write_weights(
    form: str,
    config,
    parts: Mapping[Part, Any],
    card: Mapping[str, Any],
    directory: str | os.PathLike,
) -> Path:
    """Writes an encoder, and its decoder if there is one, as others expect it.

    Args:
        form: "ours", "timm" or "huggingface".
        config: of the model.
        parts: "encoder" and perhaps "decoder": our trees of NumPy arrays.
        card: see `write_folder`.
        directory: see `write_folder`.

    Returns:
        The directory.

    Raises:
        WeightsError: their config cannot say what this model is.
    """
    if form == "ours":
        decoder = parts.get("decoder")
        return export_encoder(parts["encoder"], card, directory, decoder=decoder)
    if form == "timm":
        files = {WEIGHTS: named("timm", "encoder", config, parts)}
        if "decoder" in parts:
            files[DECODER] = named("timm", "decoder", config, parts)
        notes = {CONFIG: _timm_config(config, parts)}
    else:
        tensors: dict[str, Any] = {}
        for part in parts:
            tensors |= named("huggingface", part, config, parts)
        if "decoder" not in parts:
            # A bare ViTModel has no prefix.
            tensors = {name.removeprefix("vit."): a for name, a in tensors.items()}
        files = {WEIGHTS: tensors}
        notes = {
            CONFIG: _huggingface_config(config, parts),
            PREPROCESSOR: _huggingface_preprocessor(config),
        }
    return write_folder(files, notes, card, directory)


def named(
    naming: Naming, part: Part, config, parts: Mapping[Part, Any]
) -> dict[str, Any]:
    """A part's tensors by their names.

    Args:
        naming: theirs.
        part: encoder or decoder.
        config: of the model.
        parts: our trees of NumPy arrays.
    """
    tree = with_positions(parts[part], grid_of(config))
    rows, columns = pair(config.model.patch_size)
    depth, hidden = tree["blocks"]["mlp"]["fc1"]["bias"].shape
    tokens, width = tree["pos_embed"].shape
    letters = {
        "D": width,
        "E": parts["encoder"]["cls_token"].size,
        "M": hidden,
        "P": rows * columns * config.data.channels,
        "R": rows,
        "S": columns,
        "C": config.data.channels,
        "T": tokens,
    }
    return to_theirs(tree, list(leaves(naming, part, Sizes(depth, letters))))


def _heads(config) -> int:
    part = config.model
    return encoder_size(part.preset, part.width, part.depth, part.heads).heads


def _timm_config(config, parts: Mapping[Part, Any]) -> dict[str, Any]:
    """What `timm.create_model("local-dir:…")` reads."""
    if config.model.norm_eps != TIMM_EPS:
        raise WeightsError(
            f"config.model.norm_eps = {config.model.norm_eps:g}: timm's config cannot "
            f"say another than {TIMM_EPS:g}; weights.format = huggingface can"
        )
    image_size = list(pair(config.data.image_size))
    by_cls = config.eval.pool == "cls"
    depth = len(parts["encoder"]["blocks"]["norm1"]["scale"])
    width = parts["encoder"]["cls_token"].size
    said = {
        # Any plain ViT would do: model_args says all there is to say.
        "architecture": "vit_base_patch16_224",
        "num_classes": 0,
        "num_features": width,
        "global_pool": "token" if by_cls else "avg",
        "model_args": {
            "img_size": image_size,
            "patch_size": list(pair(config.model.patch_size)),
            "in_chans": config.data.channels,
            "embed_dim": width,
            "depth": depth,
            "num_heads": _heads(config),
            "mlp_ratio": config.model.mlp_ratio,
            "qkv_bias": True,
            "class_token": True,
            "num_classes": 0,
            "global_pool": "token" if by_cls else "avg",
            # With "avg" timm would else put the last norm behind the mean.
            "fc_norm": False,
        },
        "pretrained_cfg": {
            "input_size": [config.data.channels, *image_size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": config.eval.crop,
            "mean": list(config.data.mean),
            "std": list(config.data.std),
            "num_classes": 0,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    if "decoder" in parts:
        # Ours: what the weights in the file beside cannot say.
        said["decoder_num_heads"] = config.model.decoder_heads
    return said


def _huggingface_config(config, parts: Mapping[Part, Any]) -> dict[str, Any]:
    """Of a ViTMAEForPreTraining, or of a ViTModel where there is no decoder."""
    sides = {}
    for name, value in (
        ("data.image_size", config.data.image_size),
        ("model.patch_size", config.model.patch_size),
    ):
        height, width = pair(value)
        if height != width:
            raise WeightsError(
                f"config.{name} = {value}: Hugging Face's MAE takes squares alone; "
                "weights.format = timm takes others"
            )
        sides[name] = height
    hidden = parts["encoder"]["blocks"]["mlp"]["fc1"]["bias"].shape
    said = {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "hidden_size": parts["encoder"]["cls_token"].size,
        "num_hidden_layers": hidden[0],
        "num_attention_heads": _heads(config),
        "intermediate_size": hidden[1],
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": config.model.norm_eps,
        "image_size": sides["data.image_size"],
        "patch_size": sides["model.patch_size"],
        "num_channels": config.data.channels,
        "qkv_bias": True,
        "torch_dtype": "float32",
    }
    if "decoder" in parts:
        depth, hidden = parts["decoder"]["blocks"]["mlp"]["fc1"]["bias"].shape
        said |= {
            "architectures": ["ViTMAEForPreTraining"],
            "model_type": "vit_mae",
            "decoder_hidden_size": parts["decoder"]["mask_token"].size,
            "decoder_num_hidden_layers": depth,
            "decoder_num_attention_heads": config.model.decoder_heads,
            "decoder_intermediate_size": hidden,
            "mask_ratio": config.mask.ratio,
            "norm_pix_loss": bool(config.method.get("norm_pix", True)),
        }
    return said


def _huggingface_preprocessor(config) -> dict[str, Any]:
    height, width = pair(config.data.image_size)
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.data.mean),
        "image_std": list(config.data.std),
    }
