"""Scenes of traffic: sources, padded batches, errors of forecasts, pictures."""

from __future__ import annotations

import os
from typing import Any

import jax

from sgmae_jax.config import ConfigError
from sgmae_jax.data import DataError, InMemory, Items, parse_split, slice_source
from sgmae_jax.data.motion import Argoverse2, Roads, SceneFiles, SceneRows
from sgmae_jax.methods.base import Method, Run, Stream

UNIT = "scene"
SHORT = "scenes"


def check(config) -> None:
    """What the fields of scenes must agree on.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    if config.data.source != "synthetic_roads" and not config.data.path:
        raise ConfigError("config.data.path = '': must name the folder of data.source")
    for name in ("agents", "lanes"):
        sizes = _sizes(config.motion[name])
        if list(sizes) != sorted(sizes):
            raise ConfigError(f"config.motion.{name} = {sizes}: must ascend")
    if config.motion.view == "vehicle" and config.data.source == "synthetic_roads":
        raise ConfigError(
            "config.motion.view = 'vehicle': must be 'focal' for synthetic_roads, "
            "nobody records them"
        )


def check_mask(config) -> None:
    """Methods on scenes make their own masks."""


def open_source(config, split: str, *, in_memory: bool) -> Any:
    """The scenes of a config, at a split of them.

    Raises:
        DataError: they are not there, or there is something bad that is to be refused.
    """
    parsed = parse_split(split)
    if parsed is None:
        raise DataError(
            f"split {split!r} is neither a name nor a part such as 'train[:90%]'"
        )
    name, first, last = parsed
    part = config.motion
    source: Any
    if config.data.source == "synthetic_roads":
        source = Roads(split=name, seed=config.seed)
    elif config.data.source == "scenes":
        held_out = {kind: tuple(part[kind]) for kind in ("test", "validation")}
        source = SceneFiles(
            config.data.path,
            split=name,
            held_out=held_out,
            view=part.view,
            bad=part.bad,
        )
    else:
        source = Argoverse2(
            config.data.path,
            split=name,
            view=part.view,
            bad=part.bad,
            cache=part.cache,
            threads=config.data.threads or os.cpu_count() or 1,
        )
    if split != name:
        source = slice_source(source, first, last, name=split)
    return InMemory(source) if in_memory else source


def check_stream(source: Items, name: str, stream: Stream) -> None:
    """Scenes have neither labels nor pixels.

    Raises:
        ConfigError: the stream asks for some.
    """
    if stream.labelled or stream.pixels:
        raise ConfigError(
            f"config.data.source: must have labels, which the batches {name!r} of this "
            f"method need; {source.name} has scenes"
        )


def facts(config, source: Items) -> dict[str, Any]:
    """Nothing: scenes are taken in metres, as they are."""
    del config, source
    return {"classes": 0, "pixel_classes": 0, "facts": {}}


def make_rows(config, run: Run, stream: Stream | None) -> SceneRows:
    """Scenes padded to the smallest of the configured sizes."""
    del run, stream
    return SceneRows(
        _sizes(config.motion.agents),
        _sizes(config.motion.lanes),
        largest=jax.process_count() > 1,
    )


# Scoring and drawing are slow to import, and checking a config needs neither.
def make_scorer(config, method: Method, run: Run, **given):
    """See sgmae_jax/domains/scene_scores.py."""
    from sgmae_jax.domains.scene_scores import Scorer

    return Scorer(config, method, run, **given)


def artists(config, method: Method):
    """See sgmae_jax/domains/scene_pictures.py."""
    from sgmae_jax.domains import scene_pictures

    return scene_pictures.artists(config, method)


def title(config) -> str:
    """Whose frame the scenes are in."""
    who = {"focal": "focal agent", "vehicle": "vehicle"}[config.motion.view]
    return f"frame of the {who}"


def _sizes(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)
