"""Segmentation: an encoder under a head that names the class of every pixel.

The encoder comes from an earlier run, or begins at random. It stays as it is, so that
the score is that of its tokens, or it is tuned along with the head.

Reference: He et al., Masked Autoencoders Are Scalable Vision Learners (2022), A.4;
Bao et al., BEiT (2022).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, UInt8

from sgmae_jax import rules
from sgmae_jax.config import ConfigError, pair
from sgmae_jax.data import UNLABELLED_PIXEL
from sgmae_jax.methods import finetune, pretrained
from sgmae_jax.methods.base import Method, Metrics, Run, Stream, Update, descend
from sgmae_jax.methods.image import (
    adamw_of,
    check_own_masks,
    pooled_features,
    whole_macs,
)
from sgmae_jax.methods.pretrained import frozen, pretrained_model, pretrained_params
from sgmae_jax.models import Autoencoder
from sgmae_jax.models.macs import train_flops
from sgmae_jax.models.segmenter import LinearSegmenter, UPerNet, spaced_layers
from sgmae_jax.rules import Field, choice, integer

FIELDS = {
    "name": Field("segment", rules.name, "this method"),
    "encoder": pretrained.FIELD,
    "head": Field("linear", choice("linear", "upernet"), "on the tokens"),
    "head_width": Field(512, integer(1), "channels of upernet"),
    "frozen": Field(True, rules.boolean, "the head alone is trained"),
    "layer_decay": finetune.FIELDS["layer_decay"],
    "drop_path": finetune.FIELDS["drop_path"],
}


def check(config) -> None:
    """What the fields of this method must agree on with others.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    check_own_masks(config)
    part = config.method
    for field, default in (("layer_decay", 1.0), ("drop_path", 0.0)):
        if part.frozen and part[field] != default:
            raise ConfigError(
                f"config.method.{field} = {part[field]}: must stay {default} with "
                "method.frozen = True, as the encoder does not move"
            )
    if config.data.get("rand_augment") is not None:
        raise ConfigError(
            "config.data.rand_augment: must be None, it moves pixels away from their "
            "classes"
        )
    frozen(config)


def streams(config):
    """One, with the classes of the pixels."""
    del config
    return {"train": Stream(pixels=True)}


def build(config, run: Run) -> Method:
    """The method as a config describes it, for a run of known length."""
    part = config.method
    model = pretrained_model(config, run)
    grid, width, depth = model.grid, model.encoder.width, model.encoder.depth
    head = _head(config, run.pixel_classes)

    def init(key):
        first, second = jax.random.split(key)
        tokens = [jnp.zeros((1, *grid, width))] * 4
        return {
            "model": {"encoder": model.init(first)["encoder"]},
            "head": jax.jit(head.init)(second, tokens)["params"],
        }

    def logits(params, images, scales=None):
        layers = token_maps(model, params["model"], images, scales)
        return jnp.asarray(head.apply({"params": params["head"]}, layers))

    def loss(params, batches, key, step, phase):
        del step, phase
        batch = batches["train"]
        scales = finetune.branch_scales(batch, key, depth, part.drop_path)
        return pixel_loss(logits(params, batch["image"], scales), batch["segments"])

    own = ("head",) if part.frozen else ("model", "head")
    optimizer = optax.chain(
        adamw_of(config, run), finetune.scale_by_layer(depth, part.layer_decay)
    )
    encoder_macs, head_macs = whole_macs(model, depth), head.macs(grid, width)
    if part.frozen:  # no backward pass of the encoder
        flops = 2 * encoder_macs + train_flops(head_macs)
    else:
        flops = train_flops(encoder_macs + head_macs)
    return Method(
        init=init,
        updates=(Update(own, descend(own, loss), optimizer),),
        features={"encoder": pooled_features(model, config.eval.pool)},
        encoder=lambda params: params["model"]["encoder"],
        flops=lambda phase: flops,
        given=lambda: pretrained_params(config, run, model),
        segments=lambda params, images: logits(params, images).argmax(-1),
    )


def token_maps(
    model: Autoencoder,
    params,
    images: UInt8[Array, "B H W C"],
    scales: Float[Array, "L 2 B"] | None = None,
) -> list[Float[Array, "B h w D"]]:
    """Four evenly spaced layers as maps; the last one after the encoder's last norm.

    Args:
        model: whose encoder sees the whole images.
        params: of that model.
        images: uint8, or floats that are already standardised.
        scales: of the blocks' branches, see `drop_path_scales`; None: all 1.
    """
    encoded = model.encode(params, images, capture=("features",), scales=scales)
    features = encoded.captured["features"][:, :, 1:]
    *early, _ = spaced_layers(model.encoder.depth)
    layers = [*(features[layer - 1] for layer in early), encoded.patches]
    return [layer.reshape(-1, *model.grid, layer.shape[-1]) for layer in layers]


def pixel_loss(
    logits: Float[Array, "B H W K"], segments: UInt8[Array, "B H W"]
) -> tuple[Float[Array, ""], Metrics]:
    """Mean cross entropy of the labelled pixels of a batch, and "pixel_accuracy".

    A batch without any gives 0 for both.

    Args:
        logits: of K classes.
        segments: classes, or 255 where a pixel has none.
    """
    labelled = segments != UNLABELLED_PIXEL
    classes = jnp.where(labelled, segments, 0).astype(jnp.int32)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, classes)
    count = jnp.maximum(labelled.sum(), 1)
    right = (logits.argmax(-1) == classes) & labelled
    value = jnp.where(labelled, each, 0).sum() / count
    return value, {"pixel_accuracy": right.sum() / count}


def _head(config, classes: int) -> LinearSegmenter | UPerNet:
    size, dtype = pair(config.data.image_size), config.model.dtype
    if config.method.head == "linear":
        return LinearSegmenter(classes, size, dtype=dtype)
    return UPerNet(classes, size, width=config.method.head_width, dtype=dtype)
