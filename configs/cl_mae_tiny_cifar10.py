"""A small CL-MAE on CIFAR-10 (class folders in a zip, a folder, or a tar).

    python -m sgmae_jax.main --config cl_mae_tiny_cifar10 \
        --config.data.path=cifar10.zip --workdir runs/cl_mae_tiny_cifar10

Two CPU cores: 45 to 90 minutes, about four times MAE. Its masking network has two
blocks, as the encoder has four; the paper's five beside twelve. Scores:
docs/results.md.
"""

from sgmae_jax.config import shipped


def get_config():
    config = shipped("mae_tiny_cifar10", "cl_mae")
    config.method.masker_depth = 2
    config.method.masker_heads = 3
    return config
