"""A small RC-MAE on CIFAR-10 (class folders in a zip, a folder, or a tar).

    python -m sgmae_jax.main --config rc_mae_tiny_cifar10 \
        --config.data.path=cifar10.zip --workdir runs/rc_mae_tiny_cifar10

Two CPU cores: 16 to 35 minutes, 1.33 times MAE. Scores: docs/results.md.
"""

from sgmae_jax.config import shipped


def get_config():
    config = shipped("mae_tiny_cifar10", "rc_mae")
    # A run of 3,300 steps: the teacher of the paper's 0.996 looks back over 250.
    config.method.momentum = 0.99
    return config
