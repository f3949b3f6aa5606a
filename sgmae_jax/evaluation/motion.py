"""Errors of forecasts: displacements, misses, and simple forecasters to beat.

Reference: argoverse/av2-api, motion_forecasting/eval/metrics.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from sgmae_jax.data.motion import FUTURE, HISTORY

MISS = 2.0  # metres from the true end


def top(
    places: Float[np.ndarray, "B K T 2"], logits: Float[np.ndarray, "B K"], count: int
) -> tuple[Float[np.ndarray, "B k T 2"], Float[np.ndarray, "B k"]]:
    """The futures with the highest scores, and their shares of all K.

    Args:
        places: futures.
        logits: of them.
        count: k, at most K are taken.
    """
    best = np.argsort(-logits, axis=1, kind="stable")[:, :count]
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    shares = shifted / shifted.sum(1, keepdims=True)
    chosen = np.take_along_axis(places, best[:, :, None, None], 1)
    return chosen, np.take_along_axis(shares, best, 1)


@dataclass
class ForecastScores:
    """Sums over focal agents of minADE, minFDE, misses and Brier-minFDE.

    Attributes:
        modes: futures that are told, k of the wide scores.
    """

    modes: int
    _rows: dict[str, list[float]] = field(default_factory=dict)

    def add(
        self,
        places: Float[np.ndarray, "B K T 2"],
        logits: Float[np.ndarray, "B K"],
        truth: Float[np.ndarray, "B T 2"],
        known: Bool[np.ndarray, "B T"],
    ) -> None:
        """Takes a batch; scenes whose last step is not known are left out."""
        scored = known[:, -1]
        places, logits = places[scored], logits[scored]
        truth, known = truth[scored], known[scored]
        for k in dict.fromkeys((1, self.modes)):
            chosen, shares = top(places, logits, k)
            away = np.linalg.norm(chosen - truth[:, None], axis=-1)
            mean = (away * known[:, None]).sum(-1) / known.sum(-1)[:, None]
            end = away[..., -1]
            best = end.argmin(1)
            share = np.take_along_axis(shares, best[:, None], 1)[:, 0]
            self._extend(f"minADE{k}", mean.min(1))
            self._extend(f"minFDE{k}", end.min(1))
            if k == self.modes:
                self._extend(f"MR{k}", (end > MISS).all(1))
                self._extend(f"b-minFDE{k}", end.min(1) + (1 - share) ** 2)

    def as_scores(self) -> dict[str, float]:
        """Means over all scenes; empty without any."""
        return {name: float(np.mean(values)) for name, values in self._rows.items()}

    def _extend(self, name: str, values: np.ndarray) -> None:
        self._rows.setdefault(name, []).extend(values.astype(float).tolist())


@dataclass
class WorldScores:
    """The same for futures of all scored agents together: the best world counts.

    Attributes:
        modes: worlds that are told.
    """

    modes: int
    _rows: dict[str, list[float]] = field(default_factory=dict)

    def add(
        self,
        places: Float[np.ndarray, "B K A T 2"],
        logits: Float[np.ndarray, "B K"],
        truth: Float[np.ndarray, "B A T 2"],
        known: Bool[np.ndarray, "B A T"],
        scored: Bool[np.ndarray, "B A"],
    ) -> None:
        """Takes a batch; agents whose last step is not known do not count."""
        for row in range(len(places)):
            counts = scored[row] & known[row, :, -1]
            if not counts.any():
                continue
            seen = known[row][counts]
            away = np.linalg.norm(places[row][:, counts] - truth[row][counts], axis=-1)
            mean = ((away * seen).sum(-1) / seen.sum(-1)).mean(1)
            end = away[..., -1]
            shifted = np.exp(logits[row] - logits[row].max())
            share = shifted / shifted.sum()
            first = int(logits[row].argmax())
            best = int(end.mean(1).argmin())
            found = {
                "avgMinADE1": mean[first],
                "avgMinFDE1": end.mean(1)[first],
                f"avgMinADE{self.modes}": mean.min(),
                f"avgMinFDE{self.modes}": end.mean(1).min(),
                f"actorMR{self.modes}": (end[best] > MISS).mean(),
                f"avgBrierMinFDE{self.modes}": end.mean(1).min()
                + (1 - share[best]) ** 2,
            }
            for name, value in found.items():
                self._rows.setdefault(name, []).append(float(value))

    def as_scores(self) -> dict[str, float]:
        """Means over all scenes; empty without any."""
        return {name: float(np.mean(values)) for name, values in self._rows.items()}


def constant_velocity(
    steps: Float[np.ndarray, "*B T 2"], seen: Bool[np.ndarray, "*B T"]
) -> Float[np.ndarray, "*B 60 2"]:
    """Agents that go on as in their last second, on the mean of its known steps.

    Args:
        steps: displacements of the history, metres.
        seen: which of its steps are known.
    """
    second = slice(steps.shape[-2] - 10, None)
    both = (seen[..., 1:] & seen[..., :-1])[..., second.start - 1 :]
    count = np.maximum(both.sum(-1), 1)[..., None]
    pace = (steps[..., second, :] * both[..., None]).sum(-2) / count
    return pace[..., None, :] * np.arange(1, FUTURE + 1)[:, None]


class LinearForecaster:
    """Ridge regression from the focal agent's past to its future.

    In the frame of the agent itself, whatever the frame of the scene.

    Args:
        penalty: of the squared weights, times the number of examples.
    """

    def __init__(self, penalty: float = 1e-3):
        self._penalty = penalty
        self._weights: np.ndarray | None = None

    def fit(
        self,
        past: Float[np.ndarray, "n T 2"],
        seen: Bool[np.ndarray, "n T"],
        future: Float[np.ndarray, "n U 2"],
    ) -> LinearForecaster:
        """Fits pasts to futures, both from the present position; returns itself."""
        x = self._inputs(past, seen)
        y = future.reshape(len(future), -1).astype(np.float64)
        gram = x.T @ x + self._penalty * len(x) * np.eye(x.shape[1])
        self._weights = np.linalg.solve(gram, x.T @ y)
        return self

    def __call__(
        self, past: Float[np.ndarray, "n T 2"], seen: Bool[np.ndarray, "n T"]
    ) -> Float[np.ndarray, "n U 2"]:
        """Futures, metres from the present position."""
        assert self._weights is not None
        found = self._inputs(past, seen) @ self._weights
        return found.reshape(len(past), FUTURE, 2)

    @staticmethod
    def _inputs(past: np.ndarray, seen: np.ndarray) -> np.ndarray:
        columns = [past.reshape(len(past), 2 * HISTORY), seen, np.ones((len(past), 1))]
        return np.concatenate(columns, 1).astype(np.float64)
