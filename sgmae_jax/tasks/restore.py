"""The run, or its newest sound checkpoint, that a task is about."""

from __future__ import annotations

import pathlib
from typing import Any

import jax

from sgmae_jax import methods
from sgmae_jax.checkpointing import folder_of, read_meta, restore_params
from sgmae_jax.config import (
    ConfigError,
    assign,
    config_from,
    default_config,
    flatten,
    validate,
)
from sgmae_jax.methods.base import Method, Run
from sgmae_jax.methods.frozen import difference, is_own
from sgmae_jax.training.console import Console
from sgmae_jax.training.mesh import make_mesh, placed, put_same, state_shardings
from sgmae_jax.weights import WeightsError, is_weights, read_weights, wishes


def restore_run(
    config, workdir: pathlib.Path, console: Console
) -> tuple[int, Any, Method, Any, dict[str, Any]]:
    """The best or newest sound checkpoint of a run.

    Returns:
        (step, its config with this one's wishes, method, parameters, meta)
    """
    run_directory = pathlib.Path(config.checkpoint.path or workdir)
    if takes_weights(run_directory):
        return _restore_weights(config, run_directory)
    if config.weights.image_size is not None or config.weights.channels is not None:
        raise ConfigError(
            "config.weights: image_size and channels are for weights; a run's "
            "checkpoint is taken as it is (export it first)"
        )
    folder = folder_of(run_directory)
    if not folder.is_dir():
        raise ConfigError(
            f"config.checkpoint.path = {str(run_directory)!r}: must be a run "
            "directory, one that holds checkpoints/, or weights"
        )
    step, meta = read_meta(folder, log=console.say)
    _check_named(meta["config"].get("mask.fn"), config)
    merged = _merge(meta["config"], config)
    method = methods.load(merged.method.name).build(merged, Run(**meta["run"]))
    shapes = jax.eval_shape(method.init, init_key(merged))
    shardings = state_shardings(shapes, make_mesh(merged.mesh), merged.mesh.rules)
    shapes = placed(shapes, shardings)
    params = restore_params(folder, shapes, step=step, log=console.say)
    return step, merged, method, params, meta


def takes_weights(path: pathlib.Path) -> bool:
    """Whether a path is a file or folder of weights, and no run."""
    return is_weights(path) and not (path / "checkpoints").is_dir()


def _restore_weights(config, path: pathlib.Path):
    """An exported or foreign network, as an MAE of no steps that could go on.

    Of a network without decoder the method has none either; there are parameters of a
    small fresh one, as an autoencoder has one, which nothing reads.
    """
    weights = read_weights(path, **wishes(config))
    merged = default_config()
    merged.data.source = None
    card = weights.card or {}
    try:
        for name, value in weights.fields.items():
            assign(merged, name, value)
        merged = _merge(flatten(merged), config)
        method = methods.load("mae").build(merged, Run(1, 1))
        shapes = jax.eval_shape(method.init, init_key(merged))
    except ValueError as error:
        raise WeightsError(f"{path}: its config makes no network: {error}") from None
    for part, tree in weights.parts.items():
        if wrong := difference(tree, shapes["model"][part]):
            raise WeightsError(f"{path}: the {part}'s {wrong}")
    if config.task == "evaluate" and merged.data.source is None:
        raise ConfigError(
            "config.data.source = None: must be named, weights know of no data"
        )
    parts = dict(weights.parts)
    if "decoder" not in parts:
        parts["decoder"] = jax.jit(method.init)(init_key(merged))["model"]["decoder"]
        method = method._replace(decoder=None)
    params = {"model": parts}
    shardings = state_shardings(params, make_mesh(merged.mesh), merged.mesh.rules)
    params = put_same(params, shardings)
    meta = {
        "config": flatten(merged),
        "run": {"steps_per_epoch": 1, "total_steps": 1},
        "data": {"fingerprint": card.get("data_fingerprint", "")},
        "weights": {
            "format": weights.form,
            "file": path.name,
            "sha256": weights.files,
            "left_out": list(weights.left_out),
        },
    }
    if card and config.weights.image_size is None and config.weights.channels is None:
        meta["card"] = {name: card[name] for name in ("method", "scores")}
    return card.get("step", 0), merged, method, params, meta


def _check_named(fn: Any, wished) -> None:
    """Code outside of this package runs only if the user's own config names it."""
    if not is_own(fn) and fn != wished.mask.fn:
        raise ConfigError(
            f"config.mask.fn: the run was trained with {fn!r}, which no checkpoint may "
            f"import; if you trust it, add --config.mask.fn={fn}"
        )


def _merge(trained: dict[str, Any], wished):
    """The checkpoint's config, with the data source and evaluation asked for."""
    merged = config_from(trained)
    merged.task = wished.task
    merged.eval = wished.eval
    merged.analyze = wished.analyze
    merged.laboratory = wished.laboratory
    merged.mesh = wished.mesh
    merged.weights = wished.weights
    merged.motion.cache = wished.motion.cache  # a path of this machine
    merged.data.cache = wished.data.cache  # likewise
    if wished.data.source is not None:
        merged.data.source = wished.data.source
    if wished.data.source is not None or wished.data.path:
        merged.data.path = wished.data.path
    validate(merged)
    return merged


def init_key(config) -> jax.Array:
    """The key that `init_state` gives to `method.init`."""
    return jax.random.fold_in(jax.random.key(config.seed), 0)
