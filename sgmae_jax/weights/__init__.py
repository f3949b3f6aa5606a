"""Weights in and out: plain files that other programs write and read."""

from sgmae_jax.weights.errors import WeightsError
from sgmae_jax.weights.export import CorruptExport, export_encoder, load_encoder
from sgmae_jax.weights.formats import write_weights
from sgmae_jax.weights.reading import Weights, is_weights, read_weights, wishes

__all__ = [
    "CorruptExport",
    "Weights",
    "WeightsError",
    "export_encoder",
    "is_weights",
    "load_encoder",
    "read_weights",
    "wishes",
    "write_weights",
]
