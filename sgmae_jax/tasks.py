"""What the program can be asked to do, by the config's `task`."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax

from sgmae_jax import __version__, methods
from sgmae_jax.analysis.gallery import write_gallery
from sgmae_jax.analysis.series import Final, Series, study_run
from sgmae_jax.checkpointing import read_meta, restore_params
from sgmae_jax.config import (
    ConfigError,
    assign,
    config_from,
    config_of_run,
    validate,
)
from sgmae_jax.methods.base import Method, Run
from sgmae_jax.training.console import Console
from sgmae_jax.training.inputs import open_config_source
from sgmae_jax.training.loop import pretrain
from sgmae_jax.training.mesh import make_mesh, placed, state_shardings
from sgmae_jax.training.scores import Scorer, score_table
from sgmae_jax.training.workdir import write_json
from sgmae_jax.weights.export import export_encoder


def evaluate(config, workdir: pathlib.Path, console: Console) -> None:
    """Prints kNN and probe accuracy of a checkpoint, known by its directory alone."""
    step, config, method, params, _ = restore_run(config, workdir, console)
    console.say(f"{config.method.name}, checkpoint of step {step}")
    scorer = Scorer(config, method, make_mesh(config.mesh), console)
    init = jax.jit(method.init)
    scores = scorer.final(params, lambda: init(_init_key(config)))
    for line in score_table(scores):
        console.say(line)
    path = workdir / "evaluation.json"
    write_json(path, {"step": step, "split": config.eval.split, "scores": scores})


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


TASKS: dict[str, Callable[[Any, pathlib.Path, Console], None]] = {
    "pretrain": pretrain,
    "evaluate": evaluate,
    "export": export,
    "analyze": analyze,
}


def _study(config, workdir: pathlib.Path, console: Console) -> Series:
    if jax.process_count() > 1:
        raise ConfigError("config.task = 'analyze': must run in a single process")
    folder = pathlib.Path(config.checkpoint.path or workdir) / "checkpoints"
    step, config, method, params, meta = restore_run(config, workdir, console)
    frozen = {name: params[name] for name in meta["run"].get("frozen", {})}
    return study_run(
        folder,
        config,
        method,
        Final(step, params, meta.get("marks", {})),
        lambda: {**jax.jit(method.init)(_init_key(config)), **frozen},
        open_config_source(config, config.eval.split, in_memory=False),
        log=console.say,
    )


def restore_run(
    config, workdir: pathlib.Path, console: Console
) -> tuple[int, Any, Method, Any, dict[str, Any]]:
    """The newest sound checkpoint: step, its config with this one's wishes, params."""
    run_directory = pathlib.Path(config.checkpoint.path or workdir)
    folder = run_directory / "checkpoints"
    if not folder.is_dir():
        raise ConfigError(
            f"config.checkpoint.path = {str(run_directory)!r}: must be a run "
            "directory, one that holds checkpoints/"
        )
    step, meta = read_meta(folder, log=console.say)
    merged = _merge(meta["config"], config)
    method = methods.load(merged.method.name).build(merged, Run(**meta["run"]))
    shapes = jax.eval_shape(method.init, _init_key(merged))
    shapes = placed(shapes, state_shardings(shapes, make_mesh(merged.mesh)))
    params = restore_params(folder, shapes, step=step, log=console.say)
    return step, merged, method, params, meta


def _merge(trained: dict[str, Any], wished):
    """The checkpoint's config, with the data source and evaluation asked for."""
    merged = config_from(trained)
    merged.task = wished.task
    merged.eval = wished.eval
    merged.analyze = wished.analyze
    merged.mesh = wished.mesh
    if wished.data.source is not None:
        merged.data.source = wished.data.source
    if wished.data.source is not None or wished.data.path:
        merged.data.path = wished.data.path
    validate(merged)
    return merged


def _init_key(config) -> jax.Array:
    """The key that `init_state` gives to `method.init`."""
    return jax.random.fold_in(jax.random.key(config.seed), 0)
