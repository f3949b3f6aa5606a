"""A table of runs, evaluations and exported folders, as Markdown and as a page.

    python -m sgmae_jax.main --config compare:runs/mae_0,runs/mae_1,runs/mlo_mae_0 \
        --workdir runs/comparison

Runs that differ in their seed alone are one row, with a standard error.
"""

from sgmae_jax.config import default_config


def get_config(runs=""):
    config = default_config()
    config.task = "compare"
    config.compare.runs = tuple(runs.split(","))
    return config
