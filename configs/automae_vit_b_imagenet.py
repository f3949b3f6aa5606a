"""AutoMAE with ViT-B/16 on ImageNet; behind the colon stands the first stage, a MAE.

    python -m sgmae_jax.main --config mae_vit_b_imagenet \
        --config.data.path=imagenet --workdir runs/mae_vit_b
    python -m sgmae_jax.main --config automae_vit_b_imagenet:runs/mae_vit_b \
        --config.data.path=imagenet --workdir runs/automae_vit_b

800 epochs on the attention of a MAE of 800 epochs. Paper: 83.32 % fine-tuned (MAE
83.26), 66.7 % linear probe (MAE 63.7). 93.9 GFLOP an image, 1.60 times MAE: about 68
hours on one H200 at 40 % utilisation, and the first stage's 43.
"""

from sgmae_jax.config import shipped


def get_config(scorer=""):
    config = shipped("mae_vit_b_imagenet", "automae")
    config.method.temperature = 1.0
    config.method.boost = 0.5
    config.method.adversarial_weight = 0.2
    config.method.scorer = scorer
    return config
