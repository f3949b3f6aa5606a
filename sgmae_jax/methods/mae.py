"""MAE: hide random patches, encode the rest, predict the hidden pixels.

Reference: He et al., Masked Autoencoders Are Scalable Vision Learners (2022);
facebookresearch/mae.
"""

from __future__ import annotations

from sgmae_jax import rules
from sgmae_jax.methods.base import Method, Picture, Run, Update, descend
from sgmae_jax.methods.image import (
    Masking,
    adamw_of,
    make_autoencoder,
    pooled_features,
    training_flops,
)
from sgmae_jax.methods.pixels import pixel_targets, reconstruction_loss

FIELDS = {
    "name": rules.Field("mae", rules.name, "this method"),
    "norm_pix": rules.Field(
        True, rules.boolean, "predict each patch's pixels by its own mean and deviation"
    ),
}


def build(config, run: Run) -> Method:
    """The method as a config describes it, for a run of known length."""
    model = make_autoencoder(config)
    masking = Masking(config, run)

    def forward(params, batch, key, step, ratio):
        images = model.normalise(batch["image"])
        mask = masking(model, params["model"], images, batch, key, step, ratio)
        tokens = model.embed(params["model"], images)
        return images, mask, model.predict(params["model"], tokens, mask)

    def loss(params, batches, key, step, ratio):
        images, mask, prediction = forward(params, batches["train"], key, step, ratio)
        target = pixel_targets(
            images, model.patch_size, norm_pix=config.method.norm_pix
        )
        return reconstruction_loss(prediction.tokens, target, mask.loss_weight), {}

    def picture(params, batch, key, step, ratio):
        _, mask, prediction = forward(params, batch, key, step, ratio)
        return Picture(mask.hidden, prediction.tokens)

    optimizer = adamw_of(config, run)
    return Method(
        init=lambda key: {"model": model.init(key)},
        updates=(Update(("model",), descend(("model",), loss), optimizer),),
        features={"encoder": pooled_features(model, config.eval.pool)},
        encoder=lambda params: params["model"]["encoder"],
        decoder=lambda params: params["model"]["decoder"],
        flops=lambda ratio: training_flops(model, ratio),
        picture=picture,
        norm_pix=config.method.norm_pix,
        phase=masking.ratio_at,
    )
