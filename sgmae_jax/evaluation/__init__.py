"""Scores of frozen features: nearest neighbours, linear probes, few-shot probes."""

from sgmae_jax.evaluation.features import Features, extract_features, raw_pixels
from sgmae_jax.evaluation.few_shot import FewShot, few_shot_probe
from sgmae_jax.evaluation.knn import knn_accuracies, knn_accuracy
from sgmae_jax.evaluation.lars import lars_probe
from sgmae_jax.evaluation.probe import ProbeResult, ridge_probe

__all__ = [
    "Features",
    "FewShot",
    "ProbeResult",
    "extract_features",
    "few_shot_probe",
    "knn_accuracies",
    "knn_accuracy",
    "lars_probe",
    "raw_pixels",
    "ridge_probe",
]
