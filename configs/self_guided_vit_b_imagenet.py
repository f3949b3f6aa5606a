"""Self-guided MAE with ViT-B/16 on ImageNet.

    python -m sgmae_jax.main --config self_guided_vit_b_imagenet \
        --config.data.path=imagenet --workdir runs/self_guided_vit_b

Paper: 400 epochs, guidance from about epoch 50, 75 % hidden; its scores were not at
hand. The rest is MAE's recipe. 90.9 GFLOP an image once guidance has begun (58.7
before): about 31 hours on one H200 at 40 % utilisation, if the input keeps up.
`--config.method.refresh=bank` brings that to 21 hours, and 18 sweeps of some minutes;
the bank takes 0.5 GB.
"""

from sgmae_jax.config import shipped


def get_config():
    config = shipped("mae_vit_b_imagenet", "self_guided")
    config.epochs = 400
    config.method.begin_epoch = 50
    return config
