"""SMA on HIGGS: 28 numbers a collision, a label in front, no header.

    python -m sgmae_jax.main --config sma_higgs --config.data.path=HIGGS.csv.gz \
        --workdir runs/sma_higgs

Masks and sizes of the paper's HIGGS model: 602,241 parameters, 6 of 28 columns hidden,
at random first and guided from a quarter of the run on. The label is not looked at. Two
CPU cores: about eight minutes for 7,000 rows. `method.scores=random` is the baseline.
Scores of ours: docs/results.md.
"""

from sgmae_jax.config import shipped


def get_config():
    config = shipped("sma_table")
    config.data.path = "higgs.csv"
    config.data.split = "train[:70%]"
    config.eval.split = "train[70%:80%]"
    config.table.header = False
    config.table.ignore = (0,)
    return config
