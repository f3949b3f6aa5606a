"""Scores of forecasts, beside simple forecasters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from sgmae_jax import domains
from sgmae_jax.config import ConfigError
from sgmae_jax.data import Items, plain_batches, slice_source
from sgmae_jax.data.motion import HISTORY
from sgmae_jax.domains.scoring import VALIDATION, check_apart
from sgmae_jax.evaluation.motion import (
    ForecastScores,
    LinearForecaster,
    WorldScores,
    constant_velocity,
)
from sgmae_jax.methods.base import Method, Params, Run
from sgmae_jax.processes import fetch

Scores = dict[str, dict[str, float]]


class Scorer:
    """Errors of a method's forecasts; see image_scores.Scorer for what it must offer.

    A method that forecasts nothing has no scores.

    Args:
        config: of the run; its `data` and `eval` sections are read.
        method: whose forecasts are scored.
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
        self._config, self._place, self._say = config, place, say
        self._answer = method.answer and jax.jit(method.answer)
        domain = domains.of_config(config)
        self._rows = domain.make_rows(config, run, None)

        def opened(split: str) -> Items:
            return domain.open_source(config, split, in_memory=False)

        self._opened = opened
        part = config.eval
        self._test: Items | None = None
        self._validation: Items | None = None
        if self._answer is None:
            if part.choose_best:
                raise ConfigError(
                    "config.eval.choose_best = True: must be left to methods that "
                    f"forecast, {config.method.name} does not"
                )
            return
        self._test = self._limited(opened(part.split), part.limit)
        if part.validation_split is not None:
            check_apart(config, "eval.validation_split", "eval.split", opened)
            self._validation = self._limited(opened(part.validation_split), part.limit)

    def online(self, params: Params) -> dict[str, float]:
        """Scores for the log; where the best step is kept, of validation alone."""
        if self._answer is None:
            return {}
        if self._config.eval.choose_best:
            assert self._validation is not None
            found = self._score(params, self._validation)
            name = next(kind for kind in found if "FDE" in kind and kind[-1] != "1")
            self._say(f"validation: {_words(found)}")
            # The higher the better.
            return {VALIDATION: -found[name]}
        assert self._test is not None
        found = self._score(params, self._test)
        self._say(f"scores: {_words(found)}")
        return {f"eval/{name}": value for name, value in found.items()}

    def final(self, params: Params, untrained: Callable[[], Params]) -> Scores:
        """Scores of the trained forecasts and, if configured, of the baselines."""
        del untrained
        if self._answer is None or self._test is None:
            self._say("no scores: the method forecasts nothing")
            return {}
        scores: Scores = {}
        if self._config.eval.baselines and not self._config.method.worlds:
            scores |= self._baselines()
        return {**scores, "trained forecasts": self._score(params, self._test)}

    def as_metrics(self, scores: Scores) -> dict[str, float]:
        """Flat names for the log."""
        found = scores.get("trained forecasts", {})
        return {f"eval/{name}": value for name, value in found.items()}

    def _limited(self, source: Items, limit: int | None) -> Items:
        if limit is None or limit >= len(source):
            return source
        return slice_source(source, "", str(limit), name=f"{limit} scenes")

    def _batches(self, source: Items) -> Iterator[tuple[dict[str, np.ndarray], int]]:
        return plain_batches(source, self._rows, self._config.eval.batch_size)

    def _score(self, params: Params, source: Items) -> dict[str, float]:
        assert self._answer is not None
        modes = self._config.method.modes
        focal, worlds = ForecastScores(modes), WorldScores(modes)
        for batch, count in self._batches(source):
            forecast = self._answer(params, self._place(batch))
            places, logits = fetch((forecast.places[:count], forecast.logits[:count]))
            rows = {name: array[:count] for name, array in batch.items()}
            truth, known = rows["agent_future"], rows["agent_present"][..., HISTORY:]
            if forecast.others is None:
                worlds.add(places, logits, truth, known, rows["agent_scored"])
            else:
                focal.add(places, logits, truth[:, 0], known[:, 0])
        return worlds.as_scores() or focal.as_scores()

    def _baselines(self) -> Scores:
        """Constant velocity, and ridge regression fitted on eval.fit_split."""
        part = self._config.eval
        fit = self._limited(self._opened(part.fit_split), part.fit_limit)
        past, seen, future = _focal_of(fit)
        linear = LinearForecaster().fit(past, seen, future)
        modes = self._config.method.modes
        found = {
            "constant velocity": ForecastScores(modes),
            "linear": ForecastScores(modes),
        }
        assert self._test is not None
        for batch, count in self._batches(self._test):
            rows = {
                name: array[:count, 0] for name, array in batch.items() if "ag" in name
            }
            seen = rows["agent_present"][:, :HISTORY]
            told = {
                "constant velocity": constant_velocity(rows["agent_steps"], seen),
                "linear": linear(rows["agent_past"], seen),
            }
            for name, places in told.items():
                found[name].add(
                    places[:, None],
                    np.zeros((count, 1)),
                    rows["agent_future"],
                    rows["agent_present"][:, HISTORY:],
                )
        return {name: one.as_scores() for name, one in found.items()}


def _focal_of(source: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Past, where it is known, and future of all focal agents whose future is whole."""
    scenes = [source[index] for index in range(len(source))]
    whole = [one for one in scenes if one["agent_present"][0, HISTORY:].all()]
    return (
        np.stack([one["agent_past"][0] for one in whole]),
        np.stack([one["agent_present"][0, :HISTORY] for one in whole]),
        np.stack([one["agent_future"][0] for one in whole]),
    )


def _words(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in found.items())
