"""LC-MAE with ViT-B/16 on ImageNet, our reading of the paper on MAE's recipe.

    python -m sgmae_jax.main --config lc_mae_vit_b_imagenet \
        --config.data.path=imagenet --workdir runs/lc_mae_vit_b

The paper pre-trains for 100 epochs; none of its numbers was at hand. Two masks an
image: 117 GFLOP, twice MAE's 58.7: about 11 hours on one H200 at 40 % utilisation.
"""

from sgmae_jax.config import shipped


def get_config():
    config = shipped("mae_vit_b_imagenet", "lc_mae")
    config.epochs = 100
    config.method.align_weight = 1.0
    return config
