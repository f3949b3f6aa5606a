"""Fine-tuning on HIGGS; behind the colon stands the pre-trained encoder, a run of SMA.

    python -m sgmae_jax.main --config sma_higgs --config.data.path=higgs.csv \
        --workdir runs/sma_higgs
    python -m sgmae_jax.main --config sma_finetune_higgs:runs/sma_higgs \
        --config.data.path=higgs.csv --workdir runs/sma_finetune_higgs

Without the colon the same network starts at random. The best epoch by held-out rows is
tested, once, on others. Two CPU cores: about a minute for a thousand labels.
"""

from sgmae_jax.config import shipped


def get_config(encoder=""):
    config = shipped("sma_table", "sma_finetune")
    config.method.encoder = encoder
    config.epochs = 60
    config.data.path = "higgs.csv"
    config.data.split = "train[:1000]"
    config.data.batch_size = 100
    config.table.header = False
    config.table.target = 0
    config.optim.base_lr = 1e-3
    config.optim.warmup_epochs = 3
    config.eval.every = 20
    config.eval.choose_best = True
    config.eval.patience = 15
    config.eval.validation_split = "train[70%:80%]"
    config.eval.split = "train[80%:]"
    config.eval.baselines = True
    config.method.attention_dropout = 0.1
    config.method.dropout = 0.1
    config.method.drop_path = 0.1
    return config
