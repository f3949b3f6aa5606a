"""A small CL-MAE on CIFAR-10 (class folders in a zip, a folder, or a tar).

    python -m sgmae_jax.main --config cl_mae_tiny_cifar10 \
        --config.data.path=cifar10.zip --workdir runs/cl_mae_tiny_cifar10

Two CPU cores: 45 to 90 minutes, about four times MAE. Its masking network has two
blocks, as the encoder has four; the paper's five beside twelve. Scores:
docs/results.md.
"""

from sgmae_jax.config import default_config


def get_config():
    config = default_config("cl_mae")
    config.epochs = 18
    config.data.source = "folder"
    config.data.path = "cifar10.zip"
    config.data.split = "train[:95%]"
    config.data.image_size = 32
    config.data.batch_size = 256
    config.data.in_memory = True
    config.data.mean = (0.4914, 0.4822, 0.4465)
    config.data.std = (0.2470, 0.2435, 0.2616)
    config.model.patch_size = 4
    config.model.width = 96
    config.model.depth = 4
    config.model.heads = 3
    config.model.decoder_width = 64
    config.model.decoder_depth = 1
    config.model.decoder_heads = 2
    config.optim.base_lr = 1.5e-3
    config.optim.warmup_epochs = 2
    config.method.masker_depth = 2
    config.method.masker_heads = 3
    config.checkpoint.every = 500
    config.log.every = 50
    config.log.pictures = 1000
    config.eval.every = 1000
    config.eval.crop = 1.0
    # While it trains, a run is scored on held-out training images only.
    config.eval.fit_split = "train[:95%]"
    config.eval.split = "train[95%:]"
    return config
