r"""Forecast-MAE on Argoverse 2, the authors' setting.

    python -m sgmae_jax.main --config forecast_mae_argoverse2 \
        --config.data.path=argoverse2/

Width 128, four blocks each, batch 128, 60 epochs of 199,908 scenarios. Features are
cached once, about 12 GB (motion.cache). Not run here at full length; the authors report
no score of pre-training alone.
"""

from sgmae_jax.config import shipped


def get_config():
    config = shipped("forecast_mae_roads", "forecast_mae")
    config.epochs = 60
    config.data.source = "argoverse2"
    config.data.path = "argoverse2"
    config.data.batch_size = 128
    config.motion.agents = (32, 64, 96)
    config.motion.lanes = (96, 160, 256)
    config.model.width, config.model.depth, config.model.heads = 128, 4, 8
    config.model.decoder_width = 128
    config.model.decoder_depth, config.model.decoder_heads = 4, 8
    config.optim.base_lr = 2e-3  # 1e-3 at a batch of 128
    config.optim.min_lr = 1e-6
    config.optim.warmup_epochs = 10.0
    config.checkpoint.every = 2000
    config.log.every = 100
    return config
