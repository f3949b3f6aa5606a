"""Scores of frozen features, by neighbours and a closed-form probe; of segments."""

from sgmae_jax.evaluation.features import Features, extract_features, raw_pixels
from sgmae_jax.evaluation.knn import knn_accuracy
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
    "ProbeResult",
    "SegmentScores",
    "class_iou",
    "confusion",
    "extract_features",
    "knn_accuracy",
    "mean_iou",
    "pixel_accuracy",
    "raw_pixels",
    "ridge_probe",
    "score_segments",
]
