"""The systems, one file each; this registry is the only place that names them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from sgmae_jax.methods.base import Stream

METHODS = {
    "mae": "sgmae_jax.methods.mae",
    "self_guided": "sgmae_jax.methods.self_guided",
    "rc_mae": "sgmae_jax.methods.rc_mae",
    "dbot": "sgmae_jax.methods.dbot",
    "lc_mae": "sgmae_jax.methods.lc_mae",
    "local_siamese": "sgmae_jax.methods.local_siamese",
    "cl_mae": "sgmae_jax.methods.cl_mae",
    "automae": "sgmae_jax.methods.automae",
    "mlo_mae": "sgmae_jax.methods.mlo_mae",
    "supervised_mae": "sgmae_jax.methods.supervised_mae",
    "finetune": "sgmae_jax.methods.finetune",
    "linear_probe": "sgmae_jax.methods.linear_probe",
    "segment": "sgmae_jax.methods.segment",
    "sma": "sgmae_jax.methods.sma",
    "sma_finetune": "sgmae_jax.methods.sma_finetune",
    "forecast_mae": "sgmae_jax.methods.forecast_mae",
    "forecast": "sgmae_jax.methods.forecast",
}


def load(name: str) -> ModuleType:
    """The module of a method: its `FIELDS` and its `build(config, run)`."""
    return importlib.import_module(METHODS[name])


def domains_of(name: str) -> tuple[str, ...]:
    """The kinds of data that a method takes, images where its file does not say."""
    return getattr(load(name), "DOMAINS", ("images",))


def streams(config) -> Mapping[str, Stream]:
    """The batches a step of the config's method is given, by name.

    A method that needs more than one stream defines `streams(config)` in its file.
    """
    module = load(config.method.name)
    if hasattr(module, "streams"):
        return module.streams(config)
    return {"train": Stream()}


def frozen_networks(config) -> dict[str, dict[str, Any]]:
    """What the networks are like that a config takes from files, by sub-tree of params.

    Teachers and scorers stay as they are, an encoder to be fine-tuned is where its
    sub-tree starts. A method that takes any defines `frozen(config)` in its file.

    Raises:
        ConfigError: one is not there or does not fit.
    """
    module = load(config.method.name)
    return module.frozen(config) if hasattr(module, "frozen") else {}
