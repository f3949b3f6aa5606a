"""A small dBOT on CIFAR-10: two stages, the first teacher random.

    python -m sgmae_jax.main --config dbot_tiny_cifar10 \
        --config.data.path=cifar10.zip --workdir runs/dbot_tiny_cifar10

Two CPU cores: 20 to 45 minutes. Another first teacher, with one stage:
`--config.method.teacher=runs/mae_tiny_cifar10 --config.method.stages=1`. Scores:
docs/results.md.
"""

from sgmae_jax.config import shipped


def get_config():
    return shipped("mae_tiny_cifar10", "dbot")
