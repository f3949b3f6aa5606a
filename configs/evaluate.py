"""kNN and probe accuracy of a checkpoint, known by its run directory.

    python -m sgmae_jax.main --config evaluate:runs/quickstart

The data are those of the run unless `data.source` and `data.path` name others.
"""

from sgmae_jax.config import default_config


def get_config(run=""):
    config = default_config("mae")
    config.task = "evaluate"
    config.checkpoint.path = run
    config.data.source = None
    return config
