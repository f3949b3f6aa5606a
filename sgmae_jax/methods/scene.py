"""What the methods on traffic scenes share: their networks, and the lanes' norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from sgmae_jax.config import ConfigError
from sgmae_jax.data.motion import FUTURE, HISTORY, LANE_POINTS
from sgmae_jax.methods.base import Metrics, Params
from sgmae_jax.models.lanes import no_moments
from sgmae_jax.models.scene import SceneDecoder, SceneEncoder, Size
from sgmae_jax.models.scene_autoencoder import SceneAutoencoder
from sgmae_jax.models.statistics import running

# Beside biases and scales, these do not decay.
SPARED = (
    *("kinds", "lane_kind", "relative"),
    *("history_token", "future_token", "lane_token"),
)


def make_networks(config, *, released: bool) -> SceneAutoencoder:
    """The networks that a config's `model` section describes."""
    part = config.model
    shared = {
        "mlp_ratio": part.mlp_ratio,
        "norm_eps": part.norm_eps,
        "dtype": part.dtype,
    }
    encoder = Size(part.width, part.depth, part.heads, **shared)
    decoder = Size(part.decoder_width, part.decoder_depth, part.decoder_heads, **shared)
    return SceneAutoencoder(
        SceneEncoder(encoder),
        SceneDecoder(decoder, (HISTORY, FUTURE), LANE_POINTS),
        HISTORY,
        released,
    )


def check_sizes(config) -> None:
    """What the sizes of these networks must be like.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    part = config.model
    for name in ("width", "depth", "heads"):
        if part[name] is None:
            raise ConfigError(f"config.model.{name} = None: must be set")
    if part.width % 64:
        raise ConfigError(
            f"config.model.width = {part.width}: must be a multiple of 64, heads of "
            "the agents' embedder have 16 values, on three levels"
        )
    for width, heads in (("width", "heads"), ("decoder_width", "decoder_heads")):
        if part[width] % part[heads]:
            raise ConfigError(
                f"config.model.{width} = {part[width]}: must be a multiple of "
                f"model.{heads} = {part[heads]}"
            )
    if part.attention != "matmul":
        raise ConfigError(
            f"config.model.attention = {part.attention!r}: must be 'matmul' for scenes"
        )


def example_batch() -> dict[str, Array]:
    """A batch of one agent and one lane, to make parameters with."""
    steps = HISTORY + FUTURE
    shapes = {
        "agent_steps": ((1, 1, HISTORY, 2), np.float32),
        "agent_speed_change": ((1, 1, HISTORY), np.float32),
        "agent_future": ((1, 1, FUTURE, 2), np.float32),
        "agent_present": ((1, 1, steps), np.bool_),
        "agent_center": ((1, 1, 2), np.float32),
        "agent_heading": ((1, 1), np.float32),
        "agent_kind": ((1, 1), np.int32),
        "lane_points": ((1, 1, LANE_POINTS, 2), np.float32),
        "lane_present": ((1, 1, LANE_POINTS), np.bool_),
        "lane_center": ((1, 1, 2), np.float32),
        "lane_heading": ((1, 1), np.float32),
    }
    return {name: jnp.zeros(shape, kind) for name, (shape, kind) in shapes.items()}


def moving_statistics(
    model: SceneAutoencoder, encoder_of: Callable[[Params], Any]
) -> Callable[..., tuple[Params, Any, Metrics]]:
    """A `Method.prepare` that moves the running statistics of the lanes' norm.

    It embeds the lanes as the step itself does; the compiler merges the two.

    Args:
        model: whose lanes.
        encoder_of: params -> its encoder's.
    """

    def prepare(params, batches, key, step, phase):
        del key, step, phase
        batch = batches["train"]
        _, moments = model.roads(encoder_of(params), batch, None)
        moments = jax.lax.stop_gradient(moments)
        count = model.counted(batch).sum() * LANE_POINTS
        moved = {
            name: running(params["statistics"][name], **moments[name], count=count)
            for name in moments
        }
        return {**params, "statistics": moved}, batches, {}

    return prepare


def new_statistics(model: SceneAutoencoder) -> dict[str, Any]:
    """Running statistics before the first batch."""
    return no_moments(model.encoder.size.width)


def mean_over(
    errors: Float[Array, "B S T 2"], weight: Bool[Array, "B S T"]
) -> Float[Array, ""]:
    """Mean of what counts, over all numbers of the batch; 0 where nothing counts."""
    count = jnp.maximum(2 * weight.sum(), 1)
    return jnp.where(weight[..., None], errors, 0.0).sum() / count
