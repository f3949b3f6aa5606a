"""SMA on a table of your own: CSV, TSV, Parquet or NumPy.

    python -m sgmae_jax.main --config sma_table --config.data.path=mine.csv \
        --config.table.ignore="('id',)" --workdir runs/mine

Numbers are standardised, words become categories, empty cells a state of their own. The
last tenth of the rows (along a fixed shuffled order) is held out and reconstructed. The
sizes are those of the paper's HIGGS model; on two CPU cores a table of 10,000 rows
and 28 columns takes about ten minutes.
"""

from sgmae_jax.config import default_config


def get_config():
    config = default_config("sma")
    config.epochs = 50
    config.data.source = "table"
    config.data.path = "table.csv"
    config.data.split = "train[:90%]"
    config.data.batch_size = 256
    config.eval.split = "train[90%:]"
    config.eval.every = 500
    config.model.width = 128
    config.model.depth = 4
    config.model.heads = 8
    config.model.mlp_ratio = 1.0
    config.model.decoder_heads = 1
    config.model.remat = "none"
    config.mask.ratio = 0.2
    config.method.head_mix = "random_mix"
    config.method.mask_self = True
    config.method.random_start = 1.0
    config.method.random_until = 0.25
    config.optim.base_lr = 1e-3
    config.optim.b2 = 0.999
    config.optim.weight_decay = 0.01
    config.optim.clip_norm = 1.0
    config.optim.warmup_epochs = 1
    config.eval.baselines = False
    return config
