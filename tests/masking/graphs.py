"""Features whose graphs are easy or hard to cut in two, and the cut in float64.

How hard a graph is says the ratio of the third to the second eigenvalue of
D^-1/2 W D^-1/2: every step of an iteration that looks for the second shrinks the third
by that much.
"""

from typing import NamedTuple

import numpy as np

SIDE, TOKENS = 14, 14 * 14


class Reference(NamedTuple):
    """By `numpy.linalg.eigh` in float64; mu = 1 - lambda, from the largest down."""

    vector: np.ndarray
    mu: np.ndarray


def two_patterns(images: int, seed: int = 0, noise: float = 1.5):
    """Easy: a disc of one pattern on another, and noise. Ratios of 0.1 to 0.4.

    Returns:
        Features f32[B, 196, 64], and where the disc is, bool[B, 196].
    """
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:SIDE, :SIDE]
    center = rng.uniform(4, 9, (images, 2, 1, 1))
    radius = rng.uniform(3, 4.5, (images, 1, 1))
    distance = np.hypot(row - center[:, 0], column - center[:, 1])
    disc = (distance < radius).reshape(images, TOKENS)
    pattern = rng.standard_normal((images, 2, 64))
    features = np.where(disc[..., None], pattern[:, :1], pattern[:, 1:])
    features += noise * rng.standard_normal(features.shape)
    return features.astype(np.float32), disc


def smooth_fields(images: int, seed: int = 0, width: int = 256, length: float = 1.0):
    """Hard: random fields, correlated over `length` patches, and noise.

    Returns:
        Features f32[B, 196, width]; those whose ratio is 0.92 to 0.99.
    """
    rng = np.random.default_rng(seed)
    frequency = np.fft.fftfreq(SIDE)
    squared = frequency[:, None] ** 2 + frequency**2
    filter_ = np.exp(-2 * (np.pi * length) ** 2 * squared)
    chosen = np.zeros((0, TOKENS, width), np.float32)
    while len(chosen) < images:
        white = rng.standard_normal((images, width, SIDE, SIDE))
        field = np.fft.ifft2(np.fft.fft2(white) * filter_).real
        features = field.reshape(images, width, TOKENS).swapaxes(1, 2)
        features /= features.std(1, keepdims=True)
        features += 0.5 * rng.standard_normal(features.shape)
        ratio = ratios(reference(weights_of(features)))
        kept = features[(ratio > 0.92) & (ratio < 0.99)]
        chosen = np.concatenate([chosen, kept.astype(np.float32)])
    return chosen[:images]


def weights_of(features: np.ndarray) -> np.ndarray:
    """W = max(cosine, 0) + 1e-5, f32[B, N, N]."""
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    cosines = unit @ unit.swapaxes(-1, -2)
    return (np.maximum(cosines, 0) + 1e-5).astype(np.float32)


def symmetric(weights: np.ndarray) -> np.ndarray:
    """D^-1/2 W D^-1/2 in float64."""
    weights = np.asarray(weights, np.float64)
    scale = weights.sum(-1) ** -0.5
    return weights * scale[..., :, None] * scale[..., None, :]


def reference(weights: np.ndarray) -> Reference:
    """The second generalised eigenvector, and all eigenvalues."""
    mu, vectors = np.linalg.eigh(symmetric(weights))
    scale = np.asarray(weights, np.float64).sum(-1) ** -0.5
    return Reference(vectors[..., -2] * scale, mu[..., ::-1])


def ratios(found: Reference) -> np.ndarray:
    """Third eigenvalue over the second, of each graph."""
    return found.mu[:, 2] / found.mu[:, 1]


def agreement(vector, expected: np.ndarray) -> np.ndarray:
    """Share of tokens on the same side, of each graph, whichever way round."""
    same = ((np.asarray(vector) > 0) == (expected > 0)).mean(-1)
    return np.maximum(same, 1 - same)
