"""Fine-tuning ViT-B/16 on ImageNet; behind the colon stands the pre-trained encoder.

    python -m sgmae_jax.main --config finetune_vit_b_imagenet:runs/mae_vit_b \
        --config.data.path=imagenet --workdir runs/finetune_vit_b

MAE's published recipe (paper, table 9; facebookresearch/mae FINETUNE.md) without its
mixup 0.8, cutmix 1.0, RandAugment (9, 0.5) and random erasing 0.25, which are not
offered here yet: expect less than its 83.6 %. 105 GFLOP an image: about 9.5 hours on
one H200 at 40 % utilisation, if the input keeps up.
"""

from sgmae_jax.config import shipped


def get_config(encoder=""):
    config = shipped("mae_vit_b_imagenet", "finetune")
    config.epochs = 100
    config.data.batch_size = 1024
    config.data.crop_scale = (0.08, 1.0)
    config.optim.base_lr = 5e-4
    config.optim.min_lr = 1e-6
    config.optim.b2 = 0.999
    config.optim.warmup_epochs = 5
    config.optim.weight_decay = 0.05
    config.method.encoder = encoder
    config.method.layer_decay = 0.65
    config.method.drop_path = 0.1
    config.method.label_smoothing = 0.1
    return config
