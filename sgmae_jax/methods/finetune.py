"""Fine-tuning: an encoder and a new head trained together to name the images' classes.

The encoder comes from an earlier run, or begins at random. Everything moves, the early
layers more slowly (layer-wise decay of the learning rate).

Reference: He et al., Masked Autoencoders Are Scalable Vision Learners (2022), A.1;
facebookresearch/mae main_finetune.py and util/lr_decay.py.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from sgmae_jax import rules
from sgmae_jax.masking import example_keys
from sgmae_jax.methods.base import Method, Run, Stream, Update, descend
from sgmae_jax.methods.classifier import Classifier
from sgmae_jax.methods.frozen import frozen_config, frozen_model, read_frozen
from sgmae_jax.methods.image import (
    adamw_of,
    check_own_masks,
    make_autoencoder,
    pooled_features,
    whole_macs,
)
from sgmae_jax.models import Autoencoder
from sgmae_jax.models.head import ClassificationHead
from sgmae_jax.models.layers import drop_path_scales
from sgmae_jax.models.macs import train_flops
from sgmae_jax.rules import Field, choice, number

FIELDS = {
    "name": Field("finetune", rules.name, "this method"),
    "encoder": Field("", rules.path, "a run or weights; empty: random"),
    "pool": Field("mean", choice("mean", "cls"), "what the head reads"),
    "label_smoothing": Field(0.0, number(0, 1, high_open=True), "of the targets"),
    "layer_decay": Field(
        1.0, number(0, 1, low_open=True), "of the rate, a layer down; 1: none"
    ),
    "drop_path": Field(0.0, number(0, 1, high_open=True), "in the last block"),
}
# How to compute is this run's business; what the network is, the encoder's.
_COMPUTE = ("dtype", "attention", "unroll", "remat")


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


def frozen(config):
    """Where training starts from, if an encoder is named; it does not stay as it is."""
    if not config.method.encoder:
        return {}
    return {"model": frozen_config(config, "method.encoder")}


def build(config, run: Run) -> Method:
    """The method as a config describes it, for a run of known length."""
    part = config.method
    model = _model(config, run)
    classifier = Classifier(model, ClassificationHead(run.classes), part.pool)

    def init(key):
        first, second = jax.random.split(key)
        return {
            "model": {"encoder": model.init(first)["encoder"]},
            "head": classifier.init_head(second),
        }

    def given():
        if "model" not in run.frozen:
            return {}
        return {"model": {"encoder": read_frozen(config, "method.encoder", model)}}

    def loss(params, batches, key, step, phase):
        del step, phase
        batch = batches["train"]
        scales = None
        if part.drop_path:
            keys = example_keys(key, batch["epoch"], batch["id"], "drop path")
            scales = drop_path_scales(
                keys, depth=model.encoder.depth, rate=part.drop_path
            )
        return classifier.loss(
            params, batch, smoothing=part.label_smoothing, scales=scales
        )

    own = ("model", "head")
    optimizer = optax.chain(
        adamw_of(config, run), scale_by_layer(model.encoder.depth, part.layer_decay)
    )
    return Method(
        init=init,
        updates=(Update(own, descend(own, loss), optimizer),),
        features={"encoder": pooled_features(model, config.eval.pool)},
        encoder=lambda params: params["model"]["encoder"],
        # The head is one product of a vector and not counted.
        flops=lambda phase: train_flops(whole_macs(model, model.encoder.depth)),
        given=given,
        logits=classifier.logits,
    )


def layer_scales(params: PyTree, depth: int, decay: float) -> PyTree:
    """What the rate of every leaf is multiplied by, [L, 1, …] for the stacked blocks.

    Block i of L (from 1) gets decay^(L + 1 - i); what is below the blocks
    decay^(L + 1); the last norm and the head 1.

    Args:
        params: {"model": {"encoder": …}, "head": …}.
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


def _model(config, run: Run) -> Autoencoder:
    """Of the given encoder's sizes, or of the config's; the decoder has no weights."""
    if "model" not in run.frozen:
        return make_autoencoder(config)
    own = {f"model.{name}": config.model[name] for name in _COMPUTE}
    return frozen_model({**run.frozen["model"], **own})
