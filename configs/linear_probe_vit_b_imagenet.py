"""Linear probe of ViT-B/16 on ImageNet; behind the colon stands the encoder.

    python -m sgmae_jax.main --config linear_probe_vit_b_imagenet:runs/mae_vit_b \
        --config.data.path=imagenet --workdir runs/linear_probe_vit_b

MAE's published recipe (paper, table 10; facebookresearch/mae FINETUNE.md): 67.8 % from
its released encoder of 1600 epochs. 35 GFLOP an image, a forward pass: about 3 hours on
one H200 at 40 % utilisation, if the input keeps up. Where 16384 images do not fit,
`optim.accumulate` shows them to the encoder in parts.
"""

from sgmae_jax.config import shipped


def get_config(encoder=""):
    config = shipped("mae_vit_b_imagenet", "linear_probe")
    config.epochs = 90
    config.data.batch_size = 16384
    config.data.crop_scale = (0.08, 1.0)
    config.data.crop_clip = True
    config.model.positions = "learned"
    config.optim.base_lr = 0.1
    config.optim.warmup_epochs = 10
    config.optim.weight_decay = 0.0
    config.checkpoint.every = 200
    config.eval.every = 1000
    config.eval.limit = 50_000
    config.method.encoder = encoder
    return config
