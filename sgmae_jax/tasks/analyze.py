"""Metrics, plots and pictures of an earlier run's checkpoints."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from sgmae_jax import domains
from sgmae_jax.analysis.gallery import write_gallery
from sgmae_jax.analysis.series import Final, Series, study_run
from sgmae_jax.config import ConfigError, assign, config_of_run, validate
from sgmae_jax.data import Source
from sgmae_jax.domains import images
from sgmae_jax.methods.base import Marks, Method, Params
from sgmae_jax.tasks.restore import init_key, restore_run, takes_weights
from sgmae_jax.training.console import Console
from sgmae_jax.training.workdir import write_json


def analyze(config, workdir: pathlib.Path, console: Console) -> None:
    """Writes metrics, plots and pictures of a run's checkpoints to `analysis/`."""
    series = _study(config, workdir, console)
    folder = workdir / "analysis"
    folder.mkdir(exist_ok=True)
    write_json(folder / "analysis.json", series.record)
    console.say(f"analysis: {write_gallery(series, folder)}")


def series_of_run(
    run: str | os.PathLike, console: Console | None = None, **fields: Any
) -> dict[int, dict[str, Any]]:
    """Metrics by step of a run, measured now; no file is written.

    Args:
        run: a run directory.
        console: where progress is told.
        fields: of the config's section `analyze`, for example images=16.
    """
    config = config_of_run("analyze", str(run))
    for name, value in fields.items():
        assign(config, f"analyze.{name}", value)
    validate(config)
    record = _study(config, pathlib.Path(run), console or Console()).record
    return {int(step): found for step, found in record["steps"].items()}


class Opened(NamedTuple):
    """A run on images, at its best or newest sound checkpoint.

    Attributes:
        folder: of its checkpoints.
        step: of the parameters.
        config: the run's, with this task's wishes.
        method: of that.
        params: all of them.
        untrained: () -> those before the first step.
        marks: what was decided during the run.
        source: the images of `eval.split`.
    """

    folder: pathlib.Path
    step: int
    config: Any
    method: Method
    params: Params
    untrained: Callable[[], Params]
    marks: Marks
    source: Source


def open_run(config, workdir: pathlib.Path, console: Console) -> Opened:
    """Opens the run at `checkpoint.path`, or in the working directory.

    Raises:
        ConfigError: it is not a run on images.
    """
    task = config.task
    run_directory = pathlib.Path(config.checkpoint.path or workdir)
    if takes_weights(run_directory):
        raise ConfigError(
            f"config.checkpoint.path = {str(run_directory)!r}: must be a run "
            "directory, weights have no checkpoints to analyze"
        )
    folder = run_directory / "checkpoints"
    step, config, method, params, meta = restore_run(config, workdir, console)
    if domains.of_config(config) is not images:
        raise ConfigError(
            f"config.task = {task!r}: must be asked of a run on images, "
            f"{config.method.name} had others"
        )
    frozen = {name: params[name] for name in meta["run"].get("frozen", {})}
    return Opened(
        folder,
        step,
        config,
        method,
        params,
        lambda: {**jax.jit(method.init)(init_key(config)), **frozen},
        meta.get("marks", {}),
        images.open_source(config, config.eval.split, in_memory=False),
    )


def study(run: Opened, console: Console) -> Series:
    """Measures an open run and its checkpoints; see `study_run`."""
    return study_run(
        run.folder,
        run.config,
        run.method,
        Final(run.step, run.params, run.marks),
        run.untrained,
        run.source,
        log=console.say,
    )


def _study(config, workdir: pathlib.Path, console: Console) -> Series:
    return study(open_run(config, workdir, console), console)
