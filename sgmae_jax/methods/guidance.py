"""Where the guidance of self-guided masking comes from, and how often it is made."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Float, Int

from sgmae_jax.masking import (
    Bank,
    Guidance,
    empty_bank,
    guide,
    read_bank,
    write_bank,
)
from sgmae_jax.methods.base import Batch, Batches, Metrics, Params, Run
from sgmae_jax.methods.image import whole_macs
from sgmae_jax.models import Autoencoder
from sgmae_jax.models.layers import layer_index
from sgmae_jax.models.macs import transformer_macs


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


class Guide:
    """The network whose features guide the masks, and the bank of what it said.

    Args:
        part: the config's `method` section.
        model: whose layers are read.
        run: for the size of the bank and of an epoch.
    """

    def __init__(self, part, model: Autoencoder, run: Run):
        self._part, self._model, self._run = part, model, run
        self.banked = part.refresh != "step"
        self._every = {
            "step": 1,
            "interval": part.refresh_steps,
            "bank": 0,
        }[part.refresh]
        self._read = ("encoder",) if part.part == "encoder" else ("encoder", "decoder")

    def init(self, model_params: Any) -> Params:
        """The sub-trees that guidance keeps: a copy of the model, a bank, none."""
        params: Params = {}
        if self._part.guide != "model":
            params["guide"] = self._copy(model_params)
        if self.banked:
            bank = empty_bank(self._run.examples, self._model.grid)
            params["bank"] = bank._asdict()
        return params

    def looks(self, step: int, begun: int) -> bool:
        """Whether guidance is made in a step (host integers)."""
        return bool(self._every) and (step - begun) % self._every == 0

    def sweeps(self, step: int, begun: int | None) -> bool:
        """Whether the bank is filled anew before a step (host integers)."""
        if self._part.refresh != "bank" or begun is None or step < begun:
            return False
        every = self._part.refresh_epochs * self._run.steps_per_epoch
        return (step - begun) % every == 0

    def absorb(
        self, params: Params, batch: Batch, step: Int[Array, ""], phase: Phase
    ) -> Params:
        """Puts the guidance of whole images into the bank."""
        params = self._with_snapshot(params, step, phase)
        found = self._look(params, batch)
        return self._remember(params, batch, found.relevance, step)

    def prepare(
        self,
        params: Params,
        batches: Batches,
        key: Array,
        step: Int[Array, ""],
        phase: Phase,
    ) -> tuple[Params, Batches, Metrics]:
        """Adds "relevance" f32[B,N] to the batch: looked at now, or from the bank."""
        del key
        if phase.begun is None:
            return params, batches, {}
        batch = batches["train"]
        if phase.look:
            params = self._with_snapshot(params, step, phase)
            found = self._look(params, batch)
            relevance = found.relevance
            if self.banked:
                params = self._remember(params, batch, relevance, step)
            metrics = {
                "guidance/degenerate": found.degenerate.mean(),
                "guidance/object": found.object.mean(),
                "guidance/eigenvalue": found.cut.eigenvalue.mean(),
                "guidance/gap": found.cut.gap.mean(),
                "guidance/residual": found.cut.residual.max(),
            }
        else:
            bank = Bank(**params["bank"])
            relevance, known = read_bank(bank, batch["id"], batch["view"])
            metrics = {"guidance/known": known.mean()}
        return params, {"train": {**batch, "relevance": relevance}}, metrics

    def follow(self, params: Params, step: Int[Array, ""]) -> Params:
        """After a step: the moving average, where that is what guides."""
        del step
        if self._part.guide != "ema":
            return {}
        average = optax.incremental_update(
            self._copy(params["model"]), params["guide"], 1 - self._part.ema_momentum
        )
        return {"guide": average}

    def flops(self) -> float:
        """FLOPs a step and image, averaged over steps with and without a look.

        Sweeps are not counted: they lie between steps. Nor is the eigen-solver, below
        1 % of the forward pass.
        """
        if not self._every:
            return 0.0
        part, (encoder, decoder) = (
            self._part,
            (self._model.encoder, self._model.decoder),
        )
        tokens = encoder.tokens
        of_encoder = part.part == "encoder"
        depth = 1 + layer_index(part.layer, (encoder if of_encoder else decoder).depth)
        macs = whole_macs(self._model, depth if of_encoder else encoder.depth)
        if not of_encoder:
            macs += (tokens + 1) * encoder.width * decoder.width + transformer_macs(
                tokens + 1,
                width=decoder.width,
                depth=depth,
                mlp_ratio=decoder.mlp_ratio,
            )
        return 2.0 * macs / self._every

    def _copy(self, model_params: Any) -> Params:
        return {name: model_params[name] for name in self._read}

    def _with_snapshot(self, params: Params, step: Array, phase: Phase) -> Params:
        """The guide becomes a copy of the model in the step that guidance begins."""
        if self._part.guide != "snapshot":
            return params
        guide = jax.lax.cond(
            step == phase.begun,
            lambda: self._copy(params["model"]),
            lambda: params["guide"],
        )
        return {**params, "guide": guide}

    def _look(self, params: Params, batch: Batch) -> Guidance:
        part = self._part
        source = params["model" if part.guide == "model" else "guide"]
        layer = self._model.layer(
            jax.lax.stop_gradient(source), batch["image"], part.layer, part=part.part
        )
        needs_maps = part.relation == "attention" or part.side == "cls_attention"
        return guide(
            layer.features[:, 1:],
            layer.attention if needs_maps else None,
            relation=part.relation,
            side=part.side,
            threshold=part.threshold,
            tau=part.tau,
            steps=part.steps,
            grid=self._model.grid,
        )

    def _remember(
        self,
        params: Params,
        batch: Batch,
        relevance: Float[Array, "B N"],
        step: Int[Array, ""],
    ) -> Params:
        bank = Bank(**params["bank"])
        bank = write_bank(bank, batch["id"], relevance, batch["view"], step)
        return {**params, "bank": bank._asdict()}
