"""The authors' PyTorch training step, run from a checkout of facebookresearch/mae.

Nothing of theirs is here: $MAE_REPOSITORY names a folder with their models_mae.py.
"""

from __future__ import annotations

import functools
import os
import pathlib
import sys
from collections.abc import Callable

import numpy as np

from benchmarks.bare import Sizes


def authors_trainer(sizes: Sizes, batch: int) -> Callable[[], object] | str:
    """Their step as a call without arguments, or the reason why there is none.

    float32, AdamW, norm_pix loss, random masks: what their main_pretrain.py does on
    one device, without its loss scaler and logging.
    """
    folder = os.environ.get("MAE_REPOSITORY", "")
    if not pathlib.Path(folder, "models_mae.py").is_file():
        return "set MAE_REPOSITORY to a checkout of facebookresearch/mae"
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    # torchvision from the registry does not match a CPU build of torch: timm only
    # needs two of its operators to be known by name.
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float threshold) -> Tensor")
    authors_trainer.library = library  # type: ignore[attr-defined]  # kept alive
    try:
        import timm.models.vision_transformer as vit
    except ImportError:
        return "timm is not installed"
    # Their code is of 2021: numpy had `float`, and timm's Block took qk_scale.
    np.float = float  # type: ignore[attr-defined]
    block = vit.Block

    class Block(block):  # type: ignore[misc, valid-type]
        def __init__(self, *args, qk_scale=None, **options):
            super().__init__(*args, **options)

    vit.Block = Block
    sys.path.insert(0, folder)
    try:
        import models_mae
    finally:
        sys.path.remove(folder)
        vit.Block = block

    model = models_mae.MaskedAutoencoderViT(
        img_size=sizes.image,
        patch_size=sizes.patch,
        embed_dim=sizes.width,
        depth=sizes.depth,
        num_heads=sizes.heads,
        decoder_embed_dim=sizes.decoder_width,
        decoder_depth=sizes.decoder_depth,
        decoder_num_heads=sizes.decoder_heads,
        mlp_ratio=4,
        norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-6),
        norm_pix_loss=True,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95))
    images = torch.randn(batch, 3, sizes.image, sizes.image)

    def call():
        loss, _, _ = model(images, mask_ratio=sizes.ratio)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return np.float32(loss.item())

    return call
