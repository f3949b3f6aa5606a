"""kNN, linear probes and few-shot accuracy of an encoder, known by its directory.

    python -m sgmae_jax.main --config evaluate:runs/quickstart

The data and the way of scoring are those of the run unless `data.source`, `data.path`
or fields of `eval` say otherwise.
"""

from sgmae_jax.config import config_of_run


def get_config(run=""):
    config = config_of_run("evaluate", run)
    config.eval.protocols = ("knn", "probe", "discriminant", "lars", "few_shot")
    return config
