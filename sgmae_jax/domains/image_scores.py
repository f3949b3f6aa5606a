"""Scores of features and heads during and after training, beside honest baselines."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sgmae_jax import domains
from sgmae_jax.config import ConfigError, pair
from sgmae_jax.data import Source
from sgmae_jax.domains.scoring import VALIDATION, check_apart
from sgmae_jax.evaluation import (
    Features,
    extract_features,
    raw_pixels,
    score_segments,
)
from sgmae_jax.evaluation.protocols import FeatureSets, score, several
from sgmae_jax.methods.base import Method, Params, Run
from sgmae_jax.processes import fetch

Scores = dict[str, dict[str, float]]
Encode = Callable[[np.ndarray], np.ndarray]


class Scorer:
    """Scores of a method's features, by the configured protocols, and of its head.

    Of a method that classifies, the accuracy of its own logits stands beside its first
    trained features; likewise mean IoU and accuracy of pixels, where it tells their
    classes.

    Args:
        config: of the run; its `data` and `eval` sections are read.
        method: whose features are scored.
        run: that the method was built for.
        place: puts a batch on the devices.
        say: told why there are no scores when there are none.

    Raises:
        ConfigError: a split does not suit what is asked of it.
        DataError: a split is not there.
    """

    def __init__(
        self,
        config,
        method: Method,
        run: Run,
        *,
        place: Callable[[dict[str, np.ndarray]], dict[str, Any]],
        say: Callable[[str], None],
    ):
        del run  # a head that knows other classes says so itself
        self._config, self._place, self._say = config, place, say
        self._features = {
            name: jax.jit(function) for name, function in method.features.items()
        }
        self._logits = method.logits and jax.jit(method.logits)
        self._segments = method.segments and jax.jit(method.segments)
        # Opened now, so that a wrong split is known before hours of training; decoded
        # when needed, so that only the training images are ever held in memory.
        part = config.eval
        domain = domains.of_config(config)
        opened = functools.partial(domain.open_source, config, in_memory=False)
        self._fit = opened(part.fit_split)
        self._classes = len(self._fit.classes)
        has_head = bool(self._logits or self._segments)
        if part.choose_best and not has_head:
            raise ConfigError(
                "config.eval.choose_best = True: must be left to methods with a head "
                f"of their own, {config.method.name} has none to score"
            )
        self._test: Source | None = None
        if self._classes > 1 or has_head:
            self._test = opened(part.split)
        self._validation: Source | None = None
        if part.validation_split is not None:
            check_apart(config, "eval.validation_split", "eval.split", opened)
            self._validation = opened(part.validation_split)

    def online(self, params: Params) -> dict[str, float]:
        """Scores for the log, while a run trains.

        Where the best step is kept, VALIDATION: the score of the method's head on the
        validation split, and nothing is asked of other splits. Elsewhere eval/knn,
        eval/probe, … of every feature.
        """
        if self._config.eval.choose_best:
            assert self._validation is not None
            ((kind, value), *_) = self._own(params, self._validation).items()
            self._say(f"validation: {kind} {value:.2%}")
            return {VALIDATION: value}
        if self._test is None:
            return {}
        found = self.as_metrics(self._trained(params))
        line = ", ".join(f"{name} {value:.2%}" for name, value in found.items())
        self._say(f"scores: {line}")
        return found

    def final(self, params: Params, untrained: Callable[[], Params]) -> Scores:
        """Scores of the trained features and, if configured, of the baselines."""
        if self._test is None:
            self._say("no scores: the data set has no classes to tell apart")
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
        assert self._test is not None
        rows[next(iter(rows))] |= self._own(params, self._test)
        return rows

    def _own(self, params: Params, source: Source) -> dict[str, float]:
        """What a method's own head gets right; the first entry is what it is for."""
        if self._logits:
            return self._accuracy(self._placed(self._logits, params), source)
        if self._segments:
            return self._pixels(self._placed(self._segments, params), source)
        return {}

    def _score(self, name: str, params: Params) -> dict[str, float]:
        return self._compare(self._placed(self._features[name], params))

    def _placed(self, function: Callable, params: Params) -> Encode:
        """A function of params and images as one of images, spread over the mesh."""

        def encode(images: np.ndarray) -> np.ndarray:
            return fetch(function(params, self._place({"image": images})["image"]))

        return encode

    def _accuracy(self, logits: Encode, source: Source) -> dict[str, float]:
        """Share of the images whose largest logit is that of their class."""
        found = extract_features(logits, source, **self._crops())
        known, wanted = found.features.shape[1], len(source.classes)
        if known != wanted:  # a run that is evaluated on another data set
            self._say(
                f"no accuracy: the head knows {known} classes, {source.name} has "
                f"{wanted}"
            )
            return {}
        return {"accuracy": float((found.features.argmax(-1) == found.labels).mean())}

    def _pixels(self, segments: Encode, source: Source) -> dict[str, float]:
        """Mean IoU and accuracy of the pixels of the images."""
        try:
            found = score_segments(segments, source, **self._crops())
        except ValueError as error:  # a run that is evaluated on another data set
            self._say(f"no mIoU: {error}")
            return {}
        return found.as_scores()

    def _crops(self, *, fit: bool = False) -> dict[str, Any]:
        """How images are shown, and how many at most."""
        part = self._config.eval
        return {
            "image_size": pair(self._config.data.image_size),
            "crop": part.crop,
            "batch_size": part.batch_size,
            "limit": part.fit_limit if fit else part.limit,
        }

    def _compare(self, encode: Encode) -> dict[str, float]:
        if self._classes < 2:
            return {}  # its pixels alone have classes
        part = self._config.eval
        choosing = len(several(part.neighbours)) > 1

        def features(source: Source, *, fit: bool = False) -> Features:
            return extract_features(encode, source, **self._crops(fit=fit))

        assert self._test is not None
        sets = FeatureSets(
            fit=features(self._fit, fit=True),
            test=features(self._test),
            validation=features(self._validation)
            if choosing and self._validation
            else None,
            classes=self._classes,
        )
        return score(sets, part, seed=self._config.seed, say=self._say)
