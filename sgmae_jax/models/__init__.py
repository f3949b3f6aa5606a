"""Flax Linen modules, and the autoencoder as functions of a plain parameter tree."""

from sgmae_jax.models.autoencoder import Autoencoder, Encoded, Prediction
from sgmae_jax.models.decoder import Decoder
from sgmae_jax.models.encoder import Encoder
from sgmae_jax.models.patches import normalise_patches, patchify, unpatchify
from sgmae_jax.models.positions import resize_positions, sincos_table
from sgmae_jax.models.presets import DECODER, PRESETS, Size

__all__ = [
    "DECODER",
    "PRESETS",
    "Autoencoder",
    "Decoder",
    "Encoded",
    "Encoder",
    "Prediction",
    "Size",
    "normalise_patches",
    "patchify",
    "resize_positions",
    "sincos_table",
    "unpatchify",
]
