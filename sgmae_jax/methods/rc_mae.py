"""RC-MAE: predict the pixels, and what a mean teacher predicts of the same patches.

The teacher is a whole autoencoder whose parameters are a moving average of the
student's. It is what is evaluated and exported.

Reference: Lee et al., Exploring the Role of Mean Teachers in Self-supervised Masked
Auto-Encoders (ICLR 2023); youngwanLEE/rc-mae.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from sgmae_jax import rules
from sgmae_jax.methods.base import Method, Picture, Run, Update, descend
from sgmae_jax.methods.image import (
    Masking,
    adamw_of,
    forward_macs,
    make_autoencoder,
    pooled_features,
    training_flops,
)
from sgmae_jax.methods.pixels import pixel_targets, reconstruction_loss
from sgmae_jax.rules import Field, choice, number

FIELDS = {
    "name": Field("rc_mae", rules.name, "this method"),
    "norm_pix": Field(
        True, rules.boolean, "predict each patch's pixels by its own mean and deviation"
    ),
    "gamma": Field(1.0, number(0), "weight of the consistency with the teacher"),
    "momentum": Field(0.996, number(0, 1), "of the teacher, an optimizer step, at 0"),
    # "constant" is what the released code does: it reads its schedule by the step
    # inside the epoch (and averages twice a step where it accumulates: 0.996 ** 2).
    "momentum_schedule": Field(
        "cosine", choice("cosine", "constant"), "cosine: to 1 over the run"
    ),
    "teacher_mask": Field(
        "same", choice("same", "different"), "what the teacher is shown"
    ),
}


def momentum_at(
    step: Int[Array, ""] | int, *, start: float, total_steps: int, schedule: str
) -> Float[Array, ""]:
    """Share of the old teacher that stays after a step.

    Args:
        step: from 0.
        start: share at step 0, in [0, 1].
        total_steps: length of the run.
        schedule: "cosine", half a cosine up to 1 at total_steps, or "constant".

    Reference: the schedule of DINO, as rc-mae's util/lr_sched.py has it.
    """
    if schedule == "constant":
        return jnp.asarray(start, jnp.float32)
    return 1 - optax.cosine_decay_schedule(1 - start, total_steps)(step)


def distance(student: PyTree, teacher: PyTree) -> Float[Array, ""]:
    """How far the teacher is behind: |student - teacher| / |student|, all together."""
    gap = jax.tree.map(jnp.subtract, student, teacher)
    return optax.tree.norm(gap) / optax.tree.norm(student)


def build(config, run: Run) -> Method:
    """The method as a config describes it, for a run of known length."""
    model = make_autoencoder(config)
    masking = Masking(config, run)
    part = config.method

    def init(key):
        params = model.init(key)
        return {"model": params, "teacher": params}

    def predict(params, images, mask):
        return model.predict(params, model.embed(params, images), mask).tokens

    def forward(params, batch, key, step, ratio):
        images = model.normalise(batch["image"])
        mask = masking(model, params["model"], images, batch, key, step, ratio)
        return images, mask, predict(params["model"], images, mask)

    def loss(params, batches, key, step, ratio):
        batch = batches["train"]
        images, mask, student = forward(params, batch, key, step, ratio)
        shown = mask
        if part.teacher_mask == "different":
            shown = masking(
                model,
                params["teacher"],
                images,
                batch,
                key,
                step,
                ratio,
                purpose="teacher mask",
            )
        teacher = predict(params["teacher"], images, shown)
        pixels = pixel_targets(images, model.patch_size, norm_pix=part.norm_pix)
        reconstruction = reconstruction_loss(student, pixels, mask.loss_weight)
        consistency = reconstruction_loss(student, teacher, mask.loss_weight)
        return reconstruction + part.gamma * consistency, {
            "reconstruction": reconstruction,
            "consistency": consistency,
            "teacher_distance": distance(params["model"], params["teacher"]),
        }

    def follow(params, step):
        """After a step, `step` of which are done: the teacher moves, in float32."""
        momentum = momentum_at(
            step - 1,
            start=part.momentum,
            total_steps=run.total_steps,
            schedule=part.momentum_schedule,
        )
        teacher = optax.incremental_update(
            params["model"], params["teacher"], 1 - momentum
        )
        return {"teacher": teacher}

    def picture(params, batch, key, step, ratio):
        _, mask, student = forward(params, batch, key, step, ratio)
        return Picture(mask.hidden, student)

    optimizer = adamw_of(config, run)
    return Method(
        init=init,
        updates=(Update(("model",), descend(("model",), loss), optimizer),),
        features={
            "teacher": pooled_features(model, config.eval.pool, "teacher"),
            "student": pooled_features(model, config.eval.pool),
        },
        encoder=lambda params: params["teacher"]["encoder"],
        decoder=lambda params: params["teacher"]["decoder"],
        flops=lambda ratio: (
            training_flops(model, ratio) + 2 * forward_macs(model, ratio)
        ),
        picture=picture,
        norm_pix=part.norm_pix,
        post_update=follow,
        phase=masking.ratio_at,
    )
