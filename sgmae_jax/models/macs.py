"""Multiply-adds (MAC) of a masked autoencoder's forward pass, from its sizes alone.

Only matrix products are counted; norms, softmax and activations are left out, as is
usual.
"""

from __future__ import annotations


def transformer_macs(
    tokens: int, *, width: int, depth: int, mlp_ratio: float = 4.0
) -> int:
    """MAC of `depth` transformer blocks on `tokens` tokens (class token included)."""
    dense = round((4 + 2 * mlp_ratio) * width**2)
    return depth * (tokens * dense + 2 * tokens**2 * width)


def encoder_macs(
    *,
    tokens: int,
    kept: int,
    patch_values: int,
    width: int,
    depth: int,
    mlp_ratio: float = 4.0,
) -> int:
    """MAC of the encoder's forward pass for one image.

    Args:
        tokens: N; all of them are embedded, masked ones too.
        kept: K; the blocks see K + 1 with the class token.
        patch_values: numbers in a patch.
        width: D.
        depth: blocks.
        mlp_ratio: hidden width of the MLP over D.

    Returns:
        Multiply-adds.
    """
    blocks = transformer_macs(kept + 1, width=width, depth=depth, mlp_ratio=mlp_ratio)
    return tokens * patch_values * width + blocks


def decoder_macs(
    *,
    tokens: int,
    kept: int,
    patch_values: int,
    encoder_width: int,
    width: int,
    depth: int,
    mlp_ratio: float = 4.0,
) -> int:
    """MAC of the decoder's forward pass for one image: embed, blocks, prediction.

    Args:
        tokens: N; the blocks see N + 1 tokens.
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
    blocks = transformer_macs(tokens + 1, width=width, depth=depth, mlp_ratio=mlp_ratio)
    return embed + blocks + (tokens + 1) * width * patch_values


def train_flops(macs: int) -> int:
    """FLOP of a training step from the MAC of its forward pass.

    Two a MAC, and a backward pass costs two forward passes. What rematerialisation
    computes again is not counted.
    """
    return 6 * macs
