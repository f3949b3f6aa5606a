"""LC-MAE: the loss of MAE taken apart, as one image is seen under two masks.

For a patch hidden in both, with y and y' predicted and x true,
  (|y - x|^2 + |y' - x|^2) / 2 = |(y + y') / 2 - x|^2 + |y - y'|^2 / 4 :
MAE asks that one place looks alike under two masks (alignment), and that the mean over
masks sits on the image (consistency), in the fixed proportion 1/4 to 1. Here both have
weights, and negatives can be added.

Reference: Yue et al., Understanding Masked Autoencoders From a Local Contrastive
Perspective (arXiv 2310.01994). Its body and code were not at hand: what is sourced, and
what is our reading, says docs/lc_mae.md.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from sgmae_jax import rules
from sgmae_jax.config import ConfigError, grid_of
from sgmae_jax.masking import Mask, num_keep, select
from sgmae_jax.methods.base import Method, Picture, Run, Stream, Update, descend
from sgmae_jax.methods.contrast import (
    alignment,
    consistency,
    info_nce,
    uniformity,
    variance_share,
)
from sgmae_jax.methods.image import (
    Masking,
    adamw_of,
    forward_macs,
    make_autoencoder,
    pooled_features,
)
from sgmae_jax.methods.pixels import pixel_targets, reconstruction_loss
from sgmae_jax.models import Autoencoder
from sgmae_jax.models.decoder import unshuffle
from sgmae_jax.models.layers import at_least_float32, layer_norm
from sgmae_jax.models.macs import train_flops
from sgmae_jax.models.points import (
    centres,
    from_source,
    inside,
    sample_tokens,
    to_source,
)
from sgmae_jax.rules import Field, boolean, choice, integer, number, optional

_RATIO = optional(number(0, 1, high_open=True))
FIELDS = {
    "name": Field("lc_mae", rules.name, "this method"),
    "norm_pix": Field(
        True, boolean, "predict each patch's pixels by its own mean and deviation"
    ),
    # a, b and c of the loss; (1/4, 1, 0) is MAE on the patches hidden twice.
    "align_weight": Field(0.25, number(0), "of the alignment under two masks"),
    "consistency_weight": Field(1.0, number(0), "of the consistency with the image"),
    "negative_weight": Field(0.0, number(0), "of the negatives"),
    "negative": Field(
        "none", choice("none", "infonce", "uniformity"), "of patches; of class tokens"
    ),
    "temperature": Field(0.2, number(0, low_open=True), "of infonce"),
    "negative_images": Field(8, integer(1), "whose patches infonce tells apart"),
    "align_on": Field(
        "pixels",
        choice("pixels", "decoder", "encoder"),
        "predictions; tokens below them; encoder tokens of patches visible twice",
    ),
    "stop_gradient": Field(False, boolean, "the second branch is a constant"),
    "ratio": Field(None, _RATIO, "hidden in the first branch; None: mask.ratio"),
    "other_ratio": Field(None, _RATIO, "in the second; 0: nothing, all is predicted"),
    "other_view": Field(
        "same", choice("same", "crop"), "what the second branch sees of an image"
    ),
}


class Branch(NamedTuple):
    """One masked look at a batch.

    Attributes:
        prediction: of every patch.
        counted: 1 where the prediction counts: hidden, or anywhere if nothing is.
        tokens: where alignment is measured, f32 of any width.
        aligned: 1 where tokens may be compared.
        cls: the class token after the encoder's last norm.
    """

    prediction: Float[Array, "B N P"]
    counted: Float[Array, "B N"]
    tokens: Float[Array, "B N D"]
    aligned: Float[Array, "B N"]
    cls: Float[Array, "B D"]


def look(
    model: Autoencoder,
    params: PyTree,
    images: Float[Array, "B H W C"],
    mask: Mask,
    *,
    align_on: str = "pixels",
) -> Branch:
    """Encodes what a mask leaves of images, and predicts all of them.

    Args:
        model: the autoencoder.
        params: of it.
        images: normalised.
        mask: one that hides nothing counts all patches.
        align_on: see `FIELDS`.
    """
    capture = ("features",) if align_on == "decoder" else ()
    embedded = model.embed(params, images)
    found = model.predict(params, embedded, mask, capture=capture)
    nothing_hidden = mask.ids_keep.shape[1] == mask.hidden.shape[1]
    counted = jnp.ones_like(mask.hidden) if nothing_hidden else mask.hidden
    tokens, aligned = found.tokens, counted
    if align_on == "encoder":
        kept = at_least_float32(found.latent[:, 1:])
        tokens = unshuffle(kept, jnp.zeros(kept.shape[-1]), mask)
        aligned = 1 - mask.hidden
    elif align_on == "decoder":
        decoder = model.decoder
        norm = layer_norm(decoder.dtype, None, decoder.norm_eps)
        last = found.captured["decoder"]["features"][-1]
        normed = norm.apply({"params": params["decoder"]["norm"]}, last)
        tokens = at_least_float32(jnp.asarray(normed)[:, 1:])
    return Branch(found.tokens, counted, tokens, aligned, found.latent[:, 0])


def check(config) -> None:
    """What the fields of this method must agree on with others.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    part = config.method

    def need(good: bool, field: str, words: str) -> None:
        if not good:
            raise ConfigError(f"config.method.{field} = {part[field]!r}: must {words}")

    weights = part.align_weight, part.consistency_weight, part.negative_weight
    need(any(weights), "align_weight", "be > 0, or another weight, or nothing is asked")
    need(
        (part.negative == "none") == (part.negative_weight == 0),
        "negative_weight",
        f"be > 0 exactly where negative names some, is {part.negative!r}",
    )
    size = config.data.batch_size // config.optim.accumulate
    need(
        part.negative != "infonce" or size % part.negative_images == 0,
        "negative_images",
        f"divide the batch of {size} images",
    )
    need(
        part.other_view == "same" or part.align_on != "pixels" or not weights[0],
        "align_on",
        "be decoder or encoder where other_view = 'crop': pixels of two crops of "
        "different sizes are not the same",
    )
    need(
        part.align_on != "decoder" or config.model.decoder_depth > 0,
        "align_on",
        "not be decoder where model.decoder_depth = 0",
    )
    height, width = grid_of(config)
    tokens = height * width
    for field in ("ratio", "other_ratio"):
        ratio = part[field]
        need(
            not ratio or 1 <= num_keep(tokens, ratio) < tokens,
            field,
            f"be 0, or keep and hide at least one of {tokens} tokens",
        )


def streams(config):
    """One, of two crops an image where the branches see different ones."""
    return {"train": Stream(pairs=config.method.other_view == "crop")}


def build(config, run: Run) -> Method:
    """The method as a config describes it, for a run of known length."""
    part = config.method
    model = make_autoencoder(config)
    masking = Masking(config, run)

    def phase(step, marks):
        usual = masking.ratio_at(step, marks)
        own = part.ratio, part.other_ratio
        return tuple(usual if ratio is None else ratio for ratio in own)

    def hide(params, images, batch, key, step, ratio, purpose):
        if not ratio:
            tokens = model.encoder.tokens
            return select(jnp.zeros((len(images), tokens)), tokens)
        return masking(model, params, images, batch, key, step, ratio, purpose=purpose)

    def first(params, batch, key, step, ratios):
        images = model.normalise(batch["image"])
        mask = hide(params["model"], images, batch, key, step, ratios[0], "mask")
        branch = look(model, params["model"], images, mask, align_on=part.align_on)
        return images, mask, branch

    def second(params, batch, key, step, ratios):
        crop = part.other_view == "crop"
        images = model.normalise(batch["other_image" if crop else "image"])
        mask = hide(params["model"], images, batch, key, step, ratios[1], "other mask")
        branch = look(model, params["model"], images, mask, align_on=part.align_on)
        return images, jax.lax.stop_gradient(branch) if part.stop_gradient else branch

    def targets(images):
        return pixel_targets(images, model.patch_size, norm_pix=part.norm_pix)

    def loss(params, batches, key, step, ratios):
        batch = batches["train"]
        images, _, one = first(params, batch, key, step, ratios)
        others, two = second(params, batch, key, step, ratios)
        if part.other_view == "crop":
            terms = _of_two_crops(
                model, batch, one, two, targets(images), targets(others)
            )
        else:
            terms = of_one_crop(one, two, targets(images))
        total = (
            part.align_weight * terms["alignment"]
            + part.consistency_weight * terms["consistency"]
        )
        if part.negative != "none":
            terms["negatives"] = _negatives(part, one, two, targets(images))
            total += part.negative_weight * terms["negatives"]
        return total, terms

    def picture(params, batch, key, step, ratios):
        _, mask, branch = first(params, batch, key, step, ratios)
        return Picture(mask.hidden, branch.prediction)

    def flops(ratios):
        return train_flops(sum(forward_macs(model, ratio) for ratio in ratios))

    return Method(
        init=lambda key: {"model": model.init(key)},
        updates=(Update(("model",), descend(("model",), loss), adamw_of(config, run)),),
        features={"encoder": pooled_features(model, config.eval.pool)},
        encoder=lambda params: params["model"]["encoder"],
        decoder=lambda params: params["model"]["decoder"],
        flops=flops,
        picture=picture,
        norm_pix=part.norm_pix,
        phase=phase,
    )


def of_one_crop(
    one: Branch, two: Branch, target: Float[Array, "B N P"]
) -> dict[str, Array]:
    """Alignment and consistency of two looks at the same crop, and what goes with them.

    Patches count that are predicted in both. "variance_share" is that of predictions,
    wherever alignment is measured.
    """
    both = one.counted * two.counted
    of_pixels = alignment(one.prediction, two.prediction, both)
    mean = consistency(one.prediction, two.prediction, target, both)
    return {
        "alignment": alignment(one.tokens, two.tokens, one.aligned * two.aligned),
        "consistency": mean,
        "variance_share": variance_share(of_pixels, mean),
    }


def _of_two_crops(model, batch, one, two, target, other_target) -> dict[str, Array]:
    """Alignment at the same points of the image; each crop consistent with itself.

    The mean of predictions of different patches has no target, so consistency is the
    mean of the two branches' own errors: our reading.
    """
    points = to_source(jnp.asarray(centres(model.grid)), batch["view"])
    points = from_source(points, batch["other_view"])
    there, share = sample_tokens(two.tokens, points, model.grid, two.aligned)
    weight = one.aligned * share * inside(points)
    errors = [
        reconstruction_loss(branch.prediction, wanted, branch.counted)
        for branch, wanted in ((one, target), (two, other_target))
    ]
    return {
        "alignment": alignment(one.tokens, there, weight),
        "consistency": (errors[0] + errors[1]) / 2,
        "overlap": inside(points).mean(),
    }


def _negatives(part, one: Branch, two: Branch, target) -> Array:
    """Of the first branch's patches, or of both branches' class tokens."""
    if part.negative == "uniformity":
        return (uniformity(one.cls) + uniformity(two.cls)) / 2
    return info_nce(
        one.prediction,
        target,
        one.counted,
        temperature=part.temperature,
        images=part.negative_images,
    )
