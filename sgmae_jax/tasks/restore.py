"""The run, or its newest sound checkpoint, that a task is about."""

from __future__ import annotations

import pathlib
from typing import Any

import jax

from sgmae_jax import methods
from sgmae_jax.checkpointing import folder_of, read_meta, restore_params
from sgmae_jax.config import ConfigError, config_from, validate
from sgmae_jax.methods.base import Method, Run
from sgmae_jax.training.console import Console
from sgmae_jax.training.mesh import make_mesh, placed, state_shardings


def restore_run(
    config, workdir: pathlib.Path, console: Console
) -> tuple[int, Any, Method, Any, dict[str, Any]]:
    """The best or newest sound checkpoint of a run.

    Returns:
        (step, its config with this one's wishes, method, parameters, meta)
    """
    run_directory = pathlib.Path(config.checkpoint.path or workdir)
    folder = folder_of(run_directory)
    if not folder.is_dir():
        raise ConfigError(
            f"config.checkpoint.path = {str(run_directory)!r}: must be a run "
            "directory, one that holds checkpoints/"
        )
    step, meta = read_meta(folder, log=console.say)
    merged = _merge(meta["config"], config)
    method = methods.load(merged.method.name).build(merged, Run(**meta["run"]))
    shapes = jax.eval_shape(method.init, init_key(merged))
    shapes = placed(shapes, state_shardings(shapes, make_mesh(merged.mesh)))
    params = restore_params(folder, shapes, step=step, log=console.say)
    return step, merged, method, params, meta


def _merge(trained: dict[str, Any], wished):
    """The checkpoint's config, with the data source and evaluation asked for."""
    merged = config_from(trained)
    merged.task = wished.task
    merged.eval = wished.eval
    merged.analyze = wished.analyze
    merged.mesh = wished.mesh
    if wished.data.source is not None:
        merged.data.source = wished.data.source
    if wished.data.source is not None or wished.data.path:
        merged.data.path = wished.data.path
    validate(merged)
    return merged


def init_key(config) -> jax.Array:
    """The key that `init_state` gives to `method.init`."""
    return jax.random.fold_in(jax.random.key(config.seed), 0)
