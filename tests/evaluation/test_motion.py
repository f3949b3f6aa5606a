"""Errors of forecasts against loops over their definitions."""

import numpy as np
import pytest

from sgmae_jax.evaluation.motion import (
    ForecastScores,
    LinearForecaster,
    WorldScores,
    constant_velocity,
    top,
)

B, K, A, T = 7, 6, 5, 60
RNG = np.random.default_rng(0)


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum()


def test_focal_errors():
    places = RNG.normal(0, 4, (B, K, T, 2))
    logits, truth = RNG.normal(size=(B, K)), RNG.normal(0, 1, (B, T, 2))
    known = RNG.random((B, T)) < 0.8
    known[:, -1] = True
    known[2, -1] = False  # its end is not known: left out
    scores = ForecastScores(K)
    for part in (slice(0, 3), slice(3, B)):
        scores.add(places[part], logits[part], truth[part], known[part])
    wanted: dict[str, list[float]] = {}
    for b in range(B):
        if b == 2:
            continue
        away = np.linalg.norm(places[b] - truth[b], axis=-1)
        mean = np.array([row[known[b]].mean() for row in away])
        end = away[:, -1]
        first = logits[b].argmax()
        best = end.argmin()
        row = {
            "minADE1": mean[first],
            "minFDE1": end[first],
            "minADE6": mean.min(),
            "minFDE6": end.min(),
            "MR6": float(end.min() > 2),
            "b-minFDE6": end.min() + (1 - softmax(logits[b])[best]) ** 2,
        }
        for name, value in row.items():
            wanted.setdefault(name, []).append(value)
    found = scores.as_scores()
    assert found == pytest.approx({n: np.mean(v) for n, v in wanted.items()})


def test_the_top_futures_and_their_shares():
    logits = np.array([[0.0, 3.0, 1.0, 2.0]])
    places = np.arange(4.0).reshape(1, 4, 1, 1) * np.ones((1, 4, 2, 2))
    chosen, shares = top(places, logits, 2)
    assert chosen[0, :, 0, 0].tolist() == [1.0, 3.0]
    np.testing.assert_allclose(shares[0], softmax(logits[0])[[1, 3]])
    assert top(places, logits, 9)[0].shape == (1, 4, 2, 2)


def test_worlds():
    places = RNG.normal(0, 3, (B, K, A, T, 2))
    logits, truth = RNG.normal(size=(B, K)), RNG.normal(size=(B, A, T, 2))
    known = RNG.random((B, A, T)) < 0.8
    known[..., -1] = RNG.random((B, A)) < 0.8
    scored = RNG.random((B, A)) < 0.6
    scored[4] = False  # nothing to score: left out
    scores = WorldScores(K)
    scores.add(places, logits, truth, known, scored)
    wanted: dict[str, list[float]] = {}
    for b in range(B):
        who = [a for a in range(A) if scored[b, a] and known[b, a, -1]]
        if not who:
            continue
        away = np.linalg.norm(places[b] - truth[b], axis=-1)
        mean = [
            np.mean([away[k, a][known[b, a]].mean() for a in who]) for k in range(K)
        ]
        end = [np.mean([away[k, a, -1] for a in who]) for k in range(K)]
        best, first = int(np.argmin(end)), int(logits[b].argmax())
        row = {
            "avgMinADE1": mean[first],
            "avgMinFDE1": end[first],
            "avgMinADE6": min(mean),
            "avgMinFDE6": min(end),
            "actorMR6": np.mean([away[best, a, -1] > 2 for a in who]),
            "avgBrierMinFDE6": min(end) + (1 - softmax(logits[b])[best]) ** 2,
        }
        for name, value in row.items():
            wanted.setdefault(name, []).append(value)
    assert scores.as_scores() == pytest.approx(
        {n: np.mean(v) for n, v in wanted.items()}
    )


def test_nothing_to_score():
    assert ForecastScores(6).as_scores() == {} == WorldScores(6).as_scores()


def test_constant_velocity_goes_on():
    steps = np.tile([0.3, -0.1], (4, 50, 1))
    steps[:, 0] = 0
    seen = np.ones((4, 50), bool)
    seen[1, 45] = False  # a gap
    steps[1, 45:47] = 0
    seen[2, :48] = False  # two steps alone
    steps[2, :49] = 0
    seen[3, :49] = False  # the present alone
    steps[3] = 0
    found = constant_velocity(steps, seen)
    line = np.arange(1, 61)[:, None] * [0.3, -0.1]
    for row in range(3):
        np.testing.assert_allclose(found[row], line)
    assert not found[3].any()


def test_the_linear_forecaster_finds_a_linear_law():
    past = RNG.normal(size=(400, 50, 2))
    seen = np.ones((400, 50), bool)
    law = RNG.normal(size=(100, 120))
    future = (past.reshape(400, 100) @ law).reshape(400, 60, 2) + 0.5
    linear = LinearForecaster(1e-9).fit(past[:300], seen[:300], future[:300])
    np.testing.assert_allclose(linear(past[300:], seen[300:]), future[300:], atol=1e-4)
