"""Scores of frozen features: nearest neighbours and a closed-form linear probe."""

from sgmae_jax.evaluation.knn import knn_accuracy
from sgmae_jax.evaluation.probe import ProbeResult, ridge_probe

__all__ = [
    "ProbeResult",
    "knn_accuracy",
    "ridge_probe",
]
