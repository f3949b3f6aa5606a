"""A frozen encoder from an earlier run, or from an exported folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from sgmae_jax import methods
from sgmae_jax.checkpointing import read_meta, restore_params
from sgmae_jax.config import ConfigError, config_from, grid_of, pair
from sgmae_jax.methods.base import Run
from sgmae_jax.methods.image import make_autoencoder
from sgmae_jax.models import Autoencoder
from sgmae_jax.weights.export import CARD, CorruptExport, load_encoder


class Frozen(NamedTuple):
    """An encoder whose parameters are on the disk.

    Attributes:
        model: its sizes; of its parameters only {"encoder": ...} are there.
        read: () -> the encoder's parameters. Raises ConfigError if they are damaged or
            do not fit `model`, and what the checkpoint raises.
    """

    model: Autoencoder
    read: Callable[[], PyTree]


def open_frozen(config, field: str, path: str) -> Frozen:
    """The encoder that a config field names; only its sizes are read now.

    Args:
        config: of the run that uses it, whose patches it must see.
        field: dotted name of the config field, for messages.
        path: a run directory, whose newest sound checkpoint is meant, or a folder as
            the task `export` writes it (that is what imported weights are kept in).

    Raises:
        ConfigError: there is neither, or it takes other patches.
    """
    folder = Path(path)
    if (folder / CARD).is_file():
        source, read = folder / CARD, _read_export
    elif (folder / "config.json").is_file() and (folder / "checkpoints").is_dir():
        source, read = folder / "config.json", _read_run
    else:
        raise ConfigError(
            f"config.{field} = {path!r}: must be a run directory with checkpoints, or "
            "a folder with an exported encoder"
        )
    try:
        flat = json.loads(source.read_text())
        flat = flat["config"] if source.name == CARD else flat
        model = make_autoencoder(config_from(flat))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"config.{field} = {path!r}: its {source.name} does not say what its "
            f"model is: {error}"
        ) from None

    mine = grid_of(config), pair(config.model.patch_size), config.data.channels
    theirs = model.grid, model.patch_size, model.channels
    if mine != theirs:
        raise ConfigError(
            f"config.{field} = {path!r}: must take this run's patches (grid, patch "
            f"size, channels: {mine}), takes {theirs}"
        )

    def encoder() -> PyTree:
        try:
            found = read(folder)
        except CorruptExport as error:
            raise ConfigError(f"config.{field} = {path!r}: {error}") from None
        wanted = jax.eval_shape(model.init, jax.random.key(0))["encoder"]
        if wrong := _difference(found, wanted):
            raise ConfigError(f"config.{field} = {path!r}: {wrong}")
        return found

    return Frozen(model, encoder)


def _read_export(folder: Path) -> PyTree:
    return load_encoder(folder)[0]


def _read_run(folder: Path) -> PyTree:
    step, meta = read_meta(folder / "checkpoints")
    config = config_from(meta["config"])
    method = methods.load(config.method.name).build(config, Run(**meta["run"]))
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    return method.encoder(restore_params(folder / "checkpoints", shapes, step=step))


def _difference(found: PyTree, wanted: PyTree) -> str | None:
    """The first leaf that is missing, too many, or of another shape; in words."""

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
                f"the encoder's {name} is {have.get(name, 'absent')}, its config makes "
                f"it {want.get(name, 'absent')}"
            )
    return None
