"""Between steps: a method's look at held-out images, and what it decides by it."""

from __future__ import annotations

import jax
from jax.sharding import Mesh

from sgmae_jax import domains
from sgmae_jax.data import DataError, Items
from sgmae_jax.methods.base import Marks, Method, Run
from sgmae_jax.training.console import Console
from sgmae_jax.training.inputs import held_out_batch
from sgmae_jax.training.mesh import put_batch, replicated
from sgmae_jax.training.state import TrainState
from sgmae_jax.training.writers import Writer


class Watch:
    """Runs a method's monitor, if it has one, where it is due.

    Args:
        config: of the run; the images are of its `eval.split`.
        run: that the method was built for.
        method: whose monitor is run.
        mesh: where it is computed.
        training: shown instead where the data have no such split.
        writer: gets what is measured.
        console: is told what is decided.
    """

    def __init__(
        self,
        config,
        run: Run,
        method: Method,
        mesh: Mesh,
        training: Items,
        writer: Writer,
        console: Console,
    ):
        self._monitor, self._writer, self._console = method.monitor, writer, console
        if self._monitor is None:
            return
        self._measure = jax.jit(self._monitor.measure, out_shardings=replicated(mesh))
        try:
            domain = domains.of_config(config)
            source = domain.open_source(config, config.eval.split, in_memory=False)
        except DataError as error:
            console.say(f"no held-out images, training images are watched: {error}")
            source = training
        rows = held_out_batch(config, run, source, self._monitor.images, mesh.size)
        self._batch = put_batch(rows, mesh)

    def look(self, step: int, state: TrainState, marks: Marks) -> Marks:
        """Measures, logs and decides before a step; most steps do nothing."""
        if self._monitor is None or not self._monitor.due(step):
            return marks
        key = jax.random.wrap_key_data(state.key)
        found = self._measure(state.params, self._batch, key, state.step)
        values = {name: float(value) for name, value in found.items()}
        self._writer.write(step, values)
        decided = self._monitor.decide(step, values, marks)
        for name in decided.keys() - marks.keys():
            self._console.say(f"step {step}: marked: {name}")
        return decided
