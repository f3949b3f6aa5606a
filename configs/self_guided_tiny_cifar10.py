"""A small self-guided MAE on CIFAR-10 (class folders in a zip, a folder, or a tar).

    python -m sgmae_jax.main --config self_guided_tiny_cifar10 \
        --config.data.path=cifar10.zip --workdir runs/self_guided_cifar10

Two CPU cores: 20 to 40 minutes. `--config.method.refresh=bank` costs hardly more than
random masks. Scores: docs/results.md.
"""

from sgmae_jax.config import shipped


def get_config():
    config = shipped("mae_tiny_cifar10", "self_guided")
    config.method.begin_epoch = 4  # once the warm-up is over
    return config
