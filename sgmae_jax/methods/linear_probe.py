"""Linear probe: a linear classifier of a frozen encoder's features, by MAE's recipe.

The pooled token is standardised by a batch norm without parameters, and one linear
layer is trained on it by LARS. While it trains, the norm uses the statistics of the
batch; its running ones are for the scores.

Reference: He et al., Masked Autoencoders Are Scalable Vision Learners (2022), A.1;
facebookresearch/mae main_linprobe.py and util/lars.py.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from sgmae_jax import rules
from sgmae_jax.config import ConfigError
from sgmae_jax.methods import pretrained
from sgmae_jax.methods.base import Method, Run, Stream, Update, descend
from sgmae_jax.methods.image import (
    check_own_masks,
    pool_tokens,
    pooled_features,
    whole_macs,
)
from sgmae_jax.methods.pretrained import frozen, pretrained_model, pretrained_params
from sgmae_jax.models.head import accuracy, cross_entropy
from sgmae_jax.models.layers import Linear, at_least_float32
from sgmae_jax.models.statistics import no_statistics, running, standardised
from sgmae_jax.optimizer import make_lars
from sgmae_jax.rules import Field, choice, number

FIELDS = {
    "name": Field("linear_probe", rules.name, "this method"),
    "encoder": pretrained.FIELD,
    "pool": Field("cls", choice("mean", "cls"), "what the classifier reads"),
    "momentum": Field(0.9, number(0, 1, high_open=True), "of LARS"),
    "trust": Field(1e-3, number(0, low_open=True), "of LARS"),
}


def check(config) -> None:
    """What the fields of this method must agree on with others.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    check_own_masks(config)
    frozen(config)
    if config.data.batch_size < 2:
        raise ConfigError(
            f"config.data.batch_size = {config.data.batch_size}: must be at least 2, "
            "linear_probe standardises features by their batch"
        )


def streams(config):
    """One, with labels."""
    del config
    return {"train": Stream(labelled=True)}


def build(config, run: Run) -> Method:
    """The method as a config describes it, for a run of known length."""
    part = config.method
    model = pretrained_model(config, run)
    linear = Linear(run.classes, kernel_init=nn.initializers.normal(0.01))
    width = model.encoder.width

    def init(key):
        first, second = jax.random.split(key)
        return {
            "model": {"encoder": model.init(first)["encoder"]},
            "head": linear.init(second, jnp.zeros((1, width)))["params"],
            "statistics": no_statistics(width),
        }

    def classify(params, features):
        return jnp.asarray(linear.apply({"params": params["head"]}, features))

    def features(params, images):
        encoded = model.encode(params["model"], images)
        return at_least_float32(pool_tokens(encoded, part.pool))

    def prepare(params, batches, key, step, phase):
        """Features of the global batch, standardised by it; no gradient gets here."""
        del key, step, phase
        batch = batches["train"]
        found = in_parts(
            lambda images: features(params, images),
            batch["image"],
            config.optim.accumulate,
        )
        mean, var = found.mean(0), found.var(0)
        moved = running(params["statistics"], mean, var, len(found))
        batch = {**batch, "features": standardised(found, mean, var)}
        return {**params, "statistics": moved}, {**batches, "train": batch}, {}

    def loss(params, batches, key, step, phase):
        del key, step, phase
        batch = batches["train"]
        logits = classify(params, batch["features"])
        return cross_entropy(logits, batch["label"]), {
            "accuracy": accuracy(logits, batch["label"])
        }

    def logits(params, images):
        found = features(params, images)
        return classify(params, standardised(found, **params["statistics"]))

    own = ("head",)
    optimizer = make_lars(
        config.optim,
        momentum=part.momentum,
        trust=part.trust,
        batch_size=config.data.batch_size,
        steps_per_epoch=run.steps_per_epoch,
        total_steps=run.total_steps,
    )
    return Method(
        init=init,
        updates=(Update(own, descend(own, loss), optimizer),),
        features={"encoder": pooled_features(model, config.eval.pool)},
        encoder=lambda params: params["model"]["encoder"],
        # A forward pass, two FLOPs a multiply-add; the classifier is not counted.
        flops=lambda phase: 2.0 * whole_macs(model, model.encoder.depth),
        prepare=prepare,
        given=lambda: pretrained_params(config, run, model),
        logits=logits,
    )


def in_parts(function, images: Shaped[Array, "B H W C"], parts: int):
    """A function of images, row by row, applied to so many parts in turn."""
    if parts == 1:
        return function(images)
    # Strided: every device keeps a share of every part.
    folded = images.reshape(-1, parts, *images.shape[1:]).swapaxes(0, 1)
    found = jax.lax.map(function, folded).swapaxes(0, 1)
    return found.reshape(len(images), *found.shape[2:])
