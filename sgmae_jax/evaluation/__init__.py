"""Scores of frozen features: neighbours, linear probes, few shots; of segments."""

from sgmae_jax.evaluation.features import Features, extract_features, raw_pixels
from sgmae_jax.evaluation.few_shot import FewShot, few_shot_probe
from sgmae_jax.evaluation.knn import knn_accuracies, knn_accuracy
from sgmae_jax.evaluation.lars import lars_probe
from sgmae_jax.evaluation.probe import ProbeResult, ridge_probe
from sgmae_jax.evaluation.segmentation import (
    SegmentScores,
    class_iou,
    confusion,
    mean_iou,
    pixel_accuracy,
    score_segments,
)

__all__ = [
    "Features",
    "FewShot",
    "ProbeResult",
    "SegmentScores",
    "class_iou",
    "confusion",
    "extract_features",
    "few_shot_probe",
    "knn_accuracies",
    "knn_accuracy",
    "lars_probe",
    "mean_iou",
    "pixel_accuracy",
    "raw_pixels",
    "ridge_probe",
    "score_segments",
]
