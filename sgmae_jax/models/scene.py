"""Encoder, decoder and forecasting heads over the agents and lanes of a scene."""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sgmae_jax.models.agents import AgentEmbedder
from sgmae_jax.models.lanes import LaneEmbedder
from sgmae_jax.models.layers import Linear, Transformer, at_least_float32, gelu
from sgmae_jax.models.statistics import Statistics

Moments = dict[str, Statistics]
KINDS = 4


class Size(NamedTuple):
    """Sizes of a transformer over the tokens of a scene.

    Attributes:
        width: D; of the encoder a multiple of 64.
        depth: blocks.
        heads: attention heads.
        mlp_ratio: hidden width over D.
        norm_eps: of the norms.
        dtype: of compute.
    """

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    norm_eps: float = 1e-5
    dtype: str = "float32"


class TokenBlocks(Transformer):
    """The blocks and the last norm over tokens that have no grid."""

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "B T D"],
        keys: Bool[Array, "B T"] | Float[Array, "B T"] | None,
        scales: Float[Array, "L 2 B"] | None = None,
    ) -> Float[Array, "B T D"]:
        """See `Transformer.run_blocks`."""
        return self.run_blocks(tokens, keys, (), scales)[0]


def token_blocks(size: Size, name: str | None = None) -> TokenBlocks:
    """Blocks of a size."""
    return TokenBlocks(
        grid=(1, 1),
        width=size.width,
        depth=size.depth,
        heads=size.heads,
        mlp_ratio=size.mlp_ratio,
        norm_eps=size.norm_eps,
        dtype=size.dtype,
        name=name,
    )


class PoseEmbedder(nn.Module):
    """Where something is and where it heads, as a vector to be added to its token."""

    width: int
    dtype: str

    @nn.compact
    def __call__(self, pose: Float[Array, "B T 4"]) -> Float[Array, "B T D"]:
        """Of (x, y, cos, sin)."""
        hidden = Linear(self.width, dtype=self.dtype, name="fc1")(pose)
        return Linear(self.width, dtype=self.dtype, name="fc2")(gelu(hidden))


class SceneEncoder(nn.Module):
    """Tokens of pasts and lanes, and the blocks over what is shown of a scene."""

    size: Size

    def setup(self):
        width, dtype = self.size.width, self.size.dtype
        start = nn.initializers.normal(0.02)
        self.history = AgentEmbedder(width, dtype)
        self.lanes = LaneEmbedder(width, dtype)
        self.pose = PoseEmbedder(width, dtype)
        self.kinds = self.param("kinds", start, (KINDS, width))
        self.lane_kind = self.param("lane_kind", start, (width,))
        self.blocks = token_blocks(self.size)

    def pasts(
        self,
        series: Float[Array, "B A T 4"],
        scales: Float[Array, "6 2 R"] | None = None,
    ) -> Float[Array, "B A D"]:
        """Tokens of the agents' pasts, without kind and pose."""
        return each_agent(self.history, series, scales)

    def roads(
        self,
        points: Float[Array, "B M P 3"],
        counted: Bool[Array, "B M"],
        statistics: Moments | None,
    ) -> tuple[Float[Array, "B M D"], Moments]:
        """Tokens of the lanes with their kind, without pose; see `LaneEmbedder`."""
        tokens, moments = self.lanes(points, counted, statistics)
        return tokens + self.lane_kind.astype(tokens.dtype), moments

    def with_kind(
        self, tokens: Float[Array, "B A D"], kind: Int[Array, "B A"]
    ) -> Float[Array, "B A D"]:
        """Tokens of agents and what they are."""
        return tokens + self.kinds[kind].astype(tokens.dtype)

    def place(self, pose: Float[Array, "B T 4"]) -> Float[Array, "B T D"]:
        """What poses add to tokens."""
        return self.pose(pose)

    def __call__(self, tokens, keys, scales=None):
        """The blocks and the last norm."""
        return self.blocks(tokens, keys, scales)

    def all_parts(self, series, points, counted, kind, pose):
        """Everything once, for `init`."""
        agents = self.with_kind(self.pasts(series), kind)
        lanes, _ = self.roads(points, counted, None)
        tokens = jnp.concatenate([agents, lanes], 1) + self.place(pose)
        return self(tokens, None)


def each_agent(embedder, series, scales=None):
    """An embedder over the agents of all scenes at once."""
    batch, agents = series.shape[:2]
    flat = series.reshape(batch * agents, *series.shape[2:])
    return embedder(flat, scales).reshape(batch, agents, -1)


class SceneDecoder(nn.Module):
    """From what the encoder saw to all pasts, futures and lanes.

    Attributes:
        size: of its blocks.
        steps: predicted of an agent, past and future.
        points: predicted of a lane.
    """

    size: Size
    steps: tuple[int, int]
    points: int

    @nn.compact
    def __call__(
        self,
        latent: Float[Array, "B T D"],
        keep: Bool[Array, "B T"],
        keys: Bool[Array, "B T"],
        pose: Float[Array, "B T 4"],
        agents: int,
    ) -> tuple[
        Float[Array, "B A t 2"], Float[Array, "B A u 2"], Float[Array, "B M p 2"]
    ]:
        """Predictions for all slots, hidden or not.

        Args:
            latent: the encoder's output, in the slots past, future, lane.
            keep: which slots the encoder saw; the others get a mask token.
            keys: which slots there are.
            pose: of all slots.
            agents: A, how many of the slots are pasts, and how many futures.
        """
        width, dtype = self.size.width, self.size.dtype
        start = nn.initializers.normal(0.02)
        x = Linear(width, dtype=dtype, name="embed")(latent)
        kinds = [
            self.param(f"{name}_token", start, (width,))
            for name in ("history", "future", "lane")
        ]
        lanes = latent.shape[1] - 2 * agents
        counts = jnp.array([agents, agents, lanes])
        slots = jnp.repeat(
            jnp.stack(kinds), counts, axis=0, total_repeat_length=latent.shape[1]
        )
        x = jnp.where(keep[..., None], x, slots.astype(x.dtype))
        x = x + PoseEmbedder(width, dtype, name="pose")(pose)
        x = at_least_float32(token_blocks(self.size, "blocks")(x, keys))
        history, future, lane = jnp.split(x, [agents, 2 * agents], axis=1)

        def head(tokens, name, length):
            flat = Linear(2 * length, name=name)(tokens)
            return flat.reshape(*tokens.shape[:2], length, 2)

        return (
            head(history, "history_head", self.steps[0]),
            head(future, "future_head", self.steps[1]),
            head(lane, "lane_head", self.points),
        )


def _mlp(x, name, *widths):
    """Linear layers with ReLU between them."""
    for index, width in enumerate(widths):
        x = Linear(width, name=f"{name}{index + 1}")(nn.relu(x) if index else x)
    return x


class FocalHead(nn.Module):
    """Several futures of the focal agent with their scores, one of each other agent.

    Attributes:
        modes: K, futures of the focal agent.
        steps: of a future.

    Reference: jchengai/forecast-mae model_forecast.py.
    """

    modes: int
    steps: int

    @nn.compact
    def __call__(
        self, agents: Float[Array, "B A D"]
    ) -> tuple[Float[Array, "B K T 2"], Float[Array, "B K"], Float[Array, "B A-1 T 2"]]:
        """Metres from the present position, in the frame of the scene; and logits."""
        agents = at_least_float32(agents)
        batch, _, width = agents.shape
        modes = Linear(self.modes * width, name="modes")(agents[:, 0])
        modes = modes.reshape(batch, self.modes, width)
        values = 2 * self.steps
        places = _mlp(modes, "place", 2 * width, width, values)
        logits = _mlp(modes, "score", 2 * width, width, 1)[..., 0]
        others = _mlp(agents[:, 1:], "other", 2 * width, values)
        return (
            places.reshape(batch, self.modes, self.steps, 2),
            logits,
            others.reshape(batch, -1, self.steps, 2),
        )


class WorldHead(nn.Module):
    """Several worlds, each a future of every agent, with a score for the whole.

    A world is told by the mark of its number beside the token; the scene is the mean
    of its agents' tokens.

    Attributes:
        modes: K, worlds.
        steps: of a future.

    Reference: jchengai/forecast-mae, multi-agent variant.
    """

    modes: int
    steps: int

    @nn.compact
    def __call__(
        self, agents: Float[Array, "B A D"], there: Bool[Array, "B A"]
    ) -> tuple[Float[Array, "B K A T 2"], Float[Array, "B K"]]:
        """Metres from each agent's present position; and logits of the worlds."""
        agents = at_least_float32(agents)
        batch, count, width = agents.shape
        marks = jnp.eye(self.modes, dtype=agents.dtype)

        def marked(x, axes):
            """[B, …, D] -> [B, K, …, D + K]"""
            shape = (batch, self.modes, *x.shape[1:-1])
            wide = jnp.broadcast_to(x[:, None], (*shape, width))
            mark = marks.reshape(1, self.modes, *(1,) * axes, self.modes)
            return jnp.concatenate(
                [wide, jnp.broadcast_to(mark, (*shape, self.modes))], -1
            )

        places = _mlp(marked(agents, 1), "place", 2 * width, width, 2 * self.steps)
        weight = there[..., None].astype(agents.dtype)
        scene = (agents * weight).sum(1) / jnp.maximum(weight.sum(1), 1.0)
        logits = _mlp(marked(scene, 0), "score", 2 * width, width, 1)[..., 0]
        return places.reshape(batch, self.modes, count, self.steps, 2), logits


def pose_of(
    center: Float[Array, "B T 2"], heading: Float[Array, "B T"]
) -> Float[Array, "B T 4"]:
    """(x, y, cos, sin), metres and radians."""
    turn = jnp.stack([jnp.cos(heading), jnp.sin(heading)], -1)
    return jnp.concatenate([center, turn], -1)
