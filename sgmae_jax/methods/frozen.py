"""Frozen encoders from earlier runs, exported folders, or files of others.

What a run must know of one for ever, its sizes, is kept with the run (`Run.frozen`);
what it came from is read once, when the run begins.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

from sgmae_jax import methods
from sgmae_jax.config import (
    ConfigError,
    assign,
    config_from,
    default_config,
    flatten,
    grid_of,
    pair,
)
from sgmae_jax.methods.base import Method, Params, Run
from sgmae_jax.methods.image import make_autoencoder
from sgmae_jax.models import Autoencoder
from sgmae_jax.schema import FIELDS
from sgmae_jax.weights import (
    Weights,
    WeightsError,
    is_weights,
    read_weights,
    wishes,
)
from sgmae_jax.weights.fit import fit_positions, with_positions

# The fields of a config that make its autoencoder.
_FIELDS = ("model.", "data.image_size", "data.channels", "data.mean", "data.std")


def frozen_config(config, field: str, *, any_grid: bool = False) -> dict[str, Any]:
    """What the network that a config field names is like; no weight is read.

    Args:
        config: of the run that uses it, whose patches it must take.
        field: dotted name of the field. Its value is a run directory, whose newest
            sound checkpoint is meant, or weights as `read_weights` takes them, with
            the config's section `weights`.
        any_grid: it may have been made for images of another size; its positions then
            become this run's, a table among its parameters (`read_frozen` makes it).

    Returns:
        The fields of its config that make its autoencoder.

    Raises:
        ConfigError: there is neither, or it takes other patches.
    """
    path = flatten(config)[field]
    found, model = _described(config, field)
    if any_grid:
        size = {"data.image_size": pair(config.data.image_size)}
        found = {**found, **size, "model.positions": "learned"}
        model = frozen_model(found)
    mine = grid_of(config), pair(config.model.patch_size), config.data.channels
    theirs = model.grid, model.patch_size, model.channels
    if mine != theirs:
        raise ConfigError(
            f"config.{field} = {path!r}: must take this run's patches (grid, patch "
            f"size, channels: {mine}), takes {theirs}"
        )
    return found


def _described(config, field: str) -> tuple[dict[str, Any], Autoencoder]:
    """What a network says of itself: the fields of its config, and what they make."""
    path = flatten(config)[field]
    try:
        flat = _find(config, field)[0]()
        found = {name: flat[name] for name in flat if name.startswith(_FIELDS)}
        model = frozen_model(found)
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"config.{field} = {path!r}: does not say what its model is: {error}"
        ) from None
    return found, model


def frozen_model(fields: Mapping[str, Any]) -> Autoencoder:
    """The autoencoder that `frozen_config` has found; its encoder alone has weights."""
    config = default_config()
    for name, value in fields.items():
        assign(config, name, value)
    return make_autoencoder(config)


def read_frozen(config, field: str, model: Autoencoder) -> PyTree:
    """The encoder's parameters, float32 arrays.

    Args:
        config: of the run that uses them.
        field: see `frozen_config`.
        model: as `frozen_model` makes it.

    Raises:
        ConfigError: they are damaged, or do not fit the model.
        NoUsableCheckpoint: the run has no sound checkpoint.
    """
    path = flatten(config)[field]
    found = _find(config, field)[1]()
    if model.encoder.positions == "learned":
        theirs = _described(config, field)[1].encoder
        try:
            found = with_positions(found, theirs.grid)
            found = fit_positions(found, theirs.grid, model.grid)
        except (KeyError, ValueError) as error:
            raise ConfigError(f"config.{field} = {path!r}: {error}") from None
    wanted = jax.eval_shape(model.init, jax.random.key(0))["encoder"]
    if wrong := difference(found, wanted):
        raise ConfigError(f"config.{field} = {path!r}: the encoder's {wrong}")
    return found


def _find(
    config, field: str
) -> tuple[Callable[[], dict[str, Any]], Callable[[], PyTree]]:
    """How to read what the network is, and how its encoder."""
    path = flatten(config)[field]
    folder = Path(path)
    if (folder / "config.json").is_file() and (folder / "checkpoints").is_dir():
        says = folder / "config.json"
        return lambda: json.loads(says.read_text()), lambda: _read_run(folder)
    if not path or not is_weights(folder):
        raise ConfigError(
            f"config.{field} = {path!r}: must be a run directory with checkpoints, an "
            "exported folder, or a file or folder of weights"
        )

    def weights() -> Weights:
        try:
            return read_weights(folder, **wishes(config))
        except WeightsError as error:
            raise ConfigError(f"config.{field}: {error}") from None

    return lambda: weights().fields, lambda: weights().parts["encoder"]


def run_fields(config, field: str, method: str) -> dict[str, Any]:
    """The fields of the run that a config field names; no weight is read.

    Args:
        config: of the run that builds upon it.
        field: dotted name of the field, whose value is a run directory.
        method: that the run must be one of.

    Raises:
        ConfigError: there is no such run.
    """
    path = flatten(config)[field]
    folder = Path(path)
    if not ((folder / "config.json").is_file() and (folder / "checkpoints").is_dir()):
        raise ConfigError(
            f"config.{field} = {path!r}: must be a run directory with checkpoints"
        )
    found = json.loads((folder / "config.json").read_text())
    if found.get("method.name") != method:
        raise ConfigError(
            f"config.{field} = {path!r}: must be a run of {method}, is one of "
            f"{found.get('method.name')}"
        )
    return found


def read_run(folder: Path) -> tuple[Any, Method, Params]:
    """The best or newest sound checkpoint of a run.

    Args:
        folder: the run directory.

    Returns:
        (its config, its method, its parameters)

    Raises:
        NoUsableCheckpoint: it has none.
    """
    # Orbax is slow to import, and checking a config does not need it.
    from sgmae_jax.checkpointing import folder_of, read_meta, restore_params

    saved = folder_of(folder)
    step, meta = read_meta(saved)
    config = config_from(meta["config"])
    if not is_own(config.mask.fn):
        # Nothing is hidden from a frozen network, and a file may not name code to run.
        config.mask.fn = FIELDS["mask.fn"].default
        config.mask.options = {}
    method = methods.load(config.method.name).build(config, Run(**meta["run"]))
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    params = restore_params(saved, shapes, step=step)
    return config, method, params


def is_own(name: Any) -> bool:
    """Whether a dotted path that a file names is of this package."""
    return isinstance(name, str) and name.startswith("sgmae_jax.")


def _read_run(folder: Path) -> PyTree:
    _, method, params = read_run(folder)
    return method.encoder(params)


def difference(found: PyTree, wanted: PyTree) -> str | None:
    """The first leaf that is missing, too many, or of another shape; in words.

    Args:
        found: of an encoder or decoder.
        wanted: arrays or `ShapeDtypeStruct` as its config makes them.
    """

    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {
            jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape)
            for path, leaf in leaves
        }

    have, want = shapes(found), shapes(wanted)
    for name in sorted(have.keys() | want.keys()):
        if have.get(name) != want.get(name):
            return (
                f"{name} is {have.get(name, 'absent')}, its config makes "
                f"it {want.get(name, 'absent')}"
            )
    return None
