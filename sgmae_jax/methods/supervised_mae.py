"""MAE with the labels' loss beside it: the control of methods that learn from labels.

What such a method gains over MAE may come from its masks, or only from the labels. Here
the masks are the configured ones, and the labels act on the encoder directly.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sgmae_jax import rules
from sgmae_jax.methods import mae
from sgmae_jax.methods.base import Method, Run, Stream, Update, descend
from sgmae_jax.methods.classifier import Classifier
from sgmae_jax.methods.image import (
    adamw_of,
    make_autoencoder,
    training_flops,
    whole_macs,
)
from sgmae_jax.models.head import ClassificationHead, soft_targets
from sgmae_jax.models.macs import train_flops
from sgmae_jax.rules import Field, choice, number

FIELDS = {
    **mae.FIELDS,
    "name": Field("supervised_mae", rules.name, "this method"),
    "weight": Field(1.0, number(0), "of the cross entropy, beside reconstruction"),
    "pool": Field("cls", choice("mean", "cls"), "what the head reads"),
}


def streams(config):
    """One, with labels."""
    del config
    return {"train": Stream(labelled=True)}


def build(config, run: Run) -> Method:
    """The method as a config describes it, for a run of known length."""
    part = config.method
    without = mae.build(config, run)
    model = make_autoencoder(config)
    classifier = Classifier(model, ClassificationHead(run.classes), part.pool)

    def init(key):
        first, second = jax.random.split(key)
        return {**without.init(first), "head": classifier.init_head(second)}

    def supervised(params, batches, key, step, ratio):
        """The whole images, nothing hidden."""
        del key, step, ratio
        batch = batches["train"]
        targets = soft_targets(batch["label"], run.classes)
        value, metrics = classifier.loss(params, batch["image"], targets)
        return part.weight * value, {"cross_entropy": value, **metrics}

    own = ("model", "head")
    of_labels, of_pixels = descend(own, supervised), without.updates[0].gradient

    def gradient(params, batches, key, step, ratio):
        """Of the sum of both losses, which is the sum of their gradients."""
        labels, metrics = of_labels(params, batches, key, step, ratio)
        pixels, found = of_pixels(params, batches, key, step, ratio)
        summed = jax.tree.map(jnp.add, labels["model"], pixels["model"])
        return {**labels, "model": summed}, {
            **metrics,
            "reconstruction": found["loss"],
            "loss": metrics["loss"] + found["loss"],
        }

    whole = train_flops(whole_macs(model, model.encoder.depth))
    return without._replace(
        init=init,
        updates=(Update(own, gradient, adamw_of(config, run)),),
        flops=lambda ratio: training_flops(model, ratio) + whole,
        logits=classifier.logits,
    )
