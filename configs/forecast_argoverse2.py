r"""Forecasting on Argoverse 2, the authors' setting.

    python -m sgmae_jax.main --config forecast_argoverse2:runs/forecast_mae_argoverse2 \
        --config.data.path=argoverse2/

60 epochs. The authors report minADE6 0.7117, minFDE6 1.408, MR6 0.178 on the validation
split (from scratch 0.7214, 1.430, 0.187). Not run here at full length.
"""

from sgmae_jax.config import shipped


def get_config(run=""):
    config = shipped("forecast_mae_argoverse2", "forecast")
    config.method.encoder = run
    config.eval.split = "validation"
    config.eval.limit = 30_000
    return config
