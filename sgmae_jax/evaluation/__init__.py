"""Scores of frozen features: nearest neighbours and a closed-form linear probe."""

from sgmae_jax.evaluation.features import Features, extract_features, raw_pixels
from sgmae_jax.evaluation.knn import knn_accuracy
from sgmae_jax.evaluation.probe import ProbeResult, ridge_probe

__all__ = [
    "Features",
    "ProbeResult",
    "extract_features",
    "knn_accuracy",
    "raw_pixels",
    "ridge_probe",
]
