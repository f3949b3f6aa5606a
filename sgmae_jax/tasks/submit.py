"""Forecasts of a run as the file that the Argoverse 2 benchmark takes."""

from __future__ import annotations

import pathlib

import jax
import numpy as np

from sgmae_jax import domains
from sgmae_jax.config import ConfigError
from sgmae_jax.data import plain_batches
from sgmae_jax.evaluation.submission import rows_of, write_submission
from sgmae_jax.methods.base import Run
from sgmae_jax.tasks.restore import restore_run
from sgmae_jax.training.console import Console


def submit(config, workdir: pathlib.Path, console: Console) -> None:
    """Writes submission.parquet: forecasts of every scene of eval.split."""
    step, config, method, params, meta = restore_run(config, workdir, console)
    domain = domains.of_config(config)
    if method.answer is None or domain is not domains.load("scenes"):
        raise ConfigError(
            f"config.task = 'submit': must be asked of a run that forecasts, "
            f"{config.method.name} does not"
        )
    source = domain.open_source(config, config.eval.split, in_memory=False)
    rows = domain.make_rows(config, Run(**meta["run"]), None)
    answer = jax.jit(method.answer)
    found = []
    for batch, count in plain_batches(source, rows, config.eval.batch_size):
        forecast = jax.device_get(answer(params, batch))
        for row in range(count):
            scenario, tracks = source.names(int(batch["id"][row]))
            one = {name: array[row] for name, array in batch.items()}
            several = forecast.others is None
            scored = one["agent_scored"] & one["agent_present"].any(-1)
            who = np.flatnonzero(scored) if several else np.array([0])
            places = forecast.places[row]
            places = places[:, who] if several else places[:, None]
            # Of agents that a batch left out nothing is said.
            names = _names(one, tracks, source[int(batch["id"][row])])
            found += rows_of(
                scenario,
                [names[agent] for agent in who],
                places + one["agent_center"][who][:, None],
                forecast.logits[row],
                origin=one["origin"],
                rotation=float(one["rotation"]),
            )
    path = workdir / "submission.parquet"
    write_submission(path, found)
    console.say(f"step {step}: {len(source)} scenes, {len(found)} rows: {path}")


def _names(one, tracks, scene) -> list[str]:
    """The names of a row's agents; a batch may hold fewer than the scene."""
    numbers = map(int, scene["agent_track"])
    places = dict(zip(numbers, tracks, strict=True))
    return [places.get(int(track), "") for track in one["agent_track"]]
