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

        models_mae = _their_module(folder)
    except ImportError as error:
        return f"{error.name} is not installed"

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


@functools.cache
def _their_module(folder: str):
    """Their models_mae, made to import with today's numpy, torch and timm."""
    import torch

    # torchvision from a registry may not match a CPU build of torch; timm only needs
    # two of its operators to be known by name.
    operators = torch.library.Library("torchvision", "FRAGMENT")
    operators.define("nms(Tensor dets, Tensor scores, float threshold) -> Tensor")
    operators.define("qnms(Tensor dets, Tensor scores, float threshold) -> Tensor")
    import timm.models.vision_transformer as vit

    np.float = float  # type: ignore[attr-defined]  # numpy had it in 2021

    class Block(vit.Block):
        """timm's, which took qk_scale in 2021."""

        def __init__(self, *args, qk_scale=None, **options):
            super().__init__(*args, **options)

    vit.Block, original = Block, vit.Block  # type: ignore[misc]
    sys.path.insert(0, folder)
    try:
        import models_mae
    finally:
        sys.path.remove(folder)
        vit.Block = original  # type: ignore[misc]
    models_mae.operators = operators  # they live as long as this object
    return models_mae
