"""Segmentation of ADE20K by ViT-B/16 with UPerNet; behind the colon stands an encoder.

    python -m sgmae_jax.main --config segment_vit_b_ade20k:runs/mae_vit_b \
        --config.data.path=ade20k --workdir runs/segment_vit_b_ade20k

The scene-parsing set of 2016 as image/mask pairs: ade20k/{train,validation}/images and
masks, with a classes.txt of 150 lines. Its masks have 0 where a pixel has no class and
count from 1; here 255 has none and classes count from 0: subtract 1 from each in uint8.

Tuned end to end at 512 pixels with batch 16, as the paper says (A.4), for 160,000
steps; rate, decay of 0.65 a layer, drop path and warm-up are those of the public
reproduction in OpenMMLab's mmsegmentation (configs/mae), as the authors' own code was
not released. Missing of that recipe: relative positions, colour jitter, the auxiliary
head, scoring in sliding windows; expect less than the paper's 48.1 mIoU. 3630 GFLOP an
image: about 6.5 hours on one H200 at 40 % utilisation, if the input keeps up.
"""

from sgmae_jax.config import shipped


def get_config(encoder=""):
    config = shipped("mae_vit_b_imagenet", "segment")
    config.epochs = None
    config.steps = 160_000
    config.data.source = "pairs"
    config.data.path = "ade20k"
    config.data.image_size = 512
    config.data.batch_size = 16
    config.data.crop_scale = (0.25, 1.0)
    config.optim.base_lr = 1.6e-3  # 1e-4 at batch 16
    config.optim.min_lr = 0.0
    config.optim.b2 = 0.999
    config.optim.warmup_epochs = 1.2  # 1500 steps of 1263 an epoch
    config.optim.weight_decay = 0.05
    config.method.encoder = encoder
    config.method.head = "upernet"
    config.method.head_width = 768
    config.method.frozen = False
    config.method.layer_decay = 0.65
    config.method.drop_path = 0.1
    config.eval.split = "validation"
    config.eval.batch_size = 16
    config.eval.baselines = False
    return config
