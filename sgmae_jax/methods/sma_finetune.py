"""Fine-tuning SMA's encoder: one learned query asks it for a number or a class.

The encoder comes from a run of `sma`, or begins at random. Nothing is hidden.

Reference: Xie et al., Self-Guided Masked Autoencoders for Domain-Agnostic
Self-Supervised Learning (2024); Johnathan-Xie/sma.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sgmae_jax import rules
from sgmae_jax.config import ConfigError
from sgmae_jax.data.columns import target_from
from sgmae_jax.masking import example_keys
from sgmae_jax.methods import pretrained, sma_pretrained
from sgmae_jax.methods.base import Method, Run, Stream, Update, descend
from sgmae_jax.methods.finetune import branch_scales
from sgmae_jax.methods.image import adamw_of, check_own_masks
from sgmae_jax.methods.sma_networks import (
    ENCODER_FIELDS,
    check_sizes,
    forward_macs,
    image_inputs,
    make_decoder,
    read_inputs,
)
from sgmae_jax.models.macs import train_flops
from sgmae_jax.models.sma_autoencoder import init_encoder, some_encoded
from sgmae_jax.rules import Field, choice, number
from sgmae_jax.sources import domain_of

DOMAINS = ("rows", "images")
FIELDS = {
    "name": Field("sma_finetune", rules.name, "this method"),
    "encoder": pretrained.FIELD,
    **ENCODER_FIELDS,
    "loss": Field(
        "auto",
        choice("auto", "mse", "bce", "cross_entropy"),
        "auto: mse of numbers, bce of two classes, cross_entropy of more",
    ),
    "target_clip": Field(
        None,
        rules.optional(number(0, low_open=True)),
        "of numbers to learn, in deviations of the training rows",
    ),
    "attention_dropout": Field(0.0, number(0, 1, high_open=True), "of its weights"),
    "dropout": Field(0.0, number(0, 1, high_open=True), "of inputs and branches"),
    "drop_path": Field(0.0, number(0, 1, high_open=True), "in the last layer"),
}


def frozen(config) -> dict[str, dict[str, Any]]:
    """What the given encoder is like; see sma_pretrained.py."""
    return sma_pretrained.frozen(config)


def check(config) -> None:
    """What the fields of this method must agree on with others.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    check_own_masks(config)
    check_sizes(config)
    sma_pretrained.check(config)
    if domain_of(config.data.source) == "rows" and config.table.target == "":
        raise ConfigError(
            "config.table.target = '': must name the column to be predicted, method "
            "sma_finetune learns it"
        )


def streams(config):
    """One, with labels."""
    del config
    return {"train": Stream(labelled=True)}


def build(config, run: Run) -> Method:
    """The method as a config describes it, for a run of known length."""
    part = config.method
    rates = {"attention_dropout": part.attention_dropout, "dropout": part.dropout}
    described = sma_pretrained.described(config, run)
    encoder = sma_pretrained.make(config, run, **rates)
    saved = run.facts.get("target")
    target = target_from(saved) if saved else None
    kind = _loss_kind(part.loss, run, number=target is not None and not target.classes)
    outputs = 1 if kind in ("mse", "bce") else run.classes
    head = make_decoder(described, outputs, queries=1, residual=True, **rates)
    inputs_of = read_inputs(config)

    def init(key):
        first, second = jax.random.split(key)
        own = head.init(second, some_encoded(encoder))["params"]
        return {"model": {"encoder": init_encoder(encoder, first)}, "head": own}

    def output(params, inputs, keys=None, scales=None):
        own = {"params": params["model"]["encoder"]}
        embedded = encoder.apply(own, inputs, method="embed")
        encoded = encoder.apply(own, embedded, inputs.valid, noise=keys, scales=scales)
        last = None
        if keys is not None:
            last = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
        found = head.apply({"params": params["head"]}, encoded, noise=last)
        return jnp.asarray(found)[:, 0]

    def loss(params, batches, key, step, phase):
        del step, phase
        batch = batches["train"]
        keys = None
        if part.attention_dropout or part.dropout:
            keys = example_keys(key, batch["epoch"], batch["id"], "dropout")
        scales = branch_scales(batch, key, encoder.depth, part.drop_path)
        found = output(params, inputs_of(batch), keys, scales)
        if kind == "cross_entropy":
            each = optax.softmax_cross_entropy_with_integer_labels(
                found, batch["label"]
            )
            return each.mean(), {}
        truth = batch["target"] if "target" in batch else batch["label"]
        truth = jnp.asarray(truth, jnp.float32)
        if part.target_clip is not None and "target" in batch:
            truth = jnp.clip(truth, -part.target_clip, part.target_clip)
        if kind == "bce":
            return optax.sigmoid_binary_cross_entropy(found[:, 0], truth).mean(), {}
        return jnp.square(found[:, 0] - truth).mean(), {}

    def logits_of(params, inputs):
        """Logits of classes, or the target's number in its own units."""
        found = output(params, inputs)
        if target is not None and not target.classes:
            return found * target.std + target.mean
        if kind == "cross_entropy":
            return found
        zero = found - 0.5 if kind == "mse" else found
        return jnp.concatenate([jnp.zeros_like(zero), zero], axis=-1)

    of_images = "inputs" not in run.facts
    own = ("model", "head")
    macs = forward_macs(encoder, head, encoder.length)
    return Method(
        init=jax.jit(init),
        updates=(Update(own, descend(own, loss), adamw_of(config, run)),),
        features={"encoder": _features(config, encoder)} if of_images else {},
        encoder=lambda params: params["model"]["encoder"],
        flops=lambda phase: train_flops(macs),
        given=lambda: sma_pretrained.read(config, run),
        logits=(lambda p, images: logits_of(p, image_inputs(config, images)))
        if of_images
        else None,
        answer=None
        if of_images
        else lambda p, batch: {"answer": logits_of(p, inputs_of(batch))},
    )


def _features(config, encoder):
    """Mean of what the encoder makes of whole images."""

    def features(params, images):
        inputs, own = image_inputs(config, images), params["model"]["encoder"]
        embedded = encoder.apply({"params": own}, inputs, method="embed")
        states = encoder.apply({"params": own}, embedded, inputs.valid).states
        return jnp.asarray(states, jnp.float32).mean(1)

    return features


def _loss_kind(wished: str, run: Run, *, number: bool) -> str:
    """The loss, which must suit the target.

    Raises:
        ConfigError: it does not.
    """
    if wished == "auto":
        return "mse" if number else "bce" if run.classes == 2 else "cross_entropy"
    good = {
        "mse": number or run.classes == 2,
        "bce": run.classes == 2,
        "cross_entropy": run.classes >= 2,
    }
    if not good[wished]:
        what = "a number" if number else f"{run.classes} classes"
        raise ConfigError(
            f"config.method.loss = {wished!r}: must suit the target, which has {what}"
        )
    return wished
