"""CL-MAE: masks from a network that first helps and later hinders the autoencoder.

Every step, the autoencoder learns to fill what the masking network hides; then the
masking network, its masks now soft, learns to lower that loss (at the beginning of the
run) or to raise it (at the end).

Reference: Madan et al., CL-MAE: Curriculum-Learned Masked Autoencoders (WACV 2024);
ristea/cl-mae. The paper's text was not at hand; see docs/cl_mae.md.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import rel_entr
from jaxtyping import Array, Float, Int

from sgmae_jax import rules
from sgmae_jax.config import ConfigError
from sgmae_jax.masking import Mask, example_keys, num_keep, select
from sgmae_jax.methods.base import Method, Picture, Run, Update, descend
from sgmae_jax.methods.image import (
    Masking,
    adamw_of,
    check_own_masks,
    forward_macs,
    make_autoencoder,
    pooled_features,
    training_flops,
)
from sgmae_jax.methods.pixels import pixel_targets, reconstruction_loss
from sgmae_jax.models.curriculum_masker import CurriculumMasker
from sgmae_jax.models.macs import transformer_macs
from sgmae_jax.models.presets import encoder_size
from sgmae_jax.rules import Field, boolean, choice, integer, number, optional

FIELDS = {
    "name": Field("cl_mae", rules.name, "this method"),
    "norm_pix": Field(
        False, boolean, "predict each patch's pixels by its own mean and deviation"
    ),
    "masker_depth": Field(5, integer(1), "blocks of the masking network"),
    "masker_heads": Field(4, integer(1), "its heads; its width is the encoder's"),
    "curriculum": Field(
        "linear", choice("linear", "staircase"), "staircase: by epoch, as released"
    ),
    "gauss_weight": Field(1.0, number(0), "pushes keep scores away from 1/2"),
    "kl_weight": Field(25.6, number(0), "holds their mean at the share kept"),
    # Deviation: theirs is the sum over a batch of 256, with weight 0.1.
    "kl_reduction": Field("mean", choice("mean", "sum"), "sum: as released"),
    "keep_ratio": Field(
        None,
        optional(number(0, 1, low_open=True, high_open=True)),
        "what the mean is held at; None: 1 - mask.ratio; released: 0.25",
    ),
    "diversity_weight": Field(2.0, number(0), "tells the masks of images apart"),
    "weight_gradient": Field(True, boolean, "through the weights of the loss, too"),
    "noise": Field(0.0, number(0), "Gumbel noise on the scores of hard masks"),
}
_SPREAD = 0.12  # of the Gaussian around 1/2
_SCALE = 0.1  # of distances between masks


def check(config) -> None:
    """What the fields of this method must agree on with others.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    check_own_masks(config)
    part = config.model
    width = encoder_size(part.preset, part.width, part.depth, part.heads).width
    if width % config.method.masker_heads:
        raise ConfigError(
            f"config.method.masker_heads = {config.method.masker_heads}: must divide "
            f"the encoder's width, {width}"
        )


def build(config, run: Run) -> Method:
    """The method as a config describes it, for a run of known length."""
    model = make_autoencoder(config)
    ratio_at = Masking(config, run).ratio_at
    part, encoder = config.method, model.encoder
    masker = CurriculumMasker(
        grid=model.grid,
        width=encoder.width,
        depth=part.masker_depth,
        heads=part.masker_heads,
        dtype=encoder.dtype,
        attention=encoder.attention,
        unroll=encoder.unroll,
        remat=encoder.remat,
    )

    def init(key):
        first, second = jax.random.split(key)
        tokens = jnp.zeros((1, encoder.tokens, encoder.width))
        masking = masker.init(second, tokens)["params"]
        return {"model": model.init(first), "masker": masking}

    def keep_scores(params, images):
        """The masking network reads the autoencoder's own tokens, as constants."""
        tokens = jax.lax.stop_gradient(model.embed(params["model"], images))
        return tokens, masker.apply({"params": params["masker"]}, tokens)

    def fill(params, batch, key, ratio):
        """The autoencoder under hard masks."""
        images = model.normalise(batch["image"])
        _, scores = keep_scores(params, images)
        if part.noise:
            keys = example_keys(key, batch["epoch"], batch["id"], "mask noise")
            draw = jax.vmap(lambda one: jax.random.gumbel(one, scores.shape[1:]))
            scores = scores + part.noise * draw(keys)
        mask = select(-scores, num_keep(encoder.tokens, ratio))
        tokens = model.embed(params["model"], images)
        return images, mask, model.predict(params["model"], tokens, mask).tokens

    def error(prediction, images, weight):
        pixels = pixel_targets(images, model.patch_size, norm_pix=part.norm_pix)
        return reconstruction_loss(prediction, pixels, weight)

    def model_loss(params, batches, key, step, ratio):
        del step
        images, mask, prediction = fill(params, batches["train"], key, ratio)
        return error(prediction, images, mask.loss_weight), {}

    def masker_loss(params, batches, key, step, ratio):
        del key
        images = model.normalise(batches["train"]["image"])
        tokens, scores = keep_scores(params, images)
        mask = soft_mask(scores, weight_gradient=part.weight_gradient)
        prediction = model.predict(params["model"], tokens, mask).tokens
        reconstruction = error(prediction, images, mask.loss_weight)
        kept = part.keep_ratio or 1 - ratio
        divergence = keep_divergence(scores, kept)
        kl = divergence.mean() if part.kl_reduction == "mean" else divergence.sum()
        terms = {
            "gauss": part.gauss_weight * indecision(scores),
            "kl": part.kl_weight * kl,
            "diversity": part.diversity_weight * likeness(scores),
        }
        factor = curriculum(step, run, part.curriculum)
        entropy = -(scores * jnp.log(scores) + (1 - scores) * jnp.log1p(-scores))
        return factor * reconstruction + sum(terms.values()), {
            "reconstruction": reconstruction,
            **terms,
            "curriculum": factor,
            "keep_ratio": scores.mean(),
            "entropy": jnp.nan_to_num(entropy).mean(),
        }

    def picture(params, batch, key, step, ratio):
        del step
        _, mask, prediction = fill(params, batch, key, ratio)
        return Picture(mask.hidden, prediction)

    def flops(ratio):
        tokens = encoder.tokens
        masking = tokens * encoder.width + transformer_macs(
            tokens + 1, width=encoder.width, depth=masker.depth
        )
        # Twice forward and once backward; whole images through the autoencoder, with
        # derivatives of its activations only.
        return training_flops(model, ratio) + 8 * masking + 4 * forward_macs(model, 0.0)

    optimizer = adamw_of(config, run)
    return Method(
        init=init,
        updates=(
            Update(("model",), descend(("model",), model_loss), optimizer),
            Update(
                ("masker",),
                descend(("masker",), masker_loss),
                optimizer,
                name="masker",
            ),
        ),
        features={"encoder": pooled_features(model, config.eval.pool)},
        encoder=lambda params: params["model"]["encoder"],
        decoder=lambda params: params["model"]["decoder"],
        flops=flops,
        picture=picture,
        norm_pix=part.norm_pix,
        phase=ratio_at,
    )


def curriculum(step: Int[Array, ""] | int, run: Run, kind: str) -> Float[Array, ""]:
    """What the reconstruction loss is multiplied by for the masking network.

    Args:
        step: from 0.
        run: its length.
        kind: "linear", 1 - 2 step / total_steps; or "staircase", the same by epoch e
            of E: 1 - 2e/E in the first half, then 1 - 2(e+1)/E, so that the last
            epoch has exactly -1.

    Reference: ristea/cl-mae main_pretrain.py.
    """
    if kind == "linear":
        return 1 - 2 * jnp.asarray(step, jnp.float32) / run.total_steps
    epochs = -(-run.total_steps // run.steps_per_epoch)
    epoch = jnp.asarray(step) // run.steps_per_epoch
    late = 2 * epoch >= epochs
    return 1 - 2 * (epoch + late).astype(jnp.float32) / epochs


def soft_mask(scores: Float[Array, "B N"], *, weight_gradient: bool) -> Mask:
    """All tokens visible, dimmed by their keep score; the dim ones count in the loss.

    Args:
        scores: m, in (0, 1).
        weight_gradient: whether the weights 1 - m carry a gradient too.
    """
    everything = select(jnp.zeros(scores.shape), scores.shape[1])
    weight = 1 - scores
    if not weight_gradient:
        weight = jax.lax.stop_gradient(weight)
    return everything._replace(gate=scores, loss_weight=weight)


def indecision(scores: Float[Array, "B N"]) -> Float[Array, ""]:
    """Mean of a bump around 1/2: 0.3008 there, below 1e-4 at 0 and 1.

    The bump is divided by the peak of the normal density of deviation 0.12, where a
    density would be multiplied by it; so it is in the authors' code.
    """
    peak = 1 / (_SPREAD * jnp.sqrt(2 * jnp.pi))
    return jnp.mean(jnp.exp(-((scores - 0.5) ** 2) / (2 * _SPREAD**2))) / peak


def keep_divergence(scores: Float[Array, "B N"], kept: float) -> Float[Array, " B"]:
    """KL from a coin that lands with an image's mean score to one with `kept`."""
    mean = scores.mean(-1)
    return rel_entr(mean, kept) + rel_entr(1 - mean, 1 - kept)


def likeness(scores: Float[Array, "B N"]) -> Float[Array, ""]:
    """Mean of exp(-distance / 10) over all pairs of images; 0 for a single one."""
    count = len(scores)
    if count < 2:
        return jnp.zeros(())
    # Distances do not change, and the products lose less to rounding.
    centred = scores - scores.mean(0)
    products = jnp.matmul(centred, centred.T, precision="highest")
    norms = jnp.diagonal(products)
    squares = norms[:, None] + norms[None] - 2 * products
    # The root has no derivative at 0, where a pair is alike (or one and the same).
    apart = (squares > 0) & ~jnp.eye(count, dtype=bool)
    distances = jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1)), 0)
    likeness = jnp.exp(-_SCALE * distances)
    return (likeness.sum() - count) / (count * (count - 1))
