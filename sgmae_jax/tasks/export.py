"""An earlier run's encoder as a folder that other programs can read."""

from __future__ import annotations

import json
import pathlib

import jax

from sgmae_jax import __version__
from sgmae_jax.tasks.restore import restore_run
from sgmae_jax.training.console import Console
from sgmae_jax.weights.export import export_encoder


def export(config, workdir: pathlib.Path, console: Console) -> None:
    """Writes the encoder of a checkpoint as safetensors with a JSON card."""
    run_directory = pathlib.Path(config.checkpoint.path or workdir)
    step, config, method, params, meta = restore_run(config, workdir, console)
    scores_file = run_directory / "scores.json"
    card = {
        "sgmae_jax": __version__,
        "method": config.method.name,
        "step": step,
        "data_fingerprint": meta["data"]["fingerprint"],
        "config": meta["config"],
        "scores": json.loads(scores_file.read_text()) if scores_file.exists() else {},
    }
    folder = workdir / "export"
    export_encoder(jax.device_get(method.encoder(params)), card, folder)
    console.say(f"encoder of step {step}: {folder}")
