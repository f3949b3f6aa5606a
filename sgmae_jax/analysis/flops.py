"""How much arithmetic a masked autoencoder costs, and how much of the peak it gets.

Counted in multiply-adds (MAC) of the matrix products; norms, softmax and
activations are left out, as is usual. One MAC is two FLOP, and a backward pass costs
two forward passes, so a training step is 6 FLOP per forward MAC.
"""

from __future__ import annotations

import re

# Dense bfloat16 peak of one JAX device in TFLOP/s, from the vendors' data sheets
# (V100: float16; TPU v2 and v3: a device is one core, half a chip). Matched as whole
# words in the device kind; the first that fits wins, so the narrower come first.
_PEAKS = (
    ("TPU v2", 22.5),
    ("TPU v3", 61.5),
    ("TPU v4 lite", 138.0),
    ("TPU v4", 275.0),
    ("TPU v5 lite", 197.0),
    ("TPU v5e", 197.0),
    ("TPU v5p", 459.0),
    ("TPU v5", 459.0),
    ("TPU v6 lite", 918.0),
    ("TPU v6e", 918.0),
    ("V100-PCIE", 112.0),
    ("V100", 125.0),
    ("A100", 312.0),
    ("A10", 125.0),
    ("A40", 149.7),
    ("RTX A6000", 154.8),
    ("RTX 3090", 71.0),
    ("RTX 4090", 165.2),
    ("RTX 6000 Ada", 364.2),
    ("L4", 121.0),
    ("L40S", 362.0),
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.0),
    ("GH200", 989.0),
    ("H200 NVL", 835.0),
    ("H200", 989.0),
    ("GB200", 2500.0),
    ("B200", 2250.0),
)


def transformer_macs(
    tokens: int, *, width: int, depth: int, mlp_ratio: float = 4.0
) -> int:
    """MAC of `depth` transformer blocks on `tokens` tokens (class token included)."""
    dense = round((4 + 2 * mlp_ratio) * width**2)
    return depth * (tokens * dense + 2 * tokens**2 * width)


def encoder_macs(
    tokens: int,
    *,
    patches: int,
    patch_values: int,
    width: int,
    depth: int,
    mlp_ratio: float = 4.0,
) -> int:
    """MAC of the encoder's forward pass for one image.

    Args:
        tokens: patches the blocks see; the class token is added here.
        patches: patches that are embedded: all of them, masked ones too.
        patch_values: numbers in a patch.
        width: D.
        depth: blocks.
        mlp_ratio: hidden width of the MLP over D.

    Returns:
        Multiply-adds.
    """
    blocks = transformer_macs(tokens + 1, width=width, depth=depth, mlp_ratio=mlp_ratio)
    return patches * patch_values * width + blocks


def decoder_macs(
    *,
    patches: int,
    kept: int,
    patch_values: int,
    encoder_width: int,
    width: int,
    depth: int,
    mlp_ratio: float = 4.0,
) -> int:
    """MAC of the decoder's forward pass for one image: embed, blocks, prediction.

    Args:
        patches: N; the blocks see N + 1 tokens.
        kept: K; K + 1 tokens are projected to the decoder's width.
        patch_values: numbers predicted per patch.
        encoder_width: width of the latent.
        width: width of the decoder.
        depth: blocks of the decoder.
        mlp_ratio: hidden width of the MLP over the width.

    Returns:
        Multiply-adds.
    """
    embed = (kept + 1) * encoder_width * width
    blocks = transformer_macs(
        patches + 1, width=width, depth=depth, mlp_ratio=mlp_ratio
    )
    return embed + blocks + (patches + 1) * width * patch_values


def mae_macs(
    *,
    patches: int,
    kept: int,
    patch_values: int,
    width: int,
    depth: int,
    decoder_width: int,
    decoder_depth: int,
    mlp_ratio: float = 4.0,
) -> int:
    """MAC of one masked autoencoder forward pass for one image.

    Args:
        patches: N.
        kept: K, the patches the encoder sees.
        patch_values: numbers in a patch.
        width: encoder width.
        depth: encoder blocks.
        decoder_width: decoder width.
        decoder_depth: decoder blocks.
        mlp_ratio: of both.

    Returns:
        Multiply-adds.
    """
    return encoder_macs(
        kept,
        patches=patches,
        patch_values=patch_values,
        width=width,
        depth=depth,
        mlp_ratio=mlp_ratio,
    ) + decoder_macs(
        patches=patches,
        kept=kept,
        patch_values=patch_values,
        encoder_width=width,
        width=decoder_width,
        depth=decoder_depth,
        mlp_ratio=mlp_ratio,
    )


def train_flops(macs: int) -> int:
    """FLOP of forward and backward pass, given the forward pass in MAC."""
    return 6 * macs


def peak_flops(device_kind: str) -> float | None:
    """Dense bfloat16 FLOP/s of one device of this kind; None where we do not know.

    Args:
        device_kind: `jax.Device.device_kind`, for example "NVIDIA H200" or "TPU v4".

    Returns:
        FLOP/s, or None for CPUs, unlisted devices and slices of a GPU (MIG).
    """
    if re.search(r"\bMIG\b", device_kind):
        return None
    for name, tera in _PEAKS:
        if re.search(rf"\b{re.escape(name)}\b", device_kind, re.IGNORECASE):
            return tera * 1e12
    return None


def mfu(
    images_per_second: float,
    flops_per_image: float,
    device_kind: str,
    devices: int = 1,
) -> float | None:
    """Share of the devices' peak that the model's own arithmetic reaches.

    Args:
        images_per_second: over all devices.
        flops_per_image: useful FLOP, from `train_flops`; recomputed ones do not count.
        device_kind: `jax.Device.device_kind`.
        devices: number of devices, at least 1.

    Returns:
        A fraction, or None where the peak is not known.
    """
    peak = peak_flops(device_kind)
    if peak is None:
        return None
    return images_per_second * flops_per_image / (peak * devices)
