"""Self-guided MAE with ViT-B/16 on ImageNet.

    python -m sgmae_jax.main --config self_guided_vit_b_imagenet \
        --config.data.path=imagenet --workdir runs/self_guided_vit_b

Paper: 400 epochs, guidance from about epoch 50, 75 % hidden; its scores were not at
hand. The rest is MAE's recipe. 90.9 GFLOP an image once guidance has begun (58.7
before): about 31 hours on one H200 at 40 % utilisation, if the input keeps up.
`--config.method.refresh=bank` brings that to 21 hours, and 18 sweeps of some minutes;
the bank takes 0.5 GB.
"""

from sgmae_jax.config import default_config


def get_config():
    config = default_config("self_guided")
    config.epochs = 400
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
    config.method.begin_epoch = 50
    config.checkpoint.every = 1000
    config.log.every = 50
    config.log.pictures = 5000
    config.eval.every = 5000
    config.eval.split = "val"
    return config
