"""Fine-tuning: an encoder and a new head trained together to name the images' classes.

The encoder comes from an earlier run, or begins at random. Everything moves, the early
layers more slowly (layer-wise decay of the learning rate); pieces of the images may be
erased, and the images mixed with each other.

Reference: He et al., Masked Autoencoders Are Scalable Vision Learners (2022), A.1;
facebookresearch/mae main_finetune.py, models_vit.py and util/lr_decay.py.
"""

from __future__ import annotations

from zlib import crc32

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from sgmae_jax import rules
from sgmae_jax.masking import example_keys
from sgmae_jax.methods import pretrained
from sgmae_jax.methods.base import Batch, Method, Run, Stream, Update, descend
from sgmae_jax.methods.classifier import Classifier
from sgmae_jax.methods.erasing import erase
from sgmae_jax.methods.image import (
    adamw_of,
    check_own_masks,
    pooled_features,
    whole_macs,
)
from sgmae_jax.methods.mixing import mix
from sgmae_jax.methods.pretrained import frozen, pretrained_model, pretrained_params
from sgmae_jax.models.head import ClassificationHead, soft_targets
from sgmae_jax.models.layers import drop_path_scales
from sgmae_jax.models.macs import train_flops
from sgmae_jax.rules import Field, choice, number

FIELDS = {
    "name": Field("finetune", rules.name, "this method"),
    "encoder": pretrained.FIELD,
    "pool": Field("mean", choice("mean", "cls"), "what the head reads"),
    "head_init": Field(2e-5, number(0, low_open=True), "deviation of its kernel"),
    "label_smoothing": Field(0.0, number(0, 1, high_open=True), "of the targets"),
    "layer_decay": Field(
        1.0, number(0, 1, low_open=True), "of the rate, a layer down; 1: none"
    ),
    "drop_path": Field(0.0, number(0, 1, high_open=True), "in the last block"),
    "mixup": Field(0.0, number(0), "a of Beta(a, a), the share of an image; 0: off"),
    "cutmix": Field(0.0, number(0), "likewise; with both, batches take turns"),
    "erase": Field(0.0, number(0, 1), "chance of a box of noise in an image"),
}
# Beside biases and scales, these do not decay.
SPARED = ("cls_token", "pos_embed")


def check(config) -> None:
    """What the fields of this method must agree on with others.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    check_own_masks(config)
    frozen(config)


def streams(config):
    """One, with labels."""
    del config
    return {"train": Stream(labelled=True)}


def build(config, run: Run) -> Method:
    """The method as a config describes it, for a run of known length."""
    part = config.method
    model = pretrained_model(config, run)
    # The head has a norm of its own. The encoder's last one is not used and stays where
    # it was, for features and exports.
    head = ClassificationHead(run.classes, deviation=part.head_init)
    classifier = Classifier(model, head, part.pool, normed=False)

    def init(key):
        first, second = jax.random.split(key)
        return {
            "model": {"encoder": model.init(first)["encoder"]},
            "head": classifier.init_head(second),
        }

    def varied(batch, key, step):
        """Images and targets; images that nothing is done to stay uint8."""
        images = batch["image"]
        targets = soft_targets(
            batch["label"], run.classes, smoothing=part.label_smoothing
        )
        if part.erase:
            keys = example_keys(key, batch["epoch"], batch["id"], "erase")
            images = erase(keys, model.normalise(images), part.erase)
        if part.mixup or part.cutmix:
            own = jax.random.fold_in(jax.random.fold_in(key, crc32(b"mix")), step)
            images = model.normalise(images)
            images, targets = mix(
                own, images, targets, mixup=part.mixup, cutmix=part.cutmix
            )
        return images, targets

    def loss(params, batches, key, step, phase):
        del phase
        batch = batches["train"]
        images, targets = varied(batch, key, step)
        scales = branch_scales(batch, key, model.encoder.depth, part.drop_path)
        return classifier.loss(params, images, targets, scales)

    own = ("model", "head")
    optimizer = optax.chain(
        adamw_of(config, run, spared=SPARED),
        scale_by_layer(model.encoder.depth, part.layer_decay),
    )
    return Method(
        init=init,
        updates=(Update(own, descend(own, loss), optimizer),),
        features={"encoder": pooled_features(model, config.eval.pool)},
        encoder=lambda params: params["model"]["encoder"],
        # The head is one product of a vector and not counted.
        flops=lambda phase: train_flops(whole_macs(model, model.encoder.depth)),
        given=lambda: pretrained_params(config, run, model),
        logits=classifier.logits,
    )


def branch_scales(
    batch: Batch, key: Key[Array, ""], depth: int, rate: float
) -> Float[Array, "L 2 B"] | None:
    """Drop path for a batch, decided by id and epoch; None if nothing is dropped."""
    if not rate:
        return None
    keys = example_keys(key, batch["epoch"], batch["id"], "drop path")
    return drop_path_scales(keys, depth=depth, rate=rate)


def layer_scales(params: PyTree, depth: int, decay: float) -> PyTree:
    """What the rate of every leaf is multiplied by, [L, 1, …] for the stacked blocks.

    Block i of L (from 1) gets decay^(L + 1 - i); what is below the blocks
    decay^(L + 1); the head 1, and the last norm, which has no gradient here.

    Args:
        params: {"model": {"encoder": …}, "head": …}, or a part of it.
        depth: L.
        decay: in (0, 1].

    Reference: facebookresearch/mae util/lr_decay.py, after BEiT.
    """
    of_blocks = decay ** jnp.arange(depth, 0.0, -1.0)

    def scale(path, leaf):
        names = [entry.key for entry in path]
        if names[0] == "head" or names[2] == "norm":
            return jnp.float32(1.0)
        if names[2] == "blocks":
            return of_blocks.reshape(depth, *(1,) * (leaf.ndim - 1))
        return jnp.float32(decay ** (depth + 1))

    return jax.tree_util.tree_map_with_path(scale, params)


def scale_by_layer(depth: int, decay: float) -> optax.GradientTransformation:
    """Multiplies finished updates, weight decay included, by `layer_scales`."""

    def scaled(updates, params):
        del params
        scales = layer_scales(updates, depth, decay)
        return jax.tree.map(jnp.multiply, updates, scales)

    return optax.stateless(scaled)
