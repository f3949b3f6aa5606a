"""Encoders as plain files that other programs can read."""

from sgmae_jax.weights.export import CorruptExport, export_encoder, load_encoder

__all__ = ["CorruptExport", "export_encoder", "load_encoder"]
