"""The metrics of a run over its checkpoints, from the untrained model to the last."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PyTree

from sgmae_jax.analysis.masks import own_masks
from sgmae_jax.analysis.metrics import frequencies
from sgmae_jax.analysis.samples import Samples, load_samples
from sgmae_jax.analysis.study import Options, Shown, Study
from sgmae_jax.checkpointing import restore_series, saved_steps
from sgmae_jax.config import ConfigError, pair
from sgmae_jax.data import Source
from sgmae_jax.methods.base import Marks, Method, Params
from sgmae_jax.methods.image import make_autoencoder
from sgmae_jax.models import Autoencoder

SCHEMA = 1


class Series(NamedTuple):
    """What `study_run` found.

    Attributes:
        record: what analysis.json holds: facts, and metrics by step.
        shown: what pictures are made of, for a few of the steps.
        masks: 1 where the method itself hides a token of the images drawn, for the
            same steps; empty where it cannot be shown.
        samples: the images.
        study: which measured them.
        model: whose parameters were measured.
    """

    record: dict[str, Any]
    shown: dict[int, Shown]
    masks: dict[int, Float[np.ndarray, "P N"]]
    samples: Samples
    study: Study
    model: Autoencoder


class Final(NamedTuple):
    """The last checkpoint of a run, to which the others are compared."""

    step: int
    params: Params
    marks: Marks


def study_run(
    directory: str | os.PathLike,
    config,
    method: Method,
    final: Final,
    untrained: Callable[[], Params],
    source: Source,
    *,
    log: Callable[[str], None] = print,
) -> Series:
    """Measures the untrained model and a run's checkpoints, in ascending order.

    Args:
        directory: where the step directories lie; nothing there is altered.
        config: the run's, with the sections `analyze` and `eval` of this look at it.
        method: the run's, an autoencoder of images at params["model"].
        final: the newest sound checkpoint; later ones do not count.
        untrained: the parameters before the first step.
        source: whose images are looked at.
        log: receives a line for each step, and one for each damaged checkpoint, which
            is passed over.

    Raises:
        ConfigError: the method has no such autoencoder, or it has no such layer.
        DataError: no image can be read.
        RestoreRefused: a checkpoint has other arrays than the model.
    """
    model = make_autoencoder(config)
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    if parts_of(config, method) != {"encoder", "decoder"}:
        raise ConfigError(
            f"config.method.name = {config.method.name!r}: must keep an autoencoder of "
            "images in params['model'] to be analyzed"
        )
    if not model.decoder.depth:
        raise ConfigError(
            "config.model.decoder_depth = 0: must be at least 1, a decoder without "
            "blocks has no features or attention to analyze"
        )
    part = config.analyze
    options = Options(
        ratio=config.mask.ratio,
        norm_pix=method.norm_pix,
        seed=config.seed,
        part=part.part,
        layer=part.layer,
        relation=part.relation,
        side=part.side,
        hint_ratio=part.hint_ratio,
        temperature=part.temperature,
    )
    samples = load_samples(
        source,
        count=part.images,
        image_size=pair(config.data.image_size),
        crop=config.eval.crop,
        patch_size=model.patch_size,
        log=log,
    )
    try:
        study = Study(model, samples, options, shown=part.pictures)
    except ValueError as error:
        raise ConfigError(f"config.analyze.layer = {part.layer}: {error}") from None

    there = [step for step in saved_steps(directory) if 0 < step <= final.step]
    chosen = spread(there, part.checkpoints)
    found: dict[int, dict[str, Any]] = {}
    shown: dict[int, Shown] = {}
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    newest = jax.device_put(final.params, device)
    hide = own_masks(
        method, samples.images[: part.pictures], seed=config.seed, marks=final.marks
    )
    masks: dict[int, np.ndarray] = {}
    others = restore_series(directory, shapes, set(chosen) - {final.step}, log=log)
    for step, params in itertools.chain(
        [(0, untrained())], others, [(final.step, newest)]
    ):
        log(f"analyzing step {step}")
        found[step], shown[step] = study.measure(params["model"], newest["model"])
        if hide:
            masks[step] = hide(params, step)

    drawn = picture_steps(list(found), lambda step: method.phase(step, final.marks))
    record = {
        "schema": SCHEMA,
        "method": config.method.name,
        "source": source.name,
        "split": config.eval.split,
        "images": len(samples.images),
        "grid": list(model.grid),
        "mask_ratio": options.ratio,
        "seed": options.seed,
        **{name: getattr(options, name) for name in _ASKED},
        "frequencies": frequencies(model.grid).tolist(),
        "steps": {str(step): numbers for step, numbers in found.items()},
    }
    return Series(
        record,
        {step: shown[step] for step in drawn},
        {step: masks[step] for step in drawn if step in masks},
        samples,
        study,
        model,
    )


_ASKED = ("part", "layer", "relation", "side", "hint_ratio", "temperature")


def read_series(workdir: str | os.PathLike) -> dict[int, dict[str, Any]]:
    """The metrics by step that an analysis has left in a directory.

    Args:
        workdir: its --workdir, the one that holds analysis/.

    Raises:
        FileNotFoundError: there is none.
    """
    text = Path(workdir, "analysis", "analysis.json").read_text(encoding="utf-8")
    return {int(step): found for step, found in json.loads(text)["steps"].items()}


def spread(steps: Sequence[int], count: int) -> list[int]:
    """At most `count` of the steps, evenly by number, first and last among them.

    Args:
        steps: ascending.
        count: >= 1; one alone is the last.
    """
    if len(steps) <= count:
        return list(steps)
    if count == 1:
        return [steps[-1]]
    every = np.asarray(steps)
    wanted = np.linspace(every[0], every[-1], count)
    nearest = np.abs(every[:, None] - wanted).argmin(0)
    return sorted({int(every[place]) for place in nearest})


def picture_steps(steps: Sequence[int], phase: Callable[[int], Hashable]) -> list[int]:
    """Steps to draw: untrained, first, first two of a new phase, middle, last.

    Args:
        steps: ascending, the first is 0.
        phase: static facts of a step, see `Method.phase`; a method that begins to
            guide its masks is in another phase than it began in.
    """
    trained = [step for step in steps if step > 0]
    begun = [step for step in trained if phase(step - 1) != phase(0)]
    wanted = [trained[0], *begun[:2], trained[len(trained) // 2], trained[-1]]
    return sorted({0, *wanted})


def parts_of(config, method: Method) -> set[str]:
    """Which of "encoder" and "decoder" a method keeps in params["model"].

    Those that are as the config's autoencoder has them.
    """
    key = jax.random.key(0)
    own = jax.eval_shape(method.init, key).get("model", {})
    wanted = jax.eval_shape(make_autoencoder(config).init, key)
    return {
        part
        for part in wanted
        if part in own and _kinds(own[part]) == _kinds(wanted[part])
    }


def _kinds(tree: PyTree) -> Any:
    """Structure, shapes and types, to be compared."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
