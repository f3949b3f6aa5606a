"""A small MLO-MAE on CIFAR-10; behind the colon may stand a preset.

    python -m sgmae_jax.main --config mlo_mae_tiny_cifar10 \
        --config.data.path=cifar10.zip --workdir runs/mlo_mae_tiny_cifar10
    python -m sgmae_jax.main --config mlo_mae_tiny_cifar10:released \
        --config.data.path=cifar10.zip --workdir runs/mlo_mae_released

Two CPU cores: 25 to 50 minutes, 2 to 4 hours as released. Scores: docs/results.md.
"""

from sgmae_jax.config import shipped
from sgmae_jax.methods.mlo_mae import set_preset


def get_config(preset="recommended"):
    config = shipped("mae_tiny_cifar10", "mlo_mae")
    set_preset(config, preset)
    return config
