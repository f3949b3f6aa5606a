"""Scores of an earlier run's checkpoint."""

from __future__ import annotations

import pathlib

import jax

from sgmae_jax.tasks.restore import init_key, restore_run
from sgmae_jax.training.console import Console
from sgmae_jax.training.mesh import make_mesh
from sgmae_jax.training.scores import Scorer, score_table
from sgmae_jax.training.workdir import write_json


def evaluate(config, workdir: pathlib.Path, console: Console) -> None:
    """Prints kNN and probe accuracy of a checkpoint, known by its directory alone."""
    step, config, method, params, _ = restore_run(config, workdir, console)
    console.say(f"{config.method.name}, checkpoint of step {step}")
    scorer = Scorer(config, method, make_mesh(config.mesh), console)
    init = jax.jit(method.init)
    scores = scorer.final(params, lambda: init(init_key(config)))
    for line in score_table(scores):
        console.say(line)
    path = workdir / "evaluation.json"
    write_json(path, {"step": step, "split": config.eval.split, "scores": scores})
