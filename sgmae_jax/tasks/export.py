"""Weights as folders that other programs read, and those of others as ours."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jax

from sgmae_jax import __version__
from sgmae_jax.config import ConfigError, assign, flatten
from sgmae_jax.tasks.restore import restore_run, takes_weights
from sgmae_jax.training.console import Console
from sgmae_jax.weights import write_weights

_NETWORK = ("model.", "data.mean", "data.std")


def export(config, workdir: pathlib.Path, console: Console) -> None:
    """Writes encoder and decoder of a checkpoint or of weights as safetensors."""
    _write(config, workdir, console, config.weights.format, "export")


def import_(config, workdir: pathlib.Path, console: Console) -> None:
    """Writes the weights of others as an exported folder of ours."""
    path = pathlib.Path(config.checkpoint.path)
    if not config.checkpoint.path or not takes_weights(path):
        raise ConfigError(
            f"config.checkpoint.path = {config.checkpoint.path!r}: must be a file or "
            "folder of weights"
        )
    _write(config, workdir, console, "ours", "import")


def _write(
    config, workdir: pathlib.Path, console: Console, form: str, name: str
) -> None:
    run_directory = pathlib.Path(config.checkpoint.path or workdir)
    step, config, method, params, meta = restore_run(config, workdir, console)
    # A network that the run took from a file has that file's sizes and statistics.
    for field, value in meta["run"].get("frozen", {}).get("model", {}).items():
        if field.startswith(_NETWORK):
            assign(config, field, value)
    if form != "ours" and config.model.decoder_window is not None:
        raise ConfigError(
            f"config.weights.format = {form!r}: must be 'ours' for a decoder with a "
            f"window (model.decoder_window = {config.model.decoder_window}), which no "
            "other program has"
        )
    parts = {"encoder": jax.device_get(method.encoder(params))}
    if method.decoder is not None:
        parts["decoder"] = jax.device_get(method.decoder(params))
    scores_file = run_directory / "scores.json"
    card: dict[str, Any] = {
        "sgmae_jax": __version__,
        "method": config.method.name,
        "step": step,
        "data_fingerprint": meta["data"]["fingerprint"],
        "config": {
            **meta["config"],
            **{k: v for k, v in flatten(config).items() if k.startswith(_NETWORK)},
        },
        "scores": json.loads(scores_file.read_text()) if scores_file.exists() else {},
    }
    if meta["run"].get("facts"):  # what its numbers and symbols mean
        card["facts"] = meta["run"]["facts"]
    # What was exported once keeps what was known of it.
    card |= meta.get("card", {})
    if "weights" in meta:
        card["weights"] = meta["weights"]
        _tell(console, meta["weights"], config)
    if form != "ours" and "cls_token" not in parts["encoder"]:
        raise ConfigError(
            f"config.weights.format = {form!r}: must be 'ours', the encoder of "
            f"{config.method.name} is no ViT"
        )
    folder = write_weights(form, config, parts, card, workdir / name)
    console.say(f"{' and '.join(parts)} of step {step}: {folder}")


def _tell(console: Console, origin: dict[str, Any], config) -> None:
    model, data = config.model, config.data
    console.say(
        f"{origin['file']}: names of {origin['format']}; width {model.width}, "
        f"{model.depth} blocks, {model.heads} heads, patches of {model.patch_size} in "
        f"images of {data.image_size} with {data.channels} channels, "
        f"{model.positions} positions"
    )
    for name, digest in origin["sha256"].items():
        console.say(f"sha256 {digest}  {name}")
    if origin["left_out"]:
        console.say(f"left out: {', '.join(origin['left_out'])}")
