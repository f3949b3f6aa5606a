"""The systems, one file each; this registry is the only place that names them."""

from __future__ import annotations

import importlib
from types import ModuleType

METHODS = {
    "mae": "sgmae_jax.methods.mae",
}


def load(name: str) -> ModuleType:
    """The module of a method: its `FIELDS` and its `build(config, run)`."""
    return importlib.import_module(METHODS[name])
