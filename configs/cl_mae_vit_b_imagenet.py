"""CL-MAE with ViT-B/16 on ImageNet, as far as the released code tells the recipe.

    python -m sgmae_jax.main --config cl_mae_vit_b_imagenet \
        --config.data.path=imagenet --workdir runs/cl_mae_vit_b

200 epochs and raw pixels are the code's defaults; the paper's numbers of epochs and
GPUs, and its tables, were not found. The rate is MAE's: the code's default of 1e-3
stands in MAE's code too, and MAE's recipe does not use it. Reported by others: 2.9
points more kNN accuracy than MAE. 209 GFLOP an image, 3.56 times MAE: about 38 hours
on one H200 at 40 % utilisation.
"""

from sgmae_jax.config import shipped


def get_config():
    config = shipped("mae_vit_b_imagenet", "cl_mae")
    config.epochs = 200
    return config
