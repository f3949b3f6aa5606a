"""AutoMAE: a generator of masks, taught by the autoencoder and by a discriminator.

A frozen encoder of an earlier run shows where its class token attends. A small network
makes of this a distribution over the patches, a soft sample of which (Gumbel-softmax)
says what is hidden for certain. A discriminator wants the sample to look like a noisy
rectangle; the autoencoder's loss reaches it through the tokens that stay visible.

Reference: Chen et al., Improving Masked Autoencoders by Learning Where to Mask (PRCV
2023); hyperea/automae. The paper's text was not at hand; see docs/automae.md.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgmae_jax import rules
from sgmae_jax.config import ConfigError, grid_of
from sgmae_jax.masking import boosted_mask, example_keys, gumbel_softmax, num_keep
from sgmae_jax.masking import rectangle_maps as rectangles
from sgmae_jax.methods.base import Method, Picture, Run, Update, descend
from sgmae_jax.methods.frozen import frozen_config, frozen_model, read_frozen
from sgmae_jax.methods.image import (
    Masking,
    adamw_of,
    check_own_masks,
    make_autoencoder,
    pooled_features,
    training_flops,
    whole_macs,
)
from sgmae_jax.methods.pixels import pixel_targets, reconstruction_loss
from sgmae_jax.models.mask_gan import SMALLEST_GRID, MaskDiscriminator, MaskGenerator
from sgmae_jax.rules import Field, boolean, choice, integer, interval, number, optional

FIELDS = {
    "name": Field("automae", rules.name, "this method"),
    "norm_pix": Field(
        True, boolean, "predict each patch's pixels by its own mean and deviation"
    ),
    "scorer": Field("", rules.path, "the first stage: a run or an exported encoder"),
    "generator_channels": Field(
        None, optional(integer(1)), "hidden; None: half of the scorer's heads"
    ),
    # At 1/N an attention is far below the generator's first biases, which then decide.
    "attention_scale": Field(
        "tokens", choice("tokens", "none"), "tokens: times N; none: as released"
    ),
    "temperature": Field(1.0, number(0, low_open=True), "of the Gumbel-softmax"),
    "temperature_end": Field(
        None, optional(number(0, low_open=True)), "at the end; None: constant"
    ),
    "boost": Field(0.5, number(0), "of the patches the sample prefers, beside U(0, 1)"),
    "adversarial_weight": Field(0.2, number(0), "of the discriminator's verdict"),
    "rectangle_strength": Field(0.5, number(0), "inside over outside, with U(0, 1)"),
    "rectangle_area": Field(
        (40 / 196, 160 / 196), interval(0, 1, low_open=True), "share of all patches"
    ),
    "rectangle_width": Field(
        (4 / 14, 10 / 14), interval(0, 1, low_open=True), "share of the grid's width"
    ),
}
# The authors' passes through the discriminator, each with one power iteration.
_PASSES = 3


def check(config) -> None:
    """What the fields of this method must agree on with others.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    check_own_masks(config)
    part = config.method
    if min(grid_of(config)) < SMALLEST_GRID:
        raise ConfigError(
            f"config.data.image_size = {config.data.image_size}: must give a grid of "
            f"at least {SMALLEST_GRID}x{SMALLEST_GRID} patches, not {grid_of(config)}"
        )
    if not part.scorer:
        raise ConfigError(
            "config.method.scorer = '': must name the first stage, a run directory "
            "with checkpoints (of MAE, say) or an exported encoder"
        )
    frozen(config)


def frozen(config):
    """The first stage."""
    return {"scorer": frozen_config(config, "method.scorer")}


def build(config, run: Run) -> Method:
    """The method as a config describes it, for a run of known length."""
    model = make_autoencoder(config)
    ratio_at = Masking(config, run).ratio_at
    part, tokens = config.method, model.encoder.tokens
    scorer = frozen_model(run.frozen["scorer"])
    heads = scorer.encoder.heads
    generator = MaskGenerator(model.grid, part.generator_channels or max(heads // 2, 1))
    discriminator = MaskDiscriminator(model.grid)

    def init(key):
        first, second, third, fourth = jax.random.split(key, 4)
        attention = jnp.zeros((1, heads, tokens))
        kernels, vectors = discriminator.begin(third)
        return {
            "model": model.init(first),
            "generator": generator.init(second, attention)["params"],
            "discriminator": kernels,
            "spectral": vectors,
            "scorer": {"encoder": scorer.init(fourth)["encoder"]},
        }

    def given():
        return {"scorer": {"encoder": read_frozen(config, "method.scorer", scorer)}}

    def prepare(params, batches, key, step, phase):
        """Adds "attention" f32[B,H,N]: from the scorer's class token, last layer."""
        del key, step, phase
        batch = batches["train"]
        last = scorer.layer(params["scorer"], batch["image"], -1)
        attention = last.attention[:, :, 0, 1:]
        if part.attention_scale == "tokens":
            attention = attention * tokens
        return params, {"train": {**batch, "attention": attention}}, {}

    def draws(batch, key, purpose, draw):
        keys = example_keys(key, batch["epoch"], batch["id"], purpose)
        return jax.vmap(lambda one: draw(one, (tokens,)))(keys)

    def sample(params, batch, key, step, purpose):
        """A soft sample of the generator, f32[B,N]."""
        logits = generator.apply({"params": params["generator"]}, batch["attention"])
        gumbel = draws(batch, key, purpose, jax.random.gumbel)
        return gumbel_softmax(jnp.asarray(logits), gumbel, temperature(step))

    def temperature(step):
        end = part.temperature if part.temperature_end is None else part.temperature_end
        return part.temperature * (end / part.temperature) ** (step / run.total_steps)

    def forward(params, batch, key, step, ratio):
        images = model.normalise(batch["image"])
        soft = sample(params, batch, key, step, "mask")
        noise = draws(batch, key, "mask noise", jax.random.uniform)
        mask = boosted_mask(
            soft, noise, num_keep=num_keep(tokens, ratio), boost=part.boost
        )
        embedded = model.embed(params["model"], images)
        prediction = model.predict(params["model"], embedded, mask).tokens
        return images, soft, mask, prediction

    def discriminator_loss(params, batches, key, step, ratio):
        del ratio
        batch = batches["train"]
        real = rectangles(
            example_keys(key, batch["epoch"], batch["id"], "rectangle"),
            model.grid,
            area=tuple(part.rectangle_area),
            length=tuple(part.rectangle_width),
            strength=part.rectangle_strength,
        )
        fake = sample(params, batch, key, step, "fake mask")
        kernels, vectors = params["discriminator"], params["spectral"]
        of_real, vectors = discriminator.scores(kernels, vectors, real)
        of_fake, _ = discriminator.scores(kernels, vectors, fake)
        value = least_squares(of_real, 1.0) + least_squares(of_fake, 0.0)
        return value, {"real": of_real.mean(), "fake": of_fake.mean()}

    def model_loss(params, batches, key, step, ratio):
        images, soft, mask, prediction = forward(
            params, batches["train"], key, step, ratio
        )
        pixels = pixel_targets(images, model.patch_size, norm_pix=part.norm_pix)
        reconstruction = reconstruction_loss(prediction, pixels, mask.loss_weight)
        verdict, _ = discriminator.scores(
            params["discriminator"], params["spectral"], soft
        )
        adversarial = least_squares(verdict, 1.0)
        return reconstruction + part.adversarial_weight * adversarial, {
            "reconstruction": reconstruction,
            "adversarial": adversarial,
            "entropy": entropy(soft).mean(),
            "peak": soft.max(-1).mean(),
            "temperature": jnp.asarray(temperature(step), jnp.float32),
            "keep_ratio": 1 - mask.hidden.mean(),
        }

    def follow(params, step):
        """After a step: as many power iterations as the authors make in one."""
        del step
        nothing = jnp.zeros((1, tokens))
        vectors = params["spectral"]
        for _ in range(_PASSES):
            _, vectors = discriminator.scores(params["discriminator"], vectors, nothing)
        return {"spectral": vectors}

    def picture(params, batch, key, step, ratio):
        _, batches, _ = prepare(params, {"train": batch}, key, step, ratio)
        found = forward(params, batches["train"], key, step, ratio)
        return Picture(found[2].hidden, found[3])

    own = ("model", "generator")
    return Method(
        init=init,
        updates=(
            Update(
                ("discriminator",),
                descend(("discriminator",), discriminator_loss),
                adamw_of(config, run, weight_decay=0.0),
                name="discriminator",
            ),
            Update(own, descend(own, model_loss), adamw_of(config, run)),
        ),
        features={"encoder": pooled_features(model, config.eval.pool)},
        encoder=lambda params: params["model"]["encoder"],
        decoder=lambda params: params["model"]["decoder"],
        # Generator and discriminator are below 0.1 % and not counted.
        flops=lambda ratio: (
            training_flops(model, ratio) + 2 * whole_macs(scorer, scorer.encoder.depth)
        ),
        picture=picture,
        norm_pix=part.norm_pix,
        prepare=prepare,
        post_update=follow,
        phase=ratio_at,
        given=given,
    )


def least_squares(scores: Float[Array, " B"], wanted: float) -> Float[Array, ""]:
    """Mean squared distance of the discriminator's scores from what is wanted.

    Reference: Mao et al., Least Squares Generative Adversarial Networks (2017).
    """
    return jnp.mean(jnp.square(scores - wanted))


def entropy(sample: Float[Array, "B N"]) -> Float[Array, " B"]:
    """In nats, from 0 (one patch has all) to log N (all alike)."""
    return -jax.scipy.special.xlogy(sample, sample).sum(-1)
