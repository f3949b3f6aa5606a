"""A local Siamese network: two crops, the same points, no mask and no decoder.

Patch tokens of both crops are read at points that both show and sent through a
projector; a point must find itself in the other crop among other points (InfoNCE), or
be described alike by a moving average of the network (EMA, with centred softmax).

Reference: the abstract of Yue et al. (arXiv 2310.01994, v1) has a Siamese architecture
without masking and without explicit decoder; what it looks like was not at hand, and
this one is ours, out of DINO's and SimCLR's parts. It is not the paper's.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from sgmae_jax import rules
from sgmae_jax.config import ConfigError
from sgmae_jax.masking.relations import unit
from sgmae_jax.methods.base import Method, Run, Stream, Update, descend
from sgmae_jax.methods.contrast import info_nce
from sgmae_jax.methods.image import (
    adamw_of,
    check_own_masks,
    make_autoencoder,
    pooled_features,
    whole_macs,
)
from sgmae_jax.methods.rc_mae import momentum_at
from sgmae_jax.models.layers import Linear, at_least_float32
from sgmae_jax.models.macs import train_flops
from sgmae_jax.models.points import common_points, from_source, sample_tokens
from sgmae_jax.rules import Field, choice, integer, number

FIELDS = {
    "name": Field("local_siamese", rules.name, "this method"),
    "target": Field("infonce", choice("infonce", "ema"), "negatives, or a teacher"),
    "points": Field(4, integer(1), "along each side of what both crops show"),
    "hidden": Field(2048, integer(1), "width of the projector's two hidden layers"),
    "out": Field(256, integer(2), "width it ends with"),
    # InfoNCE.
    "temperature": Field(0.2, number(0, low_open=True), "of infonce"),
    "negative_images": Field(8, integer(1), "whose points infonce tells apart"),
    # EMA teacher, after DINO.
    "momentum": Field(0.996, number(0, 1), "of the teacher at step 0; cosine to 1"),
    "student_temperature": Field(0.1, number(0, low_open=True), "of its softmax"),
    "teacher_temperature": Field(0.04, number(0, low_open=True), "of its softmax"),
    "center_momentum": Field(0.9, number(0, 1), "of the mean taken off the teacher"),
}


class Projector(nn.Module):
    """Three dense layers with GELU between them."""

    hidden: int
    out: int

    @nn.compact
    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows out"]:
        for index in range(2):
            x = nn.gelu(Linear(self.hidden, name=f"fc{index + 1}")(x))
        return Linear(self.out, name="fc3")(x)


def check(config) -> None:
    """What the fields of this method must agree on with others.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    check_own_masks(config)
    part = config.method
    size = config.data.batch_size // config.optim.accumulate
    if part.target == "infonce" and size % part.negative_images:
        raise ConfigError(
            f"config.method.negative_images = {part.negative_images}: must divide the "
            f"batch of {size} images"
        )


def streams(config):
    """One, of two crops an image."""
    del config
    return {"train": Stream(pairs=True)}


def build(config, run: Run) -> Method:
    """The method as a config describes it, for a run of known length."""
    part = config.method
    model = make_autoencoder(config)
    projector = Projector(part.hidden, part.out)
    has_teacher = part.target == "ema"

    def init(key):
        first, second = jax.random.split(key)
        encoder = {"encoder": model.init(first)["encoder"]}
        tokens = jnp.zeros((1, model.encoder.width))
        head = projector.init(second, tokens)["params"]
        params = {"model": encoder, "projector": head}
        if has_teacher:
            params["teacher"] = {"model": encoder, "projector": head}
            params["center"] = jnp.zeros(part.out)
        return params

    def describe(params, images, points, view):
        """The projector's words for points of the source image, [B, M, out]."""
        patches = model.encode(params["model"], images).patches
        tokens = at_least_float32(patches)
        sampled, _ = sample_tokens(tokens, from_source(points, view), model.grid)
        return jnp.asarray(projector.apply({"params": params["projector"]}, sampled))

    def both(params, batch):
        """Both crops' words for the same points, and 1 where these count."""
        views = batch["view"], batch["other_view"]
        points, overlap = common_points(*views, part.points)
        words = [
            describe(params, model.normalise(images), points, view)
            for images, view in zip(
                (batch["image"], batch["other_image"]), views, strict=True
            )
        ]
        weight = jnp.broadcast_to(overlap[:, None], points.shape[:2])
        return words, weight.astype(jnp.float32)

    def prepare(params, batches, key, step, phase):
        """The teacher's words, centred; the centre follows them."""
        del key, step, phase
        if not has_teacher:
            return params, batches, {}
        batch = batches["train"]
        words, weight = both(params["teacher"], batch)
        words = jnp.stack(words, 1)
        targets = jax.nn.softmax((words - params["center"]) / part.teacher_temperature)
        counted = weight[:, None, :, None]
        total = jnp.maximum(counted.sum() * words.shape[1], 1)
        mean = (words * counted).sum((0, 1, 2)) / total
        center = optax.incremental_update(
            mean, params["center"], 1 - part.center_momentum
        )
        batches = {**batches, "train": {**batch, "targets": targets}}
        return {**params, "center": center}, batches, {}

    def loss(params, batches, key, step, phase):
        del key, step, phase
        batch = batches["train"]
        (one, two), weight = both(params, batch)
        total = jnp.maximum(weight.sum(), 1)
        found = {
            "alignment": ((unit(one) * unit(two)).sum(-1) * weight).sum() / total,
            "overlap": weight.mean(),
        }
        if not has_teacher:
            pairs = ((one, two), (two, one))
            losses = [
                info_nce(
                    *pair,
                    weight,
                    temperature=part.temperature,
                    images=part.negative_images,
                )
                for pair in pairs
            ]
        else:
            targets = batch["targets"]
            losses = [
                (_cross_entropy(words, wanted, part) * weight).sum() / total
                for words, wanted in ((one, targets[:, 1]), (two, targets[:, 0]))
            ]
        return sum(losses) / 2, found

    def follow(params, step):
        """After a step, `step` of which are done: the teacher moves."""
        if not has_teacher:
            return {}
        momentum = momentum_at(
            step - 1,
            start=part.momentum,
            total_steps=run.total_steps,
            schedule="cosine",
        )
        student = {name: params[name] for name in ("model", "projector")}
        teacher = optax.incremental_update(student, params["teacher"], 1 - momentum)
        return {"teacher": teacher}

    own = ("model", "projector")
    width, out = model.encoder.width, part.out
    head = part.points**2 * (part.hidden * (width + part.hidden + out))
    macs = 2 * (whole_macs(model, model.encoder.depth) + head)
    return Method(
        init=init,
        updates=(Update(own, descend(own, loss), adamw_of(config, run)),),
        features={"encoder": pooled_features(model, config.eval.pool)},
        encoder=lambda params: params["model"]["encoder"],
        flops=lambda phase: train_flops(macs) + (2 * macs if has_teacher else 0),
        prepare=prepare,
        post_update=follow,
    )


def _cross_entropy(words: Array, wanted: Array, part) -> Float[Array, "B M"]:
    found = jax.nn.log_softmax(words / part.student_temperature)
    return -(wanted * found).sum(-1)
