"""MAE with ViT-B/16 on ImageNet, the recipe of the paper's code release.

    python -m sgmae_jax.main --config mae_vit_b_imagenet \
        --config.data.path=imagenet --workdir runs/mae_vit_b

Paper (1600 epochs): 83.6 % fine-tuned, 67.8 % linear probe. 58.7 GFLOP an image:
about 43 hours for 800 epochs on one H200 at 40 % utilisation, if the input keeps up.
"""

from sgmae_jax.config import default_config


def get_config():
    config = default_config("mae")
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
    config.checkpoint.every = 1000
    config.log.every = 50
    config.log.pictures = 5000
    config.eval.every = 5000
    config.eval.split = "val"
    return config
