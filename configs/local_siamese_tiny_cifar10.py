"""A small local Siamese network on CIFAR-10 (class folders in a zip, a folder, a tar).

    python -m sgmae_jax.main --config local_siamese_tiny_cifar10 \
        --config.data.path=cifar10.zip --workdir runs/local_siamese_tiny_cifar10

No mask, no decoder: two crops, the same points. `--config.method.target=ema` takes a
mean teacher in place of negatives. Two CPU cores: 20 to 40 minutes.
"""

from sgmae_jax.config import shipped


def get_config():
    config = shipped("mae_tiny_cifar10", "local_siamese")
    config.epochs = 6
    config.method.hidden, config.method.out = 256, 64
    config.method.momentum = 0.99
    return config
