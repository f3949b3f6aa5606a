"""Self-guided MAE: hide what the model itself sees as one thing.

First an ordinary MAE with random masks. Once its decoder leans on what the mask tokens
share, the patches of each image are divided in two by a normalised cut of the encoder's
own features; the object and what is most like it are hidden, but for a few hints.

Reference: Shin et al., Self-Guided Masked Autoencoder (NeurIPS 2024). Its text and code
were not at hand: what is sourced, and what is our reading, says docs/self_guided.md.
"""

from __future__ import annotations

from typing import get_args

from sgmae_jax import rules
from sgmae_jax.config import ConfigError
from sgmae_jax.masking import (
    Context,
    example_keys,
    exploitation_rates,
    hint_count,
    informed_mask,
    num_keep,
    random_mask,
)
from sgmae_jax.masking.guided import HINT_RATIO, Side
from sgmae_jax.masking.ncut import STEPS
from sgmae_jax.methods.base import (
    Method,
    Monitor,
    Picture,
    Run,
    Sweep,
    Update,
    descend,
)
from sgmae_jax.methods.guidance import Guide, Phase
from sgmae_jax.methods.image import (
    Masking,
    adamw_of,
    make_autoencoder,
    pooled_features,
    training_flops,
)
from sgmae_jax.methods.pixels import pixel_targets, reconstruction_loss
from sgmae_jax.models.layers import layer_index
from sgmae_jax.models.presets import encoder_size
from sgmae_jax.rules import Field, choice, integer, number, optional

FIELDS = {
    "name": Field("self_guided", rules.name, "this method"),
    "norm_pix": Field(
        True, rules.boolean, "predict each patch's pixels by its own mean and deviation"
    ),
    # When guidance begins.
    "begin_by": Field("epoch", choice("epoch", "exploitation"), "what begins guidance"),
    "begin_epoch": Field(
        None, optional(number(0)), "first guided epoch (earliest, by exploitation)"
    ),
    "begin_rate": Field(
        "raw", choice("raw", "per_token"), "exploitation rates compared"
    ),
    "monitor_epochs": Field(1.0, number(0, low_open=True), "between two looks at them"),
    "monitor_images": Field(64, integer(1), "held-out images they are measured on"),
    # Whose features guide.
    "guide": Field("model", choice("model", "ema", "snapshot"), "whose features"),
    "ema_momentum": Field(0.999, number(0, 1), "a step, for guide = ema"),
    "part": Field("encoder", choice("encoder", "decoder"), "where the layer is"),
    "layer": Field(-2, rules.layer, "from 1, or from the end: -1"),
    # How they divide an image.
    "relation": Field("cosine", choice("cosine", "attention"), "joins two tokens"),
    "side": Field("cls_attention", choice(*get_args(Side)), "which is the object"),
    "threshold": Field("zero", choice("zero", "mean"), "where the cut is"),
    "tau": Field(0.0, number(0, 1), "weaker relations do not join"),
    "steps": Field(STEPS, integer(1, 1000), "of the eigen-solver"),
    # How often.
    "refresh": Field("step", choice("step", "interval", "bank"), "guidance is made"),
    "refresh_steps": Field(4, integer(2), "for refresh = interval"),
    "refresh_epochs": Field(20, integer(1), "between sweeps, for refresh = bank"),
    # Hints.
    "hint_ratio": Field(HINT_RATIO, number(0, 1), "share of hidden tokens swapped"),
    "hint_ratio_end": Field(
        None, optional(number(0, 1)), "share at the end; None: constant"
    ),
    "hint_mode": Field("random", choice("random", "similarity"), "which are shown"),
}


def check(config) -> None:
    """What the fields of this method must agree on with others.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    part, model = config.method, config.model
    if not model.decoder_depth:
        raise ConfigError(
            "config.model.decoder_depth = 0: must be at least 1, exploitation rates "
            "are those of decoder blocks"
        )
    size = encoder_size(model.preset, model.width, model.depth, model.heads)
    depth = size.depth if part.part == "encoder" else model.decoder_depth
    try:
        layer_index(part.layer, depth)
    except ValueError as error:
        raise ConfigError(f"config.method.layer = {part.layer}: {error}") from None
    if config.epochs and part.begin_epoch and part.begin_epoch >= config.epochs:
        raise ConfigError(
            f"config.method.begin_epoch = {part.begin_epoch:g}: must be less than "
            f"epochs = {config.epochs}"
        )


def build(config, run: Run) -> Method:
    """The method as a config describes it, for a run of known length."""
    model = make_autoencoder(config)
    masking = Masking(config, run)
    part = config.method
    guide = Guide(part, model, run)
    tokens = model.encoder.tokens
    begin_epoch = part.begin_epoch
    if begin_epoch is None:
        # Our reading of "about epoch 50" in runs of 400 epochs.
        begin_epoch = run.total_steps / run.steps_per_epoch / 8
    begin_step = round(begin_epoch * run.steps_per_epoch)

    def init(key):
        params = model.init(key)
        return {"model": params, **guide.init(params)}

    def begun(marks):
        return begin_step if part.begin_by == "epoch" else marks.get("guidance")

    def phase(step, marks):
        ratio, begin = masking.ratio_at(step, marks), begun(marks)
        if begin is None or step < begin:
            return Phase(ratio)
        return Phase(ratio, begin, guide.looks(step, begin))

    def hints(step, phase):
        last = part.hint_ratio if part.hint_ratio_end is None else part.hint_ratio_end
        length = max(run.total_steps - 1 - phase.begun, 1)
        hidden = tokens - num_keep(tokens, phase.ratio)
        return hint_count(hidden, part.hint_ratio, last, (step - phase.begun) / length)

    def forward(params, batch, key, step, phase):
        images = model.normalise(batch["image"])
        if phase.begun is None:
            mask = masking(
                model, params["model"], images, batch, key, step, phase.ratio
            )
        else:
            mask = informed_mask(
                example_keys(key, batch["epoch"], batch["id"], "mask"),
                batch["relevance"],
                ratio=phase.ratio,
                hints=hints(step, phase),
                hint_mode=part.hint_mode,
            )
        embedded = model.embed(params["model"], images)
        return images, mask, model.predict(params["model"], embedded, mask)

    def loss(params, batches, key, step, phase):
        images, mask, prediction = forward(params, batches["train"], key, step, phase)
        target = pixel_targets(images, model.patch_size, norm_pix=part.norm_pix)
        value = reconstruction_loss(prediction.tokens, target, mask.loss_weight)
        return value, {} if phase.begun is None else {"hints": hints(step, phase) * 1.0}

    def picture(params, batch, key, step, phase):
        _, batches, _ = guide.prepare(params, {"train": batch}, key, step, phase)
        _, mask, prediction = forward(params, batches["train"], key, step, phase)
        return Picture(mask.hidden, prediction.tokens)

    def measure(params, batch, key, step):
        """Where the decoder's mask tokens take what they know from."""
        del step
        keys = example_keys(key, batch["epoch"], batch["id"], "exploitation")
        mask = random_mask(keys, Context(grid=model.grid), ratio=config.mask.ratio)
        embedded = model.embed(params["model"], batch["image"])
        prediction = model.predict(
            params["model"], embedded, mask, capture=("attention",)
        )
        maps = prediction.captured["decoder"]["attention"].mean(2)
        rates = exploitation_rates(maps, mask.hidden)
        kinds = {"raw": rates.cumulated, "per_token": rates.per_token}
        return {
            f"exploitation/{group}_{kind}": rate[-1, :, source, 1].mean()
            for kind, rate in kinds.items()
            for source, group in enumerate(("visible", "mask"))
        }

    def decide(step, found, marks):
        """Marks the look at which mask tokens, once the weaker source, are the better.

        In an untrained decoder attention is uniform, and mask tokens are the majority:
        to be above is not yet to have passed.
        """
        if part.begin_by != "exploitation" or "guidance" in marks:
            return marks
        of_mask = found[f"exploitation/mask_{part.begin_rate}"]
        of_visible = found[f"exploitation/visible_{part.begin_rate}"]
        if of_mask <= of_visible:
            return {"behind": step, **marks}
        early = part.begin_epoch is not None and step < begin_step
        return marks if early or "behind" not in marks else {**marks, "guidance": step}

    def flops(phase):
        base = training_flops(model, phase.ratio)
        return base if phase.begun is None else base + guide.flops()

    def due(step, marks):
        return guide.sweeps(step, begun(marks))

    interval = max(round(part.monitor_epochs * run.steps_per_epoch), 1)
    optimizer = adamw_of(config, run)
    return Method(
        init=init,
        updates=(Update(("model",), descend(("model",), loss), optimizer),),
        features={"encoder": pooled_features(model, config.eval.pool)},
        encoder=lambda params: params["model"]["encoder"],
        decoder=lambda params: params["model"]["decoder"],
        flops=flops,
        picture=picture,
        norm_pix=part.norm_pix,
        prepare=guide.prepare,
        post_update=guide.follow,
        phase=phase,
        monitor=Monitor(
            part.monitor_images, lambda step: step % interval == 0, measure, decide
        ),
        sweep=Sweep(due, guide.absorb) if part.refresh == "bank" else None,
    )
