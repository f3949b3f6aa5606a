"""Forecast-MAE on whole driving scenes as .npz arrays, such as the nuScenes-mini ones.

    python -m sgmae_jax.main --config forecast_mae_nuscenes --config.data.path=scenes/

391 windows of eight scenes; scenes 0553 and 1094 are for the test. A small network and
the 16 agents and 64 lanes nearest to the focal one: a does-it-learn test and no more.
About five minutes on two cores.
"""

from sgmae_jax.config import shipped


def get_config():
    config = shipped("forecast_mae_roads", "forecast_mae")
    config.epochs = 15
    config.data.source = "scenes"
    config.data.path = "scenes"
    config.data.in_memory = True
    config.data.batch_size = 16
    config.motion.test = ("scene-0553", "scene-1094")
    config.optim.base_lr = 1.6e-2  # 1e-3 at a batch of 16
    config.optim.warmup_epochs = 2.0
    return config
