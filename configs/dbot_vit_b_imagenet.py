"""dBOT with ViT-B/16 on ImageNet, the recipe of the authors' PRETRAIN.md.

    python -m sgmae_jax.main --config dbot_vit_b_imagenet \
        --config.data.path=imagenet --workdir runs/dbot_vit_b

Two stages of 800 epochs, each with its own warm-up; the first teacher is random, with
all 12 blocks. Paper: 84.5 % fine-tuned, COCO 52.7 box AP, ADE20K 49.5 mIoU; linear
probing is not reported. 93.9 GFLOP an image, 1.60 times MAE: about 135 hours on one
H200 at 40 % utilisation. For ViT-L and ViT-H the authors' first teacher has no blocks:
`--config.method.teacher_depths="(0, None)"`.
"""

from sgmae_jax.config import shipped


def get_config():
    config = shipped("mae_vit_b_imagenet", "dbot")
    config.epochs = 1600
    config.method.stages = 2
    config.method.drop_path = 0.2
    config.optim.clip_norm = 3.0
    return config
