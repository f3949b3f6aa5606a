"""A small MAE on CIFAR-10 that also learns from the labels: a control.

    python -m sgmae_jax.main --config supervised_mae_tiny_cifar10 \
        --config.data.path=cifar10.zip --workdir runs/supervised_mae_tiny_cifar10

3.7 times the arithmetic of MAE: about an hour on two CPU cores. What it is for:
docs/finetune.md.
"""

from sgmae_jax.config import shipped


def get_config():
    return shipped("mae_tiny_cifar10", "supervised_mae")
