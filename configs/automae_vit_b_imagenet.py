"""AutoMAE with ViT-B/16 on ImageNet; behind the colon stands the first stage, a MAE.

    python -m sgmae_jax.main --config mae_vit_b_imagenet \
        --config.data.path=imagenet --workdir runs/mae_vit_b
    python -m sgmae_jax.main --config automae_vit_b_imagenet:runs/mae_vit_b \
        --config.data.path=imagenet --workdir runs/automae_vit_b

800 epochs on the attention of a MAE of 800 epochs. Paper: 83.32 % fine-tuned (MAE
83.26), 66.7 % linear probe (MAE 63.7). 93.9 GFLOP an image, 1.60 times MAE: about 68
hours on one H200 at 40 % utilisation, and the first stage's 43.
"""

from sgmae_jax.config import default_config


def get_config(scorer=""):
    config = default_config("automae")
    config.epochs = 800
    config.data.source = "folder"
    config.data.path = "imagenet"
    config.data.image_size = 224
    config.data.batch_size = 4096
    config.model.preset = "vit_b"
    config.model.patch_size = 16
    config.model.decoder_width = 512
    config.model.decoder_depth = 8
    config.model.decoder_heads = 16
    config.model.dtype = "bfloat16"
    config.optim.base_lr = 1.5e-4
    config.optim.warmup_epochs = 40
    config.optim.weight_decay = 0.05
    config.method.temperature = 1.0
    config.method.boost = 0.5
    config.method.adversarial_weight = 0.2
    config.method.scorer = scorer
    config.checkpoint.every = 1000
    config.log.every = 50
    config.log.pictures = 5000
    config.eval.every = 5000
    config.eval.split = "val"
    return config
