"""dBOT: predict what a frozen teacher makes of the whole image, then take its place.

Training goes in stages. In each, a student that begins anew predicts the teacher's
features of the class token and of the hidden patches; at its end the student's encoder
is the next teacher. The first teacher may be random: it is the student's own beginning.

Reference: Liu et al., Exploring Target Representations for Masked Autoencoders (ICLR
2024); liuxingbin/dbot, branch main.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from sgmae_jax import rules
from sgmae_jax.config import ConfigError
from sgmae_jax.masking import example_keys
from sgmae_jax.methods.base import Method, Picture, Run, Stage, Update, descend
from sgmae_jax.methods.frozen import frozen_config, frozen_model, read_frozen
from sgmae_jax.methods.image import (
    Masking,
    adamw_of,
    make_autoencoder,
    pooled_features,
    training_flops,
    whole_macs,
)
from sgmae_jax.models import normalise_patches
from sgmae_jax.models.layers import at_least_float32, drop_path_scales
from sgmae_jax.rules import Field, boolean, choice, integer, number


def depths(value: Any) -> str | None:
    """None, or a number of blocks (None: all of them) for each stage."""
    good = value is None or (
        isinstance(value, tuple | list)
        and all(one is None or integer(0)(one) is None for one in value)
    )
    return None if good else "None, or one depth a stage: each None (all) or >= 0"


FIELDS = {
    "name": Field("dbot", rules.name, "this method"),
    "stages": Field(2, integer(1), "of equal length; the schedule restarts in each"),
    "teacher": Field("", rules.path, "a run or an exported encoder; empty: random"),
    "teacher_depths": Field(None, depths, "of the teacher's blocks, stage by stage"),
    "final_norm": Field(False, boolean, "targets after the teacher's last norm"),
    "norm_target": Field(True, boolean, "standardise the features of each token"),
    "beta": Field(2.0, number(0, low_open=True), "where the loss becomes linear"),
    "cls_weight": Field(1.0, number(0), "of the class token, beside a hidden patch"),
    "drop_path": Field(0.0, number(0, 1, high_open=True), "of the student, both parts"),
    # "released": the bias of the patch projection and AdamW's moments stay.
    "renew": Field("all", choice("all", "released"), "what begins anew in a stage"),
}


class Phase(NamedTuple):
    """Static facts of a step: share hidden, and blocks of the teacher that are used."""

    ratio: float
    depth: int


def check(config) -> None:
    """What the fields of this method must agree on with others.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    part = config.method
    if part.teacher_depths is not None and len(part.teacher_depths) != part.stages:
        raise ConfigError(
            f"config.method.teacher_depths = {part.teacher_depths}: must have one "
            f"entry a stage, method.stages = {part.stages}"
        )
    frozen(config)


def frozen(config):
    """The first teacher, where one is named."""
    if not config.method.teacher:
        return {}
    return {"teacher": frozen_config(config, "method.teacher")}


def build(config, run: Run) -> Method:
    """The method as a config describes it, for a run of known length."""
    part = config.method
    masking = Masking(config, run)
    is_given = "teacher" in run.frozen
    of_teacher = (
        frozen_model(run.frozen["teacher"]) if is_given else make_autoencoder(config)
    )
    model = make_autoencoder(config, out_values=of_teacher.encoder.width)
    _check_teacher(config, model, of_teacher)
    teacher_depths = _teacher_depths(part, model, of_teacher)
    length = -(-run.total_steps // part.stages)
    begins = [stage * length for stage in range(1, part.stages)]
    if config.optim.warmup_epochs * run.steps_per_epoch >= length:
        raise ConfigError(
            f"config.optim.warmup_epochs = {config.optim.warmup_epochs:g}: must be "
            f"less than a stage, {length / run.steps_per_epoch:.3g} epochs"
        )

    def init(key):
        params = model.init(key)
        # Like the authors' random teacher, it is the student as it begins.
        first = of_teacher.init(key) if is_given else params
        return {"model": params, "teacher": {"encoder": first["encoder"]}}

    def given():
        if not is_given:
            return {}
        encoder = read_frozen(config, "method.teacher", of_teacher)
        return {"teacher": {"encoder": encoder}}

    def promote(params, key):
        """The student's encoder becomes the teacher; a new student begins."""
        old, new = params["model"], model.init(key)
        if part.renew == "released":
            projection = {
                **new["encoder"]["patch_embed"],
                "bias": old["encoder"]["patch_embed"]["bias"],
            }
            new["encoder"] = {**new["encoder"], "patch_embed": projection}
        return {"model": new, "teacher": {"encoder": old["encoder"]}}

    def phase(step, marks):
        stage = sum(step >= begin for begin in begins)
        return Phase(masking.ratio_at(step, marks), teacher_depths[stage])

    def student(params, batch, key, step, phase):
        images = model.normalise(batch["image"])
        mask = masking(model, params["model"], images, batch, key, step, phase.ratio)
        scales = [
            drop_path_scales(
                example_keys(key, batch["epoch"], batch["id"], f"drop path {name}"),
                depth=side.depth,
                rate=part.drop_path,
            )
            if part.drop_path
            else None
            for name, side in (("encoder", model.encoder), ("decoder", model.decoder))
        ]
        embedded = model.embed(params["model"], images)
        found = model.predict(
            params["model"], embedded, mask, scales=(scales[0], scales[1])
        )
        return mask, jnp.concatenate([found.cls[:, None], found.tokens], axis=1)

    def loss(params, batches, key, step, phase):
        batch = batches["train"]
        mask, prediction = student(params, batch, key, step, phase)
        features = of_teacher.stream(
            params["teacher"], batch["image"], phase.depth, normed=part.final_norm
        )
        target = feature_targets(features, norm_target=part.norm_target)
        weight = jnp.pad(
            mask.loss_weight, ((0, 0), (1, 0)), constant_values=part.cls_weight
        )
        return feature_loss(prediction, target, weight, beta=part.beta), {
            "cls_loss": feature_loss(
                prediction[:, :1],
                target[:, :1],
                jnp.ones_like(weight[:, :1]),
                part.beta,
            ),
            "target_deviation": at_least_float32(features).std(-1).mean(),
            "teacher_distance": jnp.abs(prediction - target).mean(),
        }

    def picture(params, batch, key, step, phase):
        images = model.normalise(batch["image"])
        mask = masking(model, params["model"], images, batch, key, step, phase.ratio)
        return Picture(mask.hidden, None)

    def flops(phase):
        teacher = whole_macs(of_teacher, phase.depth)
        return training_flops(model, phase.ratio) + 2 * teacher

    optimizer = adamw_of(config, run._replace(total_steps=length))
    return Method(
        init=init,
        updates=(Update(("model",), descend(("model",), loss), optimizer),),
        features={"encoder": pooled_features(model, config.eval.pool)},
        encoder=lambda params: params["model"]["encoder"],
        flops=flops,
        picture=picture,
        phase=phase,
        stages=tuple(
            Stage(begin, promote, keep_moments=part.renew == "released")
            for begin in begins
        ),
        given=given,
    )


def feature_targets(
    features: Float[Array, "B T D"], *, norm_target: bool
) -> Float[Array, "B T D"]:
    """The teacher's features as they are to be predicted, at least float32.

    Args:
        features: of the class token and all patches.
        norm_target: whether each token is standardised over its channels, with the
            unbiased variance plus 1e-6.
    """
    features = at_least_float32(features)
    return normalise_patches(features)[0] if norm_target else features


def feature_loss(
    prediction: Float[Array, "B T D"],
    target: Float[Array, "B T D"],
    weight: Float[Array, "B T"],
    beta: float,
) -> Float[Array, ""]:
    """Smooth L1, mean over channels, averaged over tokens by weight.

    d^2 / (2 beta) where |d| < beta, else |d| - beta / 2.

    Args:
        prediction: class token first.
        target: likewise.
        weight: of each token; their sum over the batch must not be 0.
        beta: > 0.

    Reference: liuxingbin/dbot models_mae.py, forward_loss.
    """
    error = (optax.huber_loss(prediction, target, delta=beta) / beta).mean(-1)
    return jnp.sum(error * weight) / jnp.sum(weight)


def _teacher_depths(part, model, of_teacher) -> list[int]:
    """Blocks used in each stage; the first teacher may have another depth."""
    wanted = part.teacher_depths or [None] * part.stages
    found = []
    for stage, depth in enumerate(wanted):
        most = (model if stage else of_teacher).encoder.depth
        if depth is not None and depth > most:
            raise ConfigError(
                f"config.method.teacher_depths = {part.teacher_depths}: must be at "
                f"most {most} in stage {stage}, which is all the teacher has"
            )
        found.append(most if depth is None else depth)
    return found


def _check_teacher(config, model, of_teacher) -> None:
    """Later teachers take the place of a given one: it must be like the student."""
    part = config.method
    mine, theirs = model.encoder, of_teacher.encoder
    alike = all(
        getattr(mine, name) == getattr(theirs, name)
        for name in ("width", "depth", "heads", "mlp_ratio", "positions")
    )
    alike &= (model.mean, model.std) == (of_teacher.mean, of_teacher.std)
    if part.stages > 1 and not alike:
        raise ConfigError(
            f"config.method.stages = {part.stages}: must be 1 with a teacher that is "
            "not of the student's sizes and pixel statistics"
        )
