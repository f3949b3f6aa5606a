r"""Forecasts of a run as the file that the Argoverse 2 benchmark takes.

    python -m sgmae_jax.main --config submit:runs/forecast_argoverse2 \
        --workdir runs/submission --config.data.path=argoverse2/

Writes submission.parquet, of the scenes of eval.split (by default test).
"""

from sgmae_jax.config import config_of_run


def get_config(run=""):
    config = config_of_run("submit", run)
    config.eval.split = "test"
    return config
