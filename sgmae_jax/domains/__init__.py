"""The kinds of data, one module each; `data.source` says which one a run has.

A module of a domain holds what the training loop leaves to it:

* UNIT: what an item is called, in the singular; `+ "s"` in the plural. SHORT: the same
  in the plural, where there is little room.
* check(config): what its fields must agree on. Raises ConfigError.
* check_mask(config): tries the configured mask before anything is trained with it.
* open_source(config, split, *, in_memory): `Items`. Raises DataError.
* check_stream(source, name, stream): that it has what the stream asks for.
* facts(config, source): fields of `Run` that follow from the training data and from
  nothing else (its classes, columns, means); kept with the run for ever.
* make_rows(config, run, stream): how items become rows of batches, a `Rows`. With
  stream None, those of held-out items.
* make_scorer(config, method, run, place=…, say=…): scores during and after training,
  an object with the methods of image_scores.Scorer: online, final and as_metrics.
* artists(config, method): who draws pictures, by name: (params, batch, root key, step,
  phase) -> u8[height, width, 3].
* title(config): of the model, for the header of the console.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from sgmae_jax.config import ConfigError
from sgmae_jax.sources import domain_of


def load(name: str) -> ModuleType:
    """The module of a domain."""
    return importlib.import_module(f"sgmae_jax.domains.{name}")


def of_config(config) -> ModuleType:
    """The domain of a config's data source.

    Raises:
        ConfigError: no source is named, or the method does not take its kind of data.
    """
    from sgmae_jax import methods

    source = config.data.source
    name = domain_of(source)
    if name is None:
        raise ConfigError("config.data.source = None: must be named to train")
    takes = methods.domains_of(config.method.name)
    if name not in takes:
        raise ConfigError(
            f"config.data.source = {source!r}: holds {name}, method "
            f"{config.method.name} takes {' or '.join(takes)}"
        )
    return load(name)
