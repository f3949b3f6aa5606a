"""A table of the scores of any number of runs."""

from __future__ import annotations

import pathlib

from sgmae_jax.analysis.comparison import read_result, write_comparison
from sgmae_jax.config import ConfigError
from sgmae_jax.evaluation.protocols import several
from sgmae_jax.training.console import Console


def compare(config, workdir: pathlib.Path, console: Console) -> None:
    """Writes comparison.md and comparison.html, and prints the first."""
    runs = [path for path in several(config.compare.runs) if path]
    if not runs:
        raise ConfigError("config.compare.runs = '': must name runs to compare")
    try:
        results = [read_result(pathlib.Path(run)) for run in runs]
    except ValueError as error:
        raise ConfigError(f"config.compare.runs: {error}") from None
    table, page = write_comparison(results, workdir)
    for line in table.splitlines():
        console.say(line)
    console.say(f"comparison: {page}")
