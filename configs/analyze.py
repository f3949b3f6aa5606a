"""How a run's model came to divide images: metrics over its checkpoints, with pictures.

    python -m sgmae_jax.main --config analyze:runs/quickstart --workdir runs/quickstart

The data and the mask ratio are those of the run. Train with `checkpoint.keep_period` to
have a series to look at. See docs/analysis.md.
"""

from sgmae_jax.config import config_of_run


def get_config(run=""):
    return config_of_run("analyze", run)
