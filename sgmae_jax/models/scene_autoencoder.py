"""Forecast-MAE's networks as functions of a plain parameter tree and a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from sgmae_jax.masking import SceneMask
from sgmae_jax.models.agents import BLOCKS, AgentEmbedder
from sgmae_jax.models.layers import drop_path_scales
from sgmae_jax.models.scene import (
    Moments,
    SceneDecoder,
    SceneEncoder,
    each_agent,
    pose_of,
)

Batch = Mapping[str, Array]


class Present(NamedTuple):
    """What there is in a batch: agents, those with a future, lanes."""

    agents: Bool[Array, "B A"]
    futures: Bool[Array, "B A"]
    lanes: Bool[Array, "B M"]


class Branches(NamedTuple):
    """What the branches of all blocks are multiplied by; see `drop_path_scales`."""

    history: Float[Array, "6 2 R"]
    future: Float[Array, "6 2 R"]
    blocks: Float[Array, "L 2 B"]


class ScenePrediction(NamedTuple):
    """Metres, agents from their present position, lane points from their centre.

    Attributes:
        history: of all agents.
        future: likewise.
        lanes: of all lanes.
        moments: that the lane embedder standardised by.
    """

    history: Float[Array, "B A 50 2"]
    future: Float[Array, "B A 60 2"]
    lanes: Float[Array, "B M 20 2"]
    moments: Moments


@dataclass(frozen=True)
class SceneAutoencoder:
    """Encoder, embedder of futures and decoder.

    Attributes:
        encoder: what fine-tuning takes over.
        decoder: only for pre-training.
        history_steps: T of the past.
        released: as the authors' code does it: missing points of lanes lie at the
            origin, padding takes part in the lanes' norm, and in pre-training padded
            slots are attended to.
    """

    encoder: SceneEncoder
    decoder: SceneDecoder
    history_steps: int
    released: bool = False

    @property
    def future_embedder(self) -> AgentEmbedder:
        """Embeds futures; has weights of its own."""
        size = self.encoder.size
        return AgentEmbedder(size.width, size.dtype)

    def present(self, batch: Batch) -> Present:
        """Who and what is in a batch."""
        seen = batch["agent_present"]
        return Present(
            seen.any(-1),
            seen[..., self.history_steps :].any(-1),
            batch["lane_present"].any(-1),
        )

    def init_encoder(self, key: Array, batch: Batch) -> PyTree:
        """Fresh parameters of the encoder."""
        pasts, points = self.pasts(batch), self.points(batch)
        given = (pasts, points, self.counted(batch), batch["agent_kind"])
        pose = self.poses(batch, futures=False)
        made = self.encoder.init(key, *given, pose, method=SceneEncoder.all_parts)
        return made["params"]

    def init(self, key: Array, batch: Batch) -> dict[str, PyTree]:
        """Fresh parameters: encoder, future, decoder."""
        keys = jax.random.split(key, 3)
        futures = self.futures(batch)[:, :1]
        future = self.future_embedder.init(keys[1], futures[:, 0])["params"]
        pose = self.poses(batch, futures=True)
        keep = jnp.ones(pose.shape[:2], bool)
        latent = jnp.zeros((*pose.shape[:2], self.encoder.size.width))
        agents = batch["agent_kind"].shape[1]
        decoder = self.decoder.init(keys[2], latent, keep, keep, pose, agents)
        return {
            "encoder": self.init_encoder(keys[0], batch),
            "future": future,
            "decoder": decoder["params"],
        }

    def pasts(self, batch: Batch) -> Float[Array, "B A 50 4"]:
        """Steps, changes of speed, and where they are known."""
        seen = batch["agent_present"][..., : self.history_steps]
        columns = [batch["agent_speed_change"], seen.astype(jnp.float32)]
        return jnp.concatenate([batch["agent_steps"], jnp.stack(columns, -1)], -1)

    def futures(self, batch: Batch) -> Float[Array, "B A 60 3"]:
        """Places from the present one, and where they are known."""
        seen = batch["agent_present"][..., self.history_steps :]
        known = seen[..., None].astype(jnp.float32)
        return jnp.concatenate([batch["agent_future"], known], -1)

    def points(self, batch: Batch) -> Float[Array, "B M 20 3"]:
        """Lane points from their centre, and which are there."""
        known = batch["lane_present"][..., None]
        offset = batch["lane_points"] - batch["lane_center"][:, :, None]
        if not self.released:
            # Deviation: in the released code a missing point lies at the origin of the
            # scene, and so at minus the centre.
            offset = jnp.where(known, offset, 0.0)
        return jnp.concatenate([offset, known.astype(jnp.float32)], -1)

    def counted(self, batch: Batch) -> Bool[Array, "B M"]:
        """Lanes that count in the statistics of their norm."""
        there = self.present(batch).lanes
        return jnp.ones_like(there) if self.released else there

    def poses(self, batch: Batch, *, futures: bool) -> Float[Array, "B T 4"]:
        """Of pasts, futures (if asked for) and lanes."""
        agents = pose_of(batch["agent_center"], batch["agent_heading"])
        lanes = pose_of(batch["lane_center"], batch["lane_heading"])
        parts = [agents, agents, lanes] if futures else [agents, lanes]
        return jnp.concatenate(parts, 1)

    def roads(
        self, params: Any, batch: Batch, statistics: Moments | None
    ) -> tuple[Float[Array, "B M D"], Moments]:
        """Tokens of lanes, and the statistics they were standardised by."""
        return self._apply(
            params,
            SceneEncoder.roads,
            self.points(batch),
            self.counted(batch),
            statistics,
        )

    def encode(
        self,
        params: Any,
        batch: Batch,
        statistics: Moments | None,
        branches: Branches | None = None,
    ) -> Float[Array, "B A+M D"]:
        """Pasts and lanes of whole scenes, nothing hidden; padding is not attended to.

        Args:
            params: of the encoder.
            batch: see `Scene`.
            statistics: running ones of the lane embedder; None: those of the batch.
            branches: for drop path; None drops nothing.
        """
        there = self.present(batch)
        own = branches or Branches(None, None, None)  # type: ignore[arg-type]
        agents = self._agents(params, batch, own.history)
        lanes, _ = self.roads(params, batch, statistics)
        pose = self._apply(params, SceneEncoder.place, self.poses(batch, futures=False))
        tokens = jnp.concatenate([agents, lanes], 1) + pose
        keys = jnp.concatenate([there.agents, there.lanes], 1)
        return self._apply(params, SceneEncoder.__call__, tokens, keys, own.blocks)

    def predict(
        self,
        params: Any,
        batch: Batch,
        mask: SceneMask,
        statistics: Moments | None,
        branches: Branches | None = None,
    ) -> ScenePrediction:
        """The one forward pass of the autoencoder.

        Hidden slots are computed and never attended to: the same numbers as if the
        others had been gathered, with shapes that do not depend on the mask.

        Args:
            params: encoder, future, decoder.
            batch: see `Scene`.
            mask: what the encoder sees.
            statistics: as of `encode`.
            branches: likewise.
        """
        there = self.present(batch)
        own = branches or Branches(None, None, None)  # type: ignore[arg-type]
        encoder = params["encoder"]
        pasts = self._agents(encoder, batch, own.history)

        def embed(series, scales):
            return self.future_embedder.apply(
                {"params": params["future"]}, series, scales
            )

        futures = each_agent(embed, self.futures(batch), own.future)
        futures = self._apply(
            encoder, SceneEncoder.with_kind, futures, batch["agent_kind"]
        )
        lanes, moments = self.roads(encoder, batch, statistics)
        pose = self.poses(batch, futures=True)
        tokens = jnp.concatenate([pasts, futures, lanes], 1)
        tokens = tokens + self._apply(encoder, SceneEncoder.place, pose)
        keep = jnp.concatenate(mask, 1)
        keys: Array = keep
        if self.released:
            fill = jnp.concatenate([_fillers(one) for one in mask], 1)
            tokens = jnp.where(fill[..., None], 0.0, tokens)
            never = jnp.finfo(jnp.float32).min
            keys = jnp.where(keep, 0.0, jnp.where(fill, 1.0, never))
        latent = self._apply(encoder, SceneEncoder.__call__, tokens, keys, own.blocks)
        found: Any = self.decoder.apply(
            {"params": params["decoder"]},
            latent,
            keep,
            jnp.concatenate(there, 1),
            pose,
            batch["agent_kind"].shape[1],
        )
        history, future, lane = found
        return ScenePrediction(history, future, lane, moments)

    def branches(
        self, keys: Array, batch: Batch, rate: float, depth: int
    ) -> Branches | None:
        """Drop path, decided scene by scene, in the embedders agent by agent.

        Args:
            keys: one a scene.
            batch: for its number of agents.
            rate: in the last block of each part, in [0, 1).
            depth: blocks of the encoder.
        """
        if not rate:
            return None
        agents = batch["agent_kind"].shape[1]
        three = jax.vmap(lambda key: jax.random.split(key, 3))(keys)

        def each(column):
            def of_agent(key):
                return jax.vmap(lambda n: jax.random.fold_in(key, n))(
                    jnp.arange(agents)
                )

            flat = jax.vmap(of_agent)(column).reshape(-1)
            return drop_path_scales(flat, depth=BLOCKS, rate=rate)

        return Branches(
            each(three[:, 0]),
            each(three[:, 1]),
            drop_path_scales(three[:, 2], depth=depth, rate=rate),
        )

    def _agents(self, params, batch, scales):
        pasts = self._apply(params, SceneEncoder.pasts, self.pasts(batch), scales)
        return self._apply(params, SceneEncoder.with_kind, pasts, batch["agent_kind"])

    def _apply(self, params, method, *given):
        return self.encoder.apply({"params": params}, *given, method=method)


def _fillers(kept: Bool[Array, "B S"]) -> Bool[Array, "B S"]:
    """Slots that fill each scene's kept ones up to the most that any scene has."""
    count = kept.sum(-1, keepdims=True)
    rank = jnp.cumsum(~kept, -1) - 1
    return ~kept & (rank < count.max() - count)
