"""What is asked of frozen features, by name, for a config's `eval` section."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sgmae_jax.evaluation.features import Features
from sgmae_jax.evaluation.few_shot import few_shot_probe
from sgmae_jax.evaluation.knn import knn_accuracies
from sgmae_jax.evaluation.lars import lars_probe
from sgmae_jax.evaluation.probe import ridge_probe

_Say = Callable[[str], None]


class FeatureSets(NamedTuple):
    """The features of one encoder, and the number of classes.

    Attributes:
        fit: what may be fitted.
        test: what is scored.
        validation: what choices are made on; None where there is none to make.
        classes: of all of them.
    """

    fit: Features
    test: Features
    validation: Features | None
    classes: int


def score(sets: FeatureSets, part: Any, *, seed: int, say: _Say) -> dict[str, float]:
    """Scores by every protocol that a config names.

    Args:
        sets: features with their labels.
        part: the config's `eval` section.
        seed: of draws, held-out parts and initial weights.
        say: told which few-shot scores are left out, for want of fitted images.

    Returns:
        Accuracies in [0, 1]: "knn", and "knn@K" where there are several K; "probe";
        "discriminant"; "lars"; "S-shot" with its standard error, "S-shot error".
    """
    found: dict[str, float] = {}
    for name in several(part.protocols):
        found |= _PROTOCOLS[name](sets, part, seed, say)
    return found


def several(value: Any) -> tuple[Any, ...]:
    """A field that may hold one value or more, as a tuple."""
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _arrays(sets: FeatureSets, of: Features) -> dict[str, Any]:
    return {
        "fit_x": sets.fit.features,
        "fit_y": sets.fit.labels,
        "x": of.features,
        "y": of.labels,
        "num_classes": sets.classes,
    }


def _knn(sets: FeatureSets, part: Any, seed: int, say: _Say) -> dict[str, float]:
    del seed, say
    ks = several(part.neighbours)

    def accuracies(of: Features) -> dict[int, float]:
        return knn_accuracies(**_arrays(sets, of), ks=ks, temperature=part.temperature)

    found = accuracies(sets.test)
    if len(ks) == 1:
        return {"knn": found[ks[0]]}
    assert sets.validation is not None
    on_validation = accuracies(sets.validation)
    best = max(ks, key=lambda k: (on_validation[k], -k))
    return {"knn": found[best], **{f"knn@{k}": found[k] for k in ks}}


def _probe(sets: FeatureSets, part: Any, seed: int, say: _Say) -> dict[str, float]:
    del part, say
    return {"probe": ridge_probe(**_arrays(sets, sets.test), seed=seed).accuracy}


def _discriminant(
    sets: FeatureSets, part: Any, seed: int, say: _Say
) -> dict[str, float]:
    del part, say
    arrays = _arrays(sets, sets.test)
    found = ridge_probe(**arrays, rule="discriminant", seed=seed)
    return {"discriminant": found.accuracy}


def _few_shot(sets: FeatureSets, part: Any, seed: int, say: _Say) -> dict[str, float]:
    found = {}
    fewest = int(np.bincount(sets.fit.labels, minlength=sets.classes).min())
    for shots in several(part.shots):
        if shots >= fewest:  # one more, so that some are left to choose with
            say(f"no {shots}-shot score: a class has {fewest} images to fit")
            continue
        result = few_shot_probe(
            **_arrays(sets, sets.test), shots=shots, draws=part.draws, seed=seed
        )
        found[f"{shots}-shot"] = result.accuracy
        found[f"{shots}-shot error"] = result.error
    return found


def _lars(sets: FeatureSets, part: Any, seed: int, say: _Say) -> dict[str, float]:
    del say
    accuracy = lars_probe(
        **_arrays(sets, sets.test),
        epochs=part.lars_epochs,
        batch_size=part.lars_batch_size,
        rate=part.lars_rate,
        seed=seed,
    )
    return {"lars": accuracy}


_PROTOCOLS = {
    "knn": _knn,
    "probe": _probe,
    "discriminant": _discriminant,
    "lars": _lars,
    "few_shot": _few_shot,
}
