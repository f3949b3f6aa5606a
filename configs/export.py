"""The encoder of a checkpoint as safetensors, with a JSON card.

python -m sgmae_jax.main --config export:runs/quickstart --workdir runs/quickstart
"""

from sgmae_jax.config import default_config


def get_config(run=""):
    config = default_config("mae")
    config.task = "export"
    config.checkpoint.path = run
    config.data.source = None
    return config
