"""A small AutoMAE on CIFAR-10; behind the colon stands the first stage, a run of MAE.

    python -m sgmae_jax.main --config mae_tiny_cifar10 \
        --config.data.path=cifar10.zip --workdir runs/mae_tiny_cifar10
    python -m sgmae_jax.main --config automae_tiny_cifar10:runs/mae_tiny_cifar10 \
        --config.data.path=cifar10.zip --workdir runs/automae_tiny_cifar10

Two CPU cores: 20 to 45 minutes, after the first stage. Scores: docs/results.md.
"""

from sgmae_jax.config import shipped


def get_config(scorer=""):
    config = shipped("mae_tiny_cifar10", "automae")
    config.method.scorer = scorer
    return config
