"""Forecast-MAE on synthetic roads, small; nothing to download.

    python -m sgmae_jax.main --config forecast_mae_roads

About ten minutes on two cores. Then forecast_roads on its encoder.
"""

from sgmae_jax.config import default_config


def get_config():
    config = default_config("forecast_mae")
    config.epochs = 10
    config.data.source = "synthetic_roads"
    config.data.batch_size = 32
    config.motion.agents = (16,)
    config.motion.lanes = (64,)
    config.model.width, config.model.depth, config.model.heads = 64, 2, 4
    config.model.decoder_width = 64
    config.model.decoder_depth, config.model.decoder_heads = 2, 4
    config.model.norm_eps = 1e-5
    config.optim.base_lr = 8e-3  # 1e-3 at a batch of 32
    config.optim.weight_decay = 1e-4
    config.optim.b2 = 0.999
    config.optim.clip_norm = 5.0
    config.optim.warmup_epochs = 1.0
    return config
