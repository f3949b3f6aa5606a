"""Scores of features and heads during and after training, beside honest baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from sgmae_jax.config import pair
from sgmae_jax.data import Source
from sgmae_jax.evaluation import (
    Features,
    extract_features,
    knn_accuracy,
    raw_pixels,
    ridge_probe,
    score_segments,
)
from sgmae_jax.methods.base import Method, Params
from sgmae_jax.training.console import Console
from sgmae_jax.training.inputs import open_config_source
from sgmae_jax.training.mesh import put_batch

Scores = dict[str, dict[str, float]]
Encode = Callable[[np.ndarray], np.ndarray]
_TITLES = {
    "knn": "kNN",
    "probe": "probe",
    "accuracy": "accuracy",
    "miou": "mIoU",
    "pixel_accuracy": "pixels",
}


class Scorer:
    """kNN and closed-form probe of a method's features on the config's splits.

    Of a method that classifies, the accuracy of its own logits stands beside its first
    trained features; likewise mean IoU and accuracy of pixels, where it tells their
    classes.

    Args:
        config: of the run; its `data` and `eval` sections are read.
        method: whose features are scored.
        mesh: where they are computed.
        console: told why there are no scores when there are none.
    """

    def __init__(self, config, method: Method, mesh: Mesh, console: Console):
        self._config, self._mesh = config, mesh
        self._features = {
            name: jax.jit(function) for name, function in method.features.items()
        }
        self._logits = method.logits and jax.jit(method.logits)
        self._segments = method.segments and jax.jit(method.segments)
        # Opened now, so that a wrong split is known before hours of training; decoded
        # when needed, so that only the training images are ever held in memory.
        fit = open_config_source(config, config.eval.fit_split, in_memory=False)
        self._sources: tuple[Source, ...] = ()
        if len(fit.classes) > 1 or self._segments:
            test = open_config_source(config, config.eval.split, in_memory=False)
            self._sources = (fit, test)
        self._console = console

    def online(self, params: Params) -> dict[str, float]:
        """Scores for the log: eval/knn and eval/probe of every feature."""
        if not self._sources:
            return {}
        found = self.as_metrics(self._trained(params))
        line = ", ".join(f"{name} {value:.2%}" for name, value in found.items())
        self._console.say(f"scores: {line}")
        return found

    def final(self, params: Params, untrained: Callable[[], Params]) -> Scores:
        """Scores of the trained features and, if configured, of the baselines."""
        if not self._sources:
            self._console.say("no scores: the data set has no classes to tell apart")
            return {}
        scores: Scores = {}
        if self._config.eval.baselines:
            scores["raw pixels"] = self._compare(raw_pixels)
            fresh = untrained()
            for name in self._features:
                scores[f"untrained {name}"] = self._score(name, fresh)
            del fresh
        for name, row in self._trained(params).items():
            scores[f"trained {name}"] = row
        return {name: row for name, row in scores.items() if row}

    def as_metrics(self, scores: Scores) -> dict[str, float]:
        """Flat names for the log; the first feature has the plain ones."""
        flat: dict[str, float] = {}
        for index, name in enumerate(self._features):
            found = scores.get(f"trained {name}", scores.get(name, {}))
            suffix = f"/{name}" if index else ""
            flat |= {f"eval/{kind}{suffix}": found[kind] for kind in found}
        return flat

    def _trained(self, params: Params) -> Scores:
        rows = {name: self._score(name, params) for name in self._features}
        if self._logits:
            rows[next(iter(rows))] |= self._accuracy(self._logits, params)
        if self._segments:
            rows[next(iter(rows))] |= self._pixels(self._segments, params)
        return rows

    def _score(self, name: str, params: Params) -> dict[str, float]:
        return self._compare(self._placed(self._features[name], params))

    def _placed(self, function: Callable, params: Params) -> Encode:
        """A function of params and images as one of images, spread over the mesh."""
        mesh = self._mesh

        def encode(images: np.ndarray) -> np.ndarray:
            fits = len(images) % mesh.size == 0 and jax.process_count() == 1
            given = put_batch({"image": images}, mesh)["image"] if fits else images
            return np.asarray(function(params, given))

        return encode

    def _accuracy(self, logits: Callable, params: Params) -> dict[str, float]:
        """Share of the scored images whose largest logit is that of their class."""
        test, limit = self._sources[1], self._config.eval.limit
        found = self._extract(self._placed(logits, params), test, limit)
        known, wanted = found.features.shape[1], len(test.classes)
        if known != wanted:  # a run that is evaluated on another data set
            self._console.say(
                f"no accuracy: the head knows {known} classes, {test.name} has {wanted}"
            )
            return {}
        return {"accuracy": float((found.features.argmax(-1) == found.labels).mean())}

    def _pixels(self, segments: Callable, params: Params) -> dict[str, float]:
        """Mean IoU and accuracy of the pixels of the scored images."""
        test, part = self._sources[1], self._config.eval
        try:
            found = score_segments(
                self._placed(segments, params),
                test,
                image_size=pair(self._config.data.image_size),
                crop=part.crop,
                batch_size=part.batch_size,
                limit=part.limit,
            )
        except ValueError as error:  # a run that is evaluated on another data set
            self._console.say(f"no mIoU: {error}")
            return {}
        return found.as_scores()

    def _extract(self, encode: Encode, source: Source, limit: int) -> Features:
        part = self._config.eval
        return extract_features(
            encode,
            source,
            image_size=pair(self._config.data.image_size),
            crop=part.crop,
            batch_size=part.batch_size,
            limit=limit,
        )

    def _compare(self, encode: Encode) -> dict[str, float]:
        if len(self._sources[0].classes) < 2:
            return {}  # its pixels alone have classes
        part = self._config.eval
        limits = (part.fit_limit, part.limit)
        sets = []
        for source, limit in zip(self._sources, limits, strict=True):
            found = self._extract(encode, source, limit)
            sets += [found.features, found.labels]
        classes = len(self._sources[0].classes)
        return {
            "knn": knn_accuracy(
                *sets,
                k=part.neighbours,
                temperature=part.temperature,
                num_classes=classes,
            ),
            "probe": ridge_probe(
                *sets, num_classes=classes, seed=self._config.seed
            ).accuracy,
        }


def score_table(scores: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Lines of a plain table; empty when there are no scores.

    A column is there only if a row has one.
    """
    if not scores:
        return []
    titles = {
        kind: title
        for kind, title in _TITLES.items()
        if any(kind in row for row in scores.values())
    }
    rows = [["", *titles.values()]]
    for name, row in scores.items():
        cells = (f"{row[kind]:.2%}" if kind in row else "" for kind in titles)
        rows.append([name, *cells])
    width = max(map(len, scores))
    return [
        f"{name:{width}}" + "".join(f"   {cell:>8}" for cell in cells)
        for name, *cells in rows
    ]
