"""Self-guided MAE on the embedded textures, where the true object is known.

    python -m sgmae_jax.main --config self_guided_textures --workdir runs/self_guided

Two CPU cores: under 4 minutes.
"""

from sgmae_jax.config import default_config


def get_config():
    config = default_config("self_guided")
    config.epochs = 6
    config.data.source = "synthetic"
    config.data.image_size = 32
    config.data.batch_size = 128
    config.data.in_memory = True
    config.model.patch_size = 4
    config.model.width = 96
    config.model.depth = 4
    config.model.heads = 3
    config.model.decoder_width = 64
    config.model.decoder_depth = 1
    config.model.decoder_heads = 2
    config.method.begin_epoch = 1
    config.method.side = "border"  # small models attend to no side reliably
    config.optim.base_lr = 3e-3
    config.optim.warmup_epochs = 0.5
    config.checkpoint.every = 200
    config.log.every = 25
    config.log.pictures = 300
    config.eval.every = 300
    config.eval.crop = 1.0
    config.eval.fit_limit = 4000
    config.eval.limit = 2000
    return config
