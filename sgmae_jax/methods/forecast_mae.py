"""Forecast-MAE: of a scene hide pasts, futures and lanes, and predict them.

Every agent with a future shows either its past or its future, never both and never
neither; half of the lanes are hidden. The encoder sees what is shown, one token each;
the decoder knows where everything is at the present and predicts how it moves, and
what the lanes look like.

Reference: Cheng, Mei and Liu, Forecast-MAE: Self-supervised Pre-training for Motion
Forecasting with Masked Autoencoders (2023); jchengai/forecast-mae.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sgmae_jax import rules
from sgmae_jax.data.motion import HISTORY
from sgmae_jax.masking import SceneMask, example_keys, scene_mask
from sgmae_jax.methods.base import Method, Run, Update, descend
from sgmae_jax.methods.image import adamw_of, check_own_masks
from sgmae_jax.methods.scene import (
    SPARED,
    check_sizes,
    example_batch,
    make_networks,
    mean_over,
    moving_statistics,
    new_statistics,
)
from sgmae_jax.models.scene_autoencoder import ScenePrediction
from sgmae_jax.rules import Field, number

DOMAINS = ("scenes",)
FIELDS = {
    "name": Field("forecast_mae", rules.name, "this method"),
    "agent_ratio": Field(0.5, number(0, 1), "share of the futures that is hidden"),
    "lane_ratio": Field(0.5, number(0, 1), "share of the lanes that is hidden"),
    "history_weight": Field(1.0, number(0), "of the loss of pasts, L1 in metres"),
    "future_weight": Field(1.0, number(0), "of the loss of futures, L1 in metres"),
    "lane_weight": Field(0.35, number(0), "of the loss of lanes, in square metres"),
    "drop_path": Field(0.2, number(0, 1, high_open=True), "in the last block"),
    "released": Field(
        False, rules.boolean, "padding and missing points as in the authors' code"
    ),
}


class SceneLosses(NamedTuple):
    """Means over what is hidden and known, of a batch."""

    history: Float[Array, ""]
    future: Float[Array, ""]
    lanes: Float[Array, ""]


class ScenePicture(NamedTuple):
    """What of a scene was hidden, and what was made of it."""

    mask: SceneMask
    history: Float[Array, "B A 50 2"]
    future: Float[Array, "B A 60 2"]
    lanes: Float[Array, "B M 20 2"]


def check(config) -> None:
    """What the fields of this method must agree on with others.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    check_own_masks(config)
    check_sizes(config)


def losses(batch, present, mask: SceneMask, prediction: ScenePrediction) -> SceneLosses:
    """Absolute errors of hidden pasts and futures, squared ones of hidden lanes.

    Args:
        batch: see `Scene`.
        present: what there is in it.
        mask: what was shown.
        prediction: of everything.
    """
    seen = batch["agent_present"]
    past, future = seen[..., :HISTORY], seen[..., HISTORY:]
    hidden: Bool[Array, "B A"] = present.futures & ~mask.future
    lanes = batch["lane_points"] - batch["lane_center"][:, :, None]
    return SceneLosses(
        mean_over(
            jnp.abs(prediction.history - batch["agent_past"]),
            past & (present.agents & ~mask.history)[..., None],
        ),
        mean_over(
            jnp.abs(prediction.future - batch["agent_future"]),
            future & hidden[..., None],
        ),
        mean_over(
            jnp.square(prediction.lanes - lanes),
            batch["lane_present"] & ~mask.lanes[..., None],
        ),
    )


def build(config, run: Run) -> Method:
    """The method as a config describes it, for a run of known length."""
    part = config.method
    model = make_networks(config, released=part.released)
    weights = SceneLosses(part.history_weight, part.future_weight, part.lane_weight)

    def init(key):
        return {
            "model": model.init(key, example_batch()),
            "statistics": new_statistics(model),
        }

    def masked(batch, key):
        present = model.present(batch)
        keys = example_keys(key, batch["epoch"], batch["id"], "mask")
        mask = scene_mask(
            keys, *present, agent_ratio=part.agent_ratio, lane_ratio=part.lane_ratio
        )
        return present, mask

    def loss(params, batches, key, step, phase):
        del step, phase
        batch = batches["train"]
        present, mask = masked(batch, key)
        keys = example_keys(key, batch["epoch"], batch["id"], "drop path")
        branches = model.branches(keys, batch, part.drop_path, config.model.depth)
        prediction = model.predict(params["model"], batch, mask, None, branches)
        found = losses(batch, present, mask, prediction)
        total = sum(w * one for w, one in zip(weights, found, strict=True))
        return total, found._asdict()

    def picture(params, batch, key, step, phase):
        del step, phase
        _, mask = masked(batch, key)
        found = model.predict(params["model"], batch, mask, params["statistics"])
        return ScenePicture(mask, found.history, found.future, found.lanes)

    own = ("model",)
    return Method(
        init=init,
        updates=(
            Update(own, descend(own, loss), adamw_of(config, run, spared=SPARED)),
        ),
        features={},
        encoder=lambda params: {
            **params["model"]["encoder"],
            "statistics": params["statistics"],
        },
        flops=lambda phase: None,
        picture=picture,
        prepare=moving_statistics(model, lambda params: params["model"]["encoder"]),
    )
