"""Fine-tuning ViT-B/16 on ImageNet; behind the colon stands the pre-trained encoder.

    python -m sgmae_jax.main --config finetune_vit_b_imagenet:runs/mae_vit_b \
        --config.data.path=imagenet --workdir runs/finetune_vit_b

MAE's published recipe (paper, table 9; facebookresearch/mae FINETUNE.md): 83.6 % from
its encoder of 1600 epochs. 105 GFLOP an image: about 9.5 hours on one H200 at 40 %
utilisation, if the input keeps up; RandAugment takes the host 2 to 3 ms an image.
"""

from sgmae_jax.config import shipped


def get_config(encoder=""):
    config = shipped("mae_vit_b_imagenet", "finetune")
    config.epochs = 100
    config.data.batch_size = 1024
    config.data.crop_scale = (0.08, 1.0)
    config.data.rand_augment = (9, 0.5)
    config.model.positions = "learned"
    config.optim.base_lr = 5e-4
    config.optim.min_lr = 1e-6
    config.optim.b2 = 0.999
    config.optim.warmup_epochs = 5
    config.optim.weight_decay = 0.05
    config.method.encoder = encoder
    config.method.layer_decay = 0.65
    config.method.drop_path = 0.1
    config.method.label_smoothing = 0.1
    config.method.mixup = 0.8
    config.method.cutmix = 1.0
    config.method.erase = 0.25
    config.eval.limit = 50_000
    return config
