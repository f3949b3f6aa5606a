"""Forecasting: several futures of a focal agent, or of all agents together.

An encoder from Forecast-MAE, or one that starts at random, under a new head. Nothing
is hidden and nothing frozen.

Reference: Cheng, Mei and Liu, Forecast-MAE (2023); jchengai/forecast-mae
model_forecast.py and its multi-agent variant.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from sgmae_jax import rules
from sgmae_jax.config import ConfigError
from sgmae_jax.data.motion import FUTURE, HISTORY
from sgmae_jax.masking import example_keys
from sgmae_jax.methods.base import Method, Metrics, Run, Update, descend
from sgmae_jax.methods.frozen import read_run, run_fields
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
from sgmae_jax.models.scene import FocalHead, WorldHead
from sgmae_jax.rules import Field, boolean, integer, number

DOMAINS = ("scenes",)
FIELDS = {
    "name": Field("forecast", rules.name, "this method"),
    "encoder": Field("", rules.path, "a run of forecast_mae; empty: random"),
    "worlds": Field(False, boolean, "futures of all agents together, not of one"),
    "modes": Field(6, integer(1), "futures that are told"),
    "drop_path": Field(0.2, number(0, 1, high_open=True), "in the last block"),
    "released": Field(False, boolean, "missing points as in the authors' code"),
}
_NETWORK = ("width", "depth", "heads", "mlp_ratio")


class Forecast(NamedTuple):
    """Futures in metres from the present positions, in the frame of the scene.

    Attributes:
        places: of the focal agent [B,K,60,2], or of all agents [B,K,A,60,2].
        logits: of the K futures.
        others: of the other agents, one future each; None where all are in `places`.
    """

    places: Float[Array, "B K *A T 2"]
    logits: Float[Array, "B K"]
    others: Float[Array, "B A-1 T 2"] | None


class ForecastLosses(NamedTuple):
    """Smooth L1 of the best future and of the others; cross entropy of the scores."""

    best: Float[Array, ""]
    score: Float[Array, ""]
    others: Float[Array, ""]


def check(config) -> None:
    """What the fields of this method must agree on with others.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    check_own_masks(config)
    check_sizes(config)
    frozen(config)


def frozen(config) -> dict[str, dict[str, Any]]:
    """What the named encoder is like, or nothing where none is named.

    Raises:
        ConfigError: it is no run of Forecast-MAE, or of other sizes.
    """
    path = config.method.encoder
    if not path:
        return {}
    found = run_fields(config, "method.encoder", "forecast_mae")
    for name in _NETWORK:
        if found[f"model.{name}"] != config.model[name]:
            raise ConfigError(
                f"config.model.{name} = {config.model[name]}: must be "
                f"{found[f'model.{name}']} as in the run {Path(path).name}"
            )
    return {"model": {f"model.{name}": config.model[name] for name in _NETWORK}}


def losses(batch, forecast: Forecast) -> ForecastLosses:
    """Of the future that is nearest on the whole, scores, and the other agents.

    Args:
        batch: see `Scene`.
        forecast: of it.
    """
    known = batch["agent_present"][..., HISTORY:]
    truth = batch["agent_future"]
    if forecast.others is None:
        counts = known & batch["agent_scored"][..., None]
        best = best_world(forecast.places, truth, counts)
        chosen = _chosen(forecast.places, best)
        value = mean_over(_smooth(chosen - truth), known)
        return ForecastLosses(
            value, _cross_entropy(forecast.logits, best), jnp.zeros(())
        )
    best = best_mode(forecast.places, truth[:, 0], known[:, 0])
    chosen = _chosen(forecast.places, best)
    # One focal agent each: seen all along, or a step that is missing counts nowhere.
    value = mean_over(_smooth(chosen - truth[:, 0])[:, None], known[:, :1])
    others = mean_over(_smooth(forecast.others - truth[:, 1:]), known[:, 1:])
    return ForecastLosses(value, _cross_entropy(forecast.logits, best), others)


def best_mode(places, truth, known) -> Array:
    """Index of the future nearest to the truth, in the sum of distances.

    Args:
        places: f32[B,K,T,2].
        truth: f32[B,T,2].
        known: bool[B,T].
    """
    away = jnp.linalg.norm(jax.lax.stop_gradient(places) - truth[:, None], axis=-1)
    return jnp.where(known[:, None], away, 0.0).sum(-1).argmin(-1)


def best_world(places, truth, counts) -> Array:
    """Index of the world nearest to the truth, in the mean over scored agents.

    Args:
        places: f32[B,K,A,T,2].
        truth: f32[B,A,T,2].
        counts: bool[B,A,T], steps of scored agents.
    """
    away = jnp.linalg.norm(jax.lax.stop_gradient(places) - truth[:, None], axis=-1)
    steps = jnp.maximum(counts.sum(-1), 1)[:, None]
    of_agent = jnp.where(counts[:, None], away, 0.0).sum(-1) / steps
    return of_agent.sum(-1).argmin(-1)


def build(config, run: Run) -> Method:
    """The method as a config describes it, for a run of known length."""
    part = config.method
    model = make_networks(config, released=part.released)
    worlds = WorldHead(part.modes, FUTURE)
    focal = FocalHead(part.modes, FUTURE)

    def init(key):
        first, second = jax.random.split(key)
        tokens = jnp.zeros((1, 2, config.model.width))
        head = (
            worlds.init(second, tokens, jnp.ones((1, 2), bool))
            if part.worlds
            else focal.init(second, tokens)
        )
        return {
            "model": {"encoder": model.init_encoder(first, example_batch())},
            "head": head["params"],
            "statistics": new_statistics(model),
        }

    def forecast(params, batch, statistics, branches=None) -> Forecast:
        tokens = model.encode(params["model"]["encoder"], batch, statistics, branches)
        agents = tokens[:, : batch["agent_kind"].shape[1]]
        given = {"params": params["head"]}
        if part.worlds:
            there = model.present(batch).agents
            found: Any = worlds.apply(given, agents, there)
            return Forecast(found[0], found[1], None)
        found = focal.apply(given, agents)
        return Forecast(*found)

    def loss(params, batches, key, step, phase) -> tuple[Array, Metrics]:
        del step, phase
        batch = batches["train"]
        keys = example_keys(key, batch["epoch"], batch["id"], "drop path")
        branches = model.branches(keys, batch, part.drop_path, config.model.depth)
        found = losses(batch, forecast(params, batch, None, branches))
        return sum(found), found._asdict()  # type: ignore[return-value]

    def answer(params, batch) -> Forecast:
        return forecast(params, batch, params["statistics"])

    def given():
        if "model" not in run.frozen:
            return {}
        _, method, params = read_run(Path(config.method.encoder))
        encoder = dict(method.encoder(params))
        statistics = encoder.pop("statistics")
        return {"model": {"encoder": encoder}, "statistics": statistics}

    own = ("model", "head")
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
        prepare=moving_statistics(model, lambda params: params["model"]["encoder"]),
        given=given,
        answer=answer,
    )


def _smooth(error: Array) -> Array:
    """Smooth L1: squares within a metre, absolute values beyond."""
    return optax.losses.huber_loss(error, delta=1.0)


def _cross_entropy(logits: Array, best: Array) -> Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, best).mean()


def _chosen(places: Array, best: Array) -> Array:
    index = best.reshape(-1, *(1,) * (places.ndim - 1))
    return jnp.take_along_axis(places, index, 1)[:, 0]
