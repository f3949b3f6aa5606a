"""Forecasting on synthetic roads, from a run of Forecast-MAE or from scratch.

    python -m sgmae_jax.main --config forecast_roads:runs/forecast_mae_roads

About seven minutes on two cores. Without a run behind the colon it starts at random.
"""

from sgmae_jax.config import shipped


def get_config(run=""):
    config = shipped("forecast_mae_roads", "forecast")
    config.method.encoder = run
    config.eval.split = "test"
    return config
