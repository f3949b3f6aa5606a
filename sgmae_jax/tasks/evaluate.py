"""Scores of an earlier run's checkpoint."""

from __future__ import annotations

import pathlib

import jax

from sgmae_jax import domains
from sgmae_jax.analysis.score_table import score_table
from sgmae_jax.methods.base import Run
from sgmae_jax.processes import is_first
from sgmae_jax.tasks.restore import init_key, restore_run
from sgmae_jax.training.console import Console
from sgmae_jax.training.mesh import make_mesh, placer
from sgmae_jax.training.workdir import public_config, write_json


def evaluate(config, workdir: pathlib.Path, console: Console) -> None:
    """Prints the scores of a checkpoint, known by its directory alone."""
    step, config, method, params, meta = restore_run(config, workdir, console)
    console.say(f"{config.method.name}, checkpoint of step {step}")
    scorer = domains.of_config(config).make_scorer(
        config,
        method,
        Run(**meta["run"]),
        place=placer(make_mesh(config.mesh)),
        say=console.say,
    )
    init = jax.jit(method.init)
    scores = scorer.final(params, lambda: init(init_key(config)))
    for line in score_table(scores):
        console.say(line)
    if not is_first():
        return
    path = workdir / "evaluation.json"
    found = {
        "step": step,
        "split": config.eval.split,
        "config": public_config(config),
        "scores": scores,
    }
    write_json(path, found)
