"""SMA: the first layer's attention says what is hidden, in any domain.

One network and one forward pass. The first layer looks at the complete input; what a
few of its queries look at most is blocked there and seen by nothing behind it; a light
decoder reconstructs it.

Reference: Xie et al., Self-Guided Masked Autoencoders for Domain-Agnostic
Self-Supervised Learning (2024); Johnathan-Xie/sma.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sgmae_jax import rules
from sgmae_jax.config import ConfigError
from sgmae_jax.masking import (
    example_keys,
    guided_by_attention,
    mask_valid,
    random_share,
)
from sgmae_jax.masking.attention import HEADS, rounded_share
from sgmae_jax.methods.base import Method, Picture, Run, Update, descend
from sgmae_jax.methods.image import adamw_of, check_own_masks
from sgmae_jax.methods.row_losses import reconstruction_error
from sgmae_jax.methods.sma_networks import (
    ENCODER_FIELDS,
    check_sizes,
    forward_macs,
    image_inputs,
    input_shape,
    make_decoder,
    make_encoder,
    read_inputs,
)
from sgmae_jax.models.macs import train_flops
from sgmae_jax.models.sma_autoencoder import SmaAutoencoder
from sgmae_jax.rules import Field, boolean, choice, number, optional

DOMAINS = ("rows", "images")
FIELDS = {
    "name": Field("sma", rules.name, "this method"),
    **ENCODER_FIELDS,
    "scores": Field(
        "attention",
        choice("attention", "random"),
        "what is hidden: what attention is on, or anything",
    ),
    "per_query": Field(
        3.0, number(0, low_open=True), "inputs that one drawn query stands for"
    ),
    "head_mix": Field(
        "mean", choice(*HEADS), "a query's row: the mean of heads, or a drawn one"
    ),
    "mask_self": Field(False, boolean, "hide the drawn queries (self-attention)"),
    "random_start": Field(
        0.0, number(0, 1), "share of the hidden inputs drawn at random at first"
    ),
    "random_until": Field(
        0.25, number(0, 1), "share of the run over which that falls to 0"
    ),
    "target_clip": Field(
        None, optional(number(0, low_open=True)), "of numbers to predict; None: off"
    ),
    "mask_token": Field(False, boolean, "add a learned vector to hidden queries"),
    "tied": Field(False, boolean, "predict symbols by their embeddings"),
    "own_queries": Field(
        False, boolean, "the decoder has queries of its own, not the positions"
    ),
}


def check(config) -> None:
    """What the fields of this method must agree on with others.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    check_own_masks(config)
    check_sizes(config)
    part = config.method
    if part.mask_self and part.encoder_type != "self_attention":
        raise ConfigError(
            "config.method.mask_self = True: must go with encoder_type "
            "'self_attention', latents are no inputs that could be hidden"
        )
    if config.mask.ratio_end is not None:
        raise ConfigError(
            f"config.mask.ratio_end = {config.mask.ratio_end}: must be None, method "
            "sma hides the same share throughout"
        )


def build(config, run: Run) -> Method:
    """The method as a config describes it, for a run of known length."""
    part, ratio = config.method, config.mask.ratio
    shape = input_shape(config, run.facts.get("inputs", {}))
    out_values = shape.channels + shape.symbols
    if part.tied and (shape.channels or not shape.symbols):
        raise ConfigError(
            "config.method.tied = True: must be left to inputs that are all symbols"
        )
    model = SmaAutoencoder(
        make_encoder(config, shape),
        make_decoder(
            config,
            out_values,
            queries=shape.length if part.own_queries else 0,
            mask_token=part.mask_token,
            tied=part.tied,
        ),
    )
    random_steps = round(part.random_until * run.total_steps)
    allowed = None if shape.allowed is None else jnp.asarray(shape.allowed)
    inputs_of = read_inputs(config)

    def masked(params, inputs, embedded, keys, step, scores=part.scores):
        if scores == "random":
            found, share = jnp.zeros(inputs.valid.shape), jnp.float32(1)
        else:
            found = guided_by_attention(
                keys,
                model.attention(jax.lax.stop_gradient(params), embedded, inputs.valid),
                inputs.valid,
                ratio=ratio,
                per_query=part.per_query,
                heads=part.head_mix,
                self_attention=part.encoder_type == "self_attention",
                mask_self=part.mask_self,
                length=shape.length,
            )
            share = random_share(step, random_steps, part.random_start)
        return mask_valid(keys, found, inputs.valid, ratio=ratio, random=share)

    def forward(params, batch, keys, step, **options):
        inputs = inputs_of(batch)
        own = params["model"]
        embedded = model.embed(own, inputs)
        mask = masked(own, inputs, embedded, keys, step, **options)
        prediction = model.predict(own, embedded, inputs.valid, mask)
        error = reconstruction_error(
            inputs,
            prediction,
            mask.loss_weight,
            clip=part.target_clip,
            allowed=None if allowed is None else allowed[: inputs.valid.shape[1]],
        )
        return mask, prediction, error

    def loss(params, batches, key, step, phase):
        del phase
        batch = batches["train"]
        keys = example_keys(key, batch["epoch"], batch["id"], "mask")
        mask, _, error = forward(params, batch, keys, step)
        share = random_share(step, random_steps, part.random_start)
        random = 1.0 if part.scores == "random" else share
        return error.mean(), {
            "mask/hidden": mask.loss_weight.sum(-1).mean(),
            "mask/random": jnp.float32(random),
        }

    def picture(params, batch, key, step, phase):
        del phase
        keys = example_keys(key, batch["epoch"], batch["id"], "mask")
        mask, prediction, _ = forward(params, batch, keys, step)
        return Picture(mask.loss_weight, prediction)

    def answer(params, batch):
        """Reconstruction under random masks, the same ones for every run and step."""
        nothing = jnp.zeros_like(batch["id"])
        keys = example_keys(jax.random.key(0), nothing, batch["id"], "evaluation")
        _, _, error = forward(params, batch, keys, 0, scores="random")
        return error._asdict()

    def features(params, images):
        inputs = image_inputs(config, images)
        embedded = model.embed(params["model"], inputs)
        encoded = model.encode(params["model"], embedded, inputs.valid)
        return jnp.asarray(encoded.states, jnp.float32).mean(1)

    of_images = "inputs" not in run.facts
    hidden = int(rounded_share(jnp.array([shape.length]), ratio)[0])
    macs = forward_macs(model.encoder, model.decoder, shape.length - hidden)
    return Method(
        init=lambda key: {"model": model.init(key)},
        updates=(Update(("model",), descend(("model",), loss), adamw_of(config, run)),),
        features={"encoder": features} if of_images else {},
        encoder=lambda params: params["model"]["encoder"],
        flops=lambda phase: train_flops(macs),
        picture=picture,
        answer=None if of_images else answer,
    )
