"""Closed form, LARS and nearest neighbours on the same features; one JSON line a ratio.

    python -m benchmarks.evaluation [--run DIRECTORY] [--data cifar10.zip] [--rounds 5]

The probe by LARS makes 90 epochs with nothing left out (weights, orders, running
statistics), compiled beforehand; "with compilation" is what a first call takes. With a
run directory, the features are those of its newest checkpoint, fitted on
`eval.fit_split` and scored on `eval.split`, and the accuracies are printed as well;
without, Gaussian clusters, whose times are the same.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time

import jax
import numpy as np

from benchmarks.measure import interleave, report
from sgmae_jax.evaluation import (
    extract_features,
    knn_accuracy,
    lars_probe,
    ridge_probe,
)

CLASSES = 10
# Features of the small CIFAR-10 models, of ViT-S and of ViT-B.
WIDTHS = (96, 384, 768)
TARGET = 1 / 20


def gaussian(items: int, width: int, scored: int) -> tuple[np.ndarray, ...]:
    """Clusters that overlap: features and classes to fit and to score."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, width))
    found: list[np.ndarray] = []
    for count in (items, scored):
        labels = rng.integers(CLASSES, size=count)
        noise = 0.2 * width**0.5 * rng.normal(size=(count, width))
        found += [(centres[labels] + noise).astype(np.float32), labels]
    return tuple(found)


def features_of(run: pathlib.Path, data: str, items: int, scored: int):
    """Features of a run's encoder on the splits its config names."""
    from sgmae_jax.config import config_of_run, pair
    from sgmae_jax.domains.images import open_source as open_config_source
    from sgmae_jax.tasks import restore_run
    from sgmae_jax.training.console import Console

    asked = config_of_run("evaluate", str(run))
    asked.data.path = data
    _, config, method, params, _ = restore_run(asked, run, Console())
    features = jax.jit(next(iter(method.features.values())))
    found: list[np.ndarray] = []
    part = config.eval
    for split, limit in ((part.fit_split, items), (part.split, scored)):
        one = extract_features(
            lambda images: features(params, images),
            open_config_source(config, split, in_memory=False),
            image_size=pair(config.data.image_size),
            crop=part.crop,
            limit=limit,
        )
        found += [one.features, one.labels]
    return tuple(found)


def measure(sets: tuple[np.ndarray, ...], name: str, rounds: int) -> None:
    """Times all three on one set of features, and prints what they score."""
    probes = {
        "closed form": lambda: ridge_probe(*sets, num_classes=CLASSES).accuracy,
        "LARS": lambda: lars_probe(*sets, num_classes=CLASSES),
        "kNN": lambda: knn_accuracy(*sets, num_classes=CLASSES),
    }
    began = time.perf_counter()
    accuracies = {"LARS": probes["LARS"]()}
    first = time.perf_counter() - began
    for kind in ("closed form", "kNN"):
        accuracies[kind] = probes[kind]()
    seconds = interleave(probes, rounds=rounds, warmup=1)
    items, width = sets[0].shape
    facts = {"features": name, "fitted": items, "width": width, "scored": len(sets[2])}
    report(
        "closed form / LARS",
        seconds["closed form"],
        seconds["LARS"],
        row=21,
        target=TARGET,
        lars_with_compilation_ms=round(1e3 * first, 1),
        **facts,
    )
    report("closed form / kNN", seconds["closed form"], seconds["kNN"], **facts)
    shown = {kind: round(value, 4) for kind, value in accuracies.items()}
    print(json.dumps({"accuracy": shown, **facts}), flush=True)


def main() -> None:
    """Measures every width, or a run's own features."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=pathlib.Path)
    parser.add_argument("--data", default="")
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--scored", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    counts = options.items, options.scored
    if options.run:
        sets = features_of(options.run, options.data, *counts)
        measure(sets, options.run.name, options.rounds)
        return
    for width in WIDTHS:
        sets = gaussian(counts[0], width, counts[1])
        measure(sets, "gaussian", options.rounds)


if __name__ == "__main__":
    main()
