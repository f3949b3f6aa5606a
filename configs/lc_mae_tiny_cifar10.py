"""A small LC-MAE on CIFAR-10 (class folders in a zip, a folder, or a tar).

    python -m sgmae_jax.main --config lc_mae_tiny_cifar10 \
        --config.data.path=cifar10.zip --workdir runs/lc_mae_tiny_cifar10

Every image goes through twice, under two masks; half the epochs of half the batch make
as many forward passes and steps as `mae_tiny_cifar10` does, which is also how long it
takes: 12 to 25 minutes on two CPU cores. Scores: docs/results.md.
"""

from sgmae_jax.config import shipped


def get_config():
    config = shipped("mae_tiny_cifar10", "lc_mae")
    config.epochs //= 2
    config.data.batch_size //= 2
    config.optim.base_lr *= 2  # the same peak for half the batch
    config.optim.warmup_epochs /= 2
    config.method.align_weight = 1.0
    return config
