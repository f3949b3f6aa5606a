r"""Forecasting on the scenes of forecast_mae_nuscenes.

    python -m sgmae_jax.main --config forecast_nuscenes:runs/forecast_mae_nuscenes \
        --config.data.path=scenes/

About four minutes on two cores. Without a run behind the colon it starts at random.
"""

from sgmae_jax.config import shipped


def get_config(run=""):
    config = shipped("forecast_mae_nuscenes", "forecast")
    config.method.encoder = run
    config.epochs = 12
    config.eval.split = "test"
    config.eval.batch_size = 32
    return config
