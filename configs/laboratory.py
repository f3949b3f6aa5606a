"""What one or several runs have learned, on one page that needs nothing else.

    python -m sgmae_jax.main --config laboratory:runs/mae,runs/lc_mae \
        --workdir runs/laboratory

Leaves report.html, with configuration, curves, masks, reconstructions, clusters,
attention and the analyses of docs/laboratory.md, and laboratory.json. The way of
evaluating (`eval.*`) is that of the first run, so that all are shown the same images.
"""

from sgmae_jax.config import config_of_run


def get_config(runs=""):
    names = tuple(runs.split(","))
    config = config_of_run("laboratory", names[0])
    config.checkpoint.path = ""
    config.laboratory.runs = names
    return config
