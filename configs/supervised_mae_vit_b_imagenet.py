"""MAE with ViT-B/16 on ImageNet that also learns from the labels: a control.

    python -m sgmae_jax.main --config supervised_mae_vit_b_imagenet \
        --config.data.path=imagenet --workdir runs/supervised_mae_vit_b

The recipe is MAE's, and nobody's published one. 164 GFLOP an image, 2.80 times MAE:
about 118 hours on one H200 at 40 % utilisation. What it is for: docs/finetune.md.
"""

from sgmae_jax.config import shipped


def get_config():
    return shipped("mae_vit_b_imagenet", "supervised_mae")
