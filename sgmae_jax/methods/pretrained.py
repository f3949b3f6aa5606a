"""An encoder from an earlier run, for the methods that tune or probe one.

What it is like is the encoder's business: sizes, mean and deviation of its pixels. How
to compute is the run's, and so is the size of the images: the table of positions is
interpolated to their grid, and is a parameter from there on.
"""

from __future__ import annotations

from sgmae_jax import rules
from sgmae_jax.methods.base import Params, Run
from sgmae_jax.methods.frozen import frozen_config, frozen_model, read_frozen
from sgmae_jax.methods.image import make_autoencoder
from sgmae_jax.models import Autoencoder
from sgmae_jax.rules import Field

FIELD = Field("", rules.path, "a run or weights; empty: random")
_NAME = "method.encoder"
_COMPUTE = ("dtype", "attention", "unroll", "remat")


def frozen(config):
    """What the named encoder is like, or nothing where none is named.

    Raises:
        ConfigError: it is not there, or takes other patches or channels.
    """
    if not config.method.encoder:
        return {}
    return {"model": frozen_config(config, _NAME, any_grid=True)}


def pretrained_model(config, run: Run) -> Autoencoder:
    """Of the given encoder's sizes, or of the config's; the decoder has no weights."""
    if "model" not in run.frozen:
        return make_autoencoder(config)
    own = {f"model.{name}": config.model[name] for name in _COMPUTE}
    return frozen_model({**run.frozen["model"], **own})


def pretrained_params(config, run: Run, model: Autoencoder) -> Params:
    """The given encoder's parameters as the sub-tree "model", or nothing.

    Raises:
        ConfigError, NoUsableCheckpoint: as `read_frozen`.
    """
    if "model" not in run.frozen:
        return {}
    return {"model": {"encoder": read_frozen(config, _NAME, model)}}
