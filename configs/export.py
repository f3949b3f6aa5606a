"""The encoder of a checkpoint as safetensors, with a JSON card.

python -m sgmae_jax.main --config export:runs/quickstart --workdir runs/quickstart
"""

from sgmae_jax.config import config_of_run


def get_config(run=""):
    return config_of_run("export", run)
