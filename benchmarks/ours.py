"""Our own training step at given sizes, as the training loop runs it."""

from __future__ import annotations

import functools

import jax
import numpy as np

from benchmarks.bare import Sizes
from sgmae_jax import methods
from sgmae_jax.config import default_config
from sgmae_jax.methods.base import Method, Run
from sgmae_jax.training.mesh import make_mesh, put_batch, state_shardings
from sgmae_jax.training.state import init_state
from sgmae_jax.training.step import jitted_step

# Of a bank, where one is kept.
EXAMPLES = 50_000
# Of a head, where one is trained.
CLASSES = 1000


def config_of(
    sizes: Sizes,
    batch: int,
    *,
    method: str = "mae",
    unroll: int = 1,
    dtype: str = "float32",
):
    """A config of the sizes given."""
    config = default_config(method)
    config.steps = 1000
    config.data.image_size = sizes.image
    config.data.batch_size = batch
    config.model.patch_size = sizes.patch
    config.model.width = sizes.width
    config.model.depth = sizes.depth
    config.model.heads = sizes.heads
    config.model.decoder_width = sizes.decoder_width
    config.model.decoder_depth = sizes.decoder_depth
    config.model.decoder_heads = sizes.decoder_heads
    config.model.unroll = unroll
    config.model.dtype = dtype
    config.mask.ratio = sizes.ratio
    return config


def random_batch(sizes: Sizes, batch: int) -> dict[str, np.ndarray]:
    """A batch as the loader makes them."""
    shape = (batch, sizes.image, sizes.image, 3)
    return {
        "image": np.random.default_rng(0).integers(0, 256, shape, np.uint8),
        "label": np.zeros(batch, np.int32),
        "id": np.arange(batch, dtype=np.int32),
        "epoch": np.zeros(batch, np.int32),
        "view": np.tile(np.float32([0, 1]), (batch, 2, 1)),
    }


def build(config) -> Method:
    """The configured method."""
    frozen = methods.frozen_networks(config)
    run = Run(1000, 1000, EXAMPLES, frozen, classes=CLASSES)
    return methods.load(config.method.name).build(config, run)


class Trainer:
    """The compiled step with its state, always on the same batch.

    Args:
        config: from `config_of`.
        sizes: the same.
        steps: how many a call makes, from step 0 of the run on.
        method: to train; None: the configured one.
    """

    def __init__(
        self, config, sizes: Sizes, *, steps: int = 1, method: Method | None = None
    ):
        mesh = make_mesh(config.mesh)
        self.method = method or build(config)
        start = functools.partial(init_state, self.method)
        key = jax.random.key(0)
        self.shardings = state_shardings(jax.eval_shape(start, key), mesh)
        self.state = jax.jit(start, out_shardings=self.shardings)(key)
        self._batches = {
            name: put_batch(random_batch(sizes, config.data.batch_size), mesh)
            for name in methods.streams(config)
        }
        self.phases = [self.method.phase(step, {}) for step in range(steps)]
        self.phase = self.phases[0]
        self.step = jitted_step(self.method, self.shardings)

    def lower(self):
        """The step, lowered but not compiled."""
        return self.step.lower(self.state, self._batches, self.phase)

    def __call__(self):
        """One step, or the steps asked for; returns the last one's metrics."""
        for phase in self.phases:
            self.state, metrics = self.step(self.state, self._batches, phase)
        return metrics
