"""An encoder from a run of SMA, with the columns it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from sgmae_jax.config import ConfigError, assign, default_config
from sgmae_jax.methods.base import Params, Run
from sgmae_jax.methods.frozen import difference, read_run, run_fields
from sgmae_jax.methods.sma_networks import ENCODER_FIELDS, input_shape, make_encoder
from sgmae_jax.models.sma import SmaEncoder
from sgmae_jax.models.sma_autoencoder import init_encoder
from sgmae_jax.sources import domain_of

_SIZES = (
    *("preset", "width", "depth", "heads", "mlp_ratio", "patch_size"),
    *("dtype", "unroll", "remat", "decoder_heads"),
)
_FIELDS = (
    *(f"model.{name}" for name in _SIZES),
    *(f"method.{name}" for name in ENCODER_FIELDS),
    *("data.image_size", "data.channels", "data.mean", "data.std"),
)


def check(config) -> dict[str, Any]:
    """The fields of the run that `method.encoder` names, or none; no weight is read.

    Raises:
        ConfigError: there is no such run of SMA, or it is one on another kind of data.
    """
    path = config.method.encoder
    if not path:
        return {}
    flat = run_fields(config, "method.encoder", "sma")
    mine, theirs = (domain_of(s) for s in (config.data.source, flat["data.source"]))
    if mine != theirs:
        raise ConfigError(
            f"config.method.encoder = {path!r}: must have been trained on {mine}, was "
            f"on {theirs}"
        )
    return {name: flat[name] for name in _FIELDS}


def frozen(config) -> dict[str, dict[str, Any]]:
    """What the given encoder is like, as "model": fields of its config, and "inputs".

    Raises:
        ConfigError: see `check`.
        NoUsableCheckpoint: the run has no sound checkpoint.
    """
    fields = check(config)
    if not fields:
        return {}
    # Orbax is slow to import, and checking a config does not need it.
    from sgmae_jax.checkpointing import folder_of, read_meta

    _, meta = read_meta(folder_of(Path(config.method.encoder)))
    inputs = meta["run"]["facts"].get("inputs", {})
    return {"model": {**fields, "inputs": inputs}}


def described(config, run: Run) -> Any:
    """The run's config, with the sizes of the encoder it was given."""
    if "model" not in run.frozen:
        return config
    merged = default_config(config.method.name)
    for name in _FIELDS:
        assign(merged, name, run.frozen["model"][name])
    for name in ("dtype", "unroll", "remat", "decoder_heads"):
        merged.model[name] = config.model[name]
    return merged


def make(config, run: Run, **options: Any) -> SmaEncoder:
    """The encoder: as it was given, or as the config describes it."""
    given = run.frozen.get("model", {}).get("inputs") or run.facts.get("inputs", {})
    merged = described(config, run)
    return make_encoder(merged, input_shape(merged, given), **options)


def read(config, run: Run) -> Params:
    """The given encoder's parameters as the sub-tree "model", or nothing.

    Raises:
        ConfigError: they do not fit.
        NoUsableCheckpoint: the run has no sound checkpoint.
    """
    if "model" not in run.frozen:
        return {}
    _, method, params = read_run(Path(config.method.encoder))
    found = method.encoder(params)
    encoder = make(config, run)
    wanted = jax.eval_shape(lambda key: init_encoder(encoder, key), jax.random.key(0))
    if wrong := difference(found, wanted):
        raise ConfigError(
            f"config.method.encoder = {config.method.encoder!r}: the encoder's {wrong}"
        )
    return {"model": {"encoder": found}}
