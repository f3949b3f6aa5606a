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


def authors_trainer(
    sizes: Sizes,
    batch: int,
    *,
    dtype: str = "float32",
    compiled: bool = False,
    device: str = "cpu",
    steps: int = 1,
    fused_attention: bool = True,
    fused_optimizer: bool | None = None,
) -> Callable[[], object] | str:
    """Their step as a call without arguments, or the reason why there is none.

    AdamW with weight decay, norm_pix loss, random masks: what their main_pretrain.py
    does on one device, on images that are there already, without its logging and its
    loss scaler (bfloat16 needs none). What a careful user sets is set: the fused
    optimizer, TF32 for products that stay float32, cuDNN's search for kernels.

    Args:
        sizes: of the model.
        batch: images a step.
        dtype: "float32", or "bfloat16" by autocast, with float32 parameters.
        compiled: whether forward and backward go through `torch.compile`, whole and
            for these shapes alone.
        device: "cpu" or "cuda".
        steps: how many a call makes; it waits for the last one.
        fused_attention: whether timm's blocks take PyTorch's one kernel for it.
        fused_optimizer: None: on a GPU.
    """
    folder = os.environ.get("MAE_REPOSITORY", "")
    if not pathlib.Path(folder, "models_mae.py").is_file():
        return "set MAE_REPOSITORY to a checkout of facebookresearch/mae"
    try:
        import torch

        models_mae = _their_module(folder)
    except ImportError as error:
        return f"{error.name} is not installed"

    on_gpu = device == "cuda"
    if on_gpu:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
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
    ).to(device)
    for block in (*model.blocks, *model.decoder_blocks):
        block.attn.fused_attn = fused_attention
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [one for one in trained if one.ndim > 1], "weight_decay": 0.05},
            {"params": [one for one in trained if one.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=1e-4,
        betas=(0.9, 0.95),
        fused=on_gpu if fused_optimizer is None else fused_optimizer,
    )
    images = torch.randn(batch, 3, sizes.image, sizes.image, device=device)
    # One shape each: a second one must not turn the program into one for any shape.
    forward = torch.compile(model, dynamic=False) if compiled else model
    narrow = torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16")

    def call():
        for _ in range(steps):
            with narrow:
                loss, _, _ = forward(images, mask_ratio=sizes.ratio)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return np.float32(loss.item())  # waits for all that was queued before

    return call


@functools.cache
def _their_module(folder: str):
    """Their models_mae, made to import with today's numpy, torch and timm."""
    import torch

    operators = None
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        # One that does not match torch; timm only needs two of its operators to be
        # known by name. One that matches must not find them there: it would abort.
        operators = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            operators.define(
                f"{name}(Tensor dets, Tensor scores, float threshold) -> Tensor"
            )
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
