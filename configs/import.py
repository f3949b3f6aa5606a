"""Weights of others as an exported folder of ours, below the workdir.

    python -m sgmae_jax.main --config import:model.safetensors --workdir runs/vit_b

A PyTorch file needs --config.weights.allow_pickle=True; see docs/weights.md.
"""

from sgmae_jax.config import config_of_run


def get_config(path=""):
    return config_of_run("import", path)
