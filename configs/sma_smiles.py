"""SMA on molecules written as SMILES: bytes of a CSV's column.

    python -m sgmae_jax.main --config sma_smiles --config.data.path=HIV.csv \
        --workdir runs/sma_smiles

Masks of the paper's chemistry model (30 % of the bytes, mixed heads, the drawn queries
hidden too) in a small network: 128 bytes, width 128, four layers after the first. Two
CPU cores: about 40 minutes for the 41,127 molecules of MoleculeNet's HIV, our estimate.
`method.scores=random` is the baseline; `table.packed=True` fills each row with the
molecules that follow, as the authors do. Proteins: `table.text=sequence`.
Scores of ours: docs/results.md.
"""

from sgmae_jax.config import shipped


def get_config():
    config = shipped("sma_table")
    config.epochs = 4
    config.data.source = "text"
    config.data.path = "molecules.csv"
    config.data.batch_size = 64
    config.table.text = "smiles"
    config.table.length = 128
    config.table.overlong = "cut"
    config.eval.limit = 1000
    config.mask.ratio = 0.3
    config.method.random_start = 0.0
    config.method.mask_token = True
    config.optim.base_lr = 4e-3
    config.optim.warmup_epochs = 0.2
    return config
