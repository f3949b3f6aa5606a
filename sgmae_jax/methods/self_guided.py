"""Self-guided MAE: hide what the model itself sees as one thing.

First an ordinary MAE with random masks. Once its decoder leans on what the mask tokens
share, the patches of each image are divided in two by a normalised cut of the encoder's
own features; the object and what is most like it are hidden, but for a few hints.

Reference: Shin et al., Self-Guided Masked Autoencoder (NeurIPS 2024). Its text and code
were not at hand: what is sourced, and what is our reading, says docs/self_guided.md.
"""

from __future__ import annotations

from typing import NamedTuple

import jax

from sgmae_jax import rules
from sgmae_jax.config import ConfigError
from sgmae_jax.masking import (
    Bank,
    empty_bank,
    example_keys,
    exploitation_rates,
    guide,
    hint_count,
    informed_mask,
    num_keep,
    random_mask,
    read_bank,
    write_bank,
)
from sgmae_jax.masking.guided import HINT_RATIO
from sgmae_jax.masking.ncut import STEPS
from sgmae_jax.masking.types import Context
from sgmae_jax.methods.base import (
    Method,
    Monitor,
    Picture,
    Run,
    Sweep,
    Update,
    descend,
)
from sgmae_jax.methods.image import (
    Masking,
    guidance_flops,
    make_autoencoder,
    pooled_features,
    training_flops,
)
from sgmae_jax.methods.pixels import pixel_targets, reconstruction_loss
from sgmae_jax.models.layers import layer_index
from sgmae_jax.models.presets import encoder_size
from sgmae_jax.optimizer import make_adamw
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
        "per_token", choice("per_token", "raw"), "exploitation rates compared"
    ),
    "monitor_epochs": Field(1.0, number(0, low_open=True), "between two looks at them"),
    "monitor_images": Field(64, integer(1), "held-out images they are measured on"),
    # Whose features guide.
    "guide": Field("model", choice("model", "ema", "snapshot"), "whose features"),
    "ema_momentum": Field(0.999, number(0, 1), "a step, for guide = ema"),
    "part": Field("encoder", choice("encoder", "decoder"), "where the layer is"),
    "layer": Field(-2, integer(-1000, 1000), "from 1, or from the end: -1"),
    # How they divide an image.
    "relation": Field("cosine", choice("cosine", "attention"), "joins two tokens"),
    "side": Field("cls_attention", choice("cls_attention", "seed", "size"), "object"),
    "threshold": Field("zero", choice("zero", "mean"), "where the cut is"),
    "tau": Field(0.0, number(-1, 1), "weaker relations do not join"),
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


class Phase(NamedTuple):
    """Static facts of a step.

    Attributes:
        ratio: share hidden.
        begun: step at which guidance began, or None while masks are random.
        look: the guidance of this step's images is made in this step.
    """

    ratio: float
    begun: int | None = None
    look: bool = False


def build(config, run: Run) -> Method:
    """The method as a config describes it, for a run of known length."""
    model = make_autoencoder(config)
    masking = Masking(config, run)
    part = config.method
    tokens = model.encoder.tokens
    banked = part.refresh != "step"
    parts = ("encoder",) if part.part == "encoder" else ("encoder", "decoder")
    begin_epoch = part.begin_epoch
    if begin_epoch is None:
        # Our reading of "about epoch 50" in runs of 400 epochs.
        begin_epoch = run.total_steps / run.steps_per_epoch / 8
    begin_step = round(begin_epoch * run.steps_per_epoch)

    def init(key):
        params = {"model": model.init(key)}
        if part.guide != "model":
            params["guide"] = {name: params["model"][name] for name in parts}
        if banked:
            params["bank"] = empty_bank(run.examples, model.grid)._asdict()
        return params

    def phase(step, marks):
        ratio = masking.ratio_at(step, marks)
        begun = begin_step if part.begin_by == "epoch" else marks.get("guidance")
        if begun is None or step < begun:
            return Phase(ratio)
        every = {"step": 1, "interval": part.refresh_steps, "bank": 0}[part.refresh]
        return Phase(ratio, begun, bool(every) and (step - begun) % every == 0)

    # ---- guidance ------------------------------------------------------------------
    def with_snapshot(params, step, phase):
        """The guide is a copy of the model as it is when guidance begins."""
        if part.guide != "snapshot":
            return params
        now = {name: params["model"][name] for name in parts}
        first = step == phase.begun
        kept = jax.lax.cond(first, lambda: now, lambda: params["guide"])
        return {**params, "guide": kept}

    def look(params, images):
        guiding = params["model"] if part.guide == "model" else params["guide"]
        layer = model.layer(
            jax.lax.stop_gradient(guiding), images, part.layer, part=part.part
        )
        maps = part.relation == "attention" or part.side == "cls_attention"
        return guide(
            layer.features[:, 1:],
            layer.attention if maps else None,
            relation=part.relation,
            side=part.side,
            threshold=part.threshold,
            tau=part.tau,
            steps=part.steps,
        )

    def remember(params, batch, relevance, step):
        bank = write_bank(
            Bank(**params["bank"]), batch["id"], relevance, batch["view"], step
        )
        return {**params, "bank": bank._asdict()}

    def absorb(params, batch, step, phase):
        params = with_snapshot(params, step, phase)
        found = look(params, model.normalise(batch["image"]))
        return remember(params, batch, found.relevance, step)

    def prepare(params, batches, key, step, phase):
        """Adds "relevance" to the batch, from this step's look or from the bank."""
        del key
        if phase.begun is None:
            return params, batches, {}
        batch = batches["train"]
        if phase.look:
            params = with_snapshot(params, step, phase)
            found = look(params, model.normalise(batch["image"]))
            relevance = found.relevance
            if banked:
                params = remember(params, batch, relevance, step)
            metrics = {
                "guidance/degenerate": found.degenerate.mean(),
                "guidance/object": found.object.mean(),
                "guidance/eigenvalue": found.cut.eigenvalue.mean(),
                "guidance/gap": found.cut.gap.mean(),
                "guidance/residual": found.cut.residual.max(),
            }
        else:
            relevance, known = read_bank(
                Bank(**params["bank"]), batch["id"], batch["view"]
            )
            metrics = {"guidance/known": known.mean()}
        return params, {"train": {**batch, "relevance": relevance}}, metrics

    # ---- training ------------------------------------------------------------------
    def hints_at(step, phase):
        begun = phase.begun or 0
        last = part.hint_ratio_end
        return hint_count(
            tokens - num_keep(tokens, phase.ratio),
            part.hint_ratio,
            part.hint_ratio if last is None else last,
            (step - begun) / max(run.total_steps - 1 - begun, 1),
        )

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
                hints=hints_at(step, phase),
                hint_mode=part.hint_mode,
            )
        embedded = model.embed(params["model"], images)
        return images, mask, model.predict(params["model"], embedded, mask)

    def loss(params, batches, key, step, phase):
        images, mask, prediction = forward(params, batches["train"], key, step, phase)
        target = pixel_targets(images, model.patch_size, norm_pix=part.norm_pix)
        value = reconstruction_loss(prediction.tokens, target, mask.loss_weight)
        return value, {} if phase.begun is None else {"hints": hints_at(step, phase)}

    def picture(params, batch, key, step, phase):
        _, batches, _ = prepare(params, {"train": batch}, key, step, phase)
        _, mask, prediction = forward(params, batches["train"], key, step, phase)
        return Picture(mask.hidden, prediction.tokens)

    def post_update(params, step):
        del step
        if part.guide != "ema":
            return params
        now = {name: params["model"][name] for name in parts}
        keep = part.ema_momentum
        average = jax.tree.map(
            lambda old, new: keep * old + (1 - keep) * new, params["guide"], now
        )
        return {**params, "guide": average}

    # ---- when it begins ------------------------------------------------------------
    interval = max(round(part.monitor_epochs * run.steps_per_epoch), 1)

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
        last = rates.cumulated[-1].mean(0)
        each = rates.per_token[-1].mean(0)
        return {
            "exploitation/visible": last[0, 1],
            "exploitation/mask": last[1, 1],
            "exploitation/visible_per_token": each[0, 1],
            "exploitation/mask_per_token": each[1, 1],
        }

    def decide(step, found, marks):
        suffix = "_per_token" if part.begin_rate == "per_token" else ""
        passed = (
            found[f"exploitation/mask{suffix}"] > found[f"exploitation/visible{suffix}"]
        )
        by_itself = part.begin_by == "exploitation" and "guidance" not in marks
        early = part.begin_epoch is not None and step < begin_step
        return (
            {**marks, "guidance": step} if by_itself and passed and not early else marks
        )

    def due(step, marks):
        begun = phase(step, marks).begun
        if part.refresh != "bank" or begun is None:
            return False
        return (step - begun) % (part.refresh_epochs * run.steps_per_epoch) == 0

    # ---- the whole -----------------------------------------------------------------
    extra = guidance_flops(model, part.layer, part=part.part)
    share = {"step": 1.0, "interval": 1 / part.refresh_steps, "bank": 0.0}[part.refresh]

    def flops(phase):
        guided = phase.begun is not None
        return training_flops(model, phase.ratio) + guided * share * extra

    optimizer = make_adamw(
        config.optim,
        batch_size=config.data.batch_size,
        steps_per_epoch=run.steps_per_epoch,
        total_steps=run.total_steps,
    )
    return Method(
        init=init,
        updates=(Update(("model",), descend(("model",), loss), optimizer),),
        features={"encoder": pooled_features(model, config.eval.pool)},
        encoder=lambda params: params["model"]["encoder"],
        flops=flops,
        picture=picture,
        norm_pix=part.norm_pix,
        prepare=prepare,
        post_update=post_update,
        phase=phase,
        monitor=Monitor(
            part.monitor_images, lambda step: step % interval == 0, measure, decide
        ),
        sweep=Sweep(due, absorb) if part.refresh == "bank" else None,
    )
