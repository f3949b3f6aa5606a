"""Scenes as pictures: what was hidden, what was made of it, what is forecast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sgmae_jax.analysis.scenes import forecast_sheet, reconstruction_sheet
from sgmae_jax.methods.base import Method
from sgmae_jax.processes import fetch

_ROWS = 3


def artists(config, method: Method) -> dict[str, Callable[..., np.ndarray]]:
    """Those who draw what the method can show, by the name of their pictures."""
    del config
    found: dict[str, Callable[..., np.ndarray]] = {}
    if method.picture:
        look = jax.jit(method.picture, static_argnums=4)

        def reconstruction(params, batch, *rest):
            shown = look(params, batch, *rest)
            return reconstruction_sheet(_first(batch), _first(shown))

        found["reconstruction"] = reconstruction
    if method.answer:
        answer = jax.jit(method.answer)

        def forecast(params, batch, *rest):
            del rest
            return forecast_sheet(_first(batch), _first(answer(params, batch)))

        found["forecast"] = forecast
    return found


def _first(tree: Any) -> Any:
    return fetch(jax.tree.map(lambda rows: rows[:_ROWS], tree))
