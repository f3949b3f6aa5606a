"""The linear probe by LARS, as MAE's authors train it, on features that are given."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from sgmae_jax.evaluation.checks import check_features
