"""Fine-tuning on a property of molecules; behind the colon a run of SMA on SMILES.

    python -m sgmae_jax.main --config sma_smiles --config.data.path=HIV.csv \
        --workdir runs/sma_smiles
    python -m sgmae_jax.main --config sma_finetune_smiles:runs/sma_smiles \
        --config.data.path=Lipophilicity.csv --config.table.target=exp \
        --workdir runs/sma_lipophilicity

Numbers are learned (RMSE); for classes set `table.task=classification` (ROC-AUC). Of
the rows, along a fixed shuffled order, four fifths are trained on, a tenth chooses the
best step, and the last tenth is tested once. Two CPU cores: one to three minutes.
"""

from sgmae_jax.config import shipped


def get_config(encoder=""):
    config = shipped("sma_smiles", "sma_finetune")
    config.method.encoder = encoder
    config.epochs = 20
    config.data.split = "train[:80%]"
    config.data.batch_size = 32
    config.table.task = "regression"
    config.table.target = "target"
    config.optim.base_lr = 4e-3
    config.optim.warmup_epochs = 1
    config.eval.every = 50
    config.eval.choose_best = True
    config.eval.patience = 20
    config.eval.validation_split = "train[80%:90%]"
    config.eval.split = "train[90%:]"
    config.eval.limit = 10_000
    config.eval.baselines = True
    config.method.attention_dropout = 0.1
    return config
