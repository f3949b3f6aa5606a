"""Our model with the authors' parameters in it, every size read from the fixture."""

from __future__ import annotations

import numpy as np

from sgmae_jax.models import Autoencoder, Decoder, Encoder, sincos_table
from tests.golden.conversion import depth, from_theirs


def positions(theirs, name, gradients, grid) -> str:
    """ "learned" where a table is trained or is not the sine-cosine one."""
    table = theirs.get(name)
    if table is None:
        return "sincos"
    expected = sincos_table(grid, table.shape[-1])
    fixed = np.allclose(table[0], expected, rtol=0, atol=1e-6)
    return "sincos" if fixed and name not in gradients else "learned"


def out_values(theirs) -> int:
    """What the authors' decoder predicts of a token: pixels, or features."""
    name = "decoder_pred.bias"
    return theirs[name if name in theirs else "decoder_predp.bias"].size


def load(theirs, gradients, images, heads, decoder_heads=None):
    """Encoder or whole autoencoder for a fixture's parameters.

    Args:
        theirs: parameters by the authors' names.
        gradients: names of those that are trained.
        images: [B, C, H, W], which give channels and grid.
        heads: of the encoder.
        decoder_heads: None = there is no decoder; ours is then a stand-in.

    Returns:
        (autoencoder, parameters)
    """
    kernel = theirs["patch_embed.proj.weight"]
    width, channels, *patch_size = kernel.shape
    grid = tuple(
        side // p for side, p in zip(images.shape[2:], patch_size, strict=True)
    )
    values = channels * patch_size[0] * patch_size[1]
    kinds = {
        name: positions(theirs, name, gradients, grid)
        for name in ("pos_embed", "decoder_pos_embed")
    }
    tree = from_theirs(
        {name: a for name, a in theirs.items() if kinds.get(name) != "sincos"}
    )
    encoder = Encoder(
        grid=grid,
        patch_values=values,
        width=width,
        depth=depth(theirs, "blocks"),
        heads=heads,
        mlp_ratio=theirs["blocks.0.mlp.fc1.bias"].size / width,
        positions=kinds["pos_embed"],
    )
    sizes = {"width": 8, "depth": 1, "heads": 1, "out_values": values}
    if decoder_heads is not None:
        decoder_width = theirs["mask_token"].size
        sizes = {
            "width": decoder_width,
            "depth": depth(theirs, "decoder_blocks"),
            "heads": decoder_heads,
            "mlp_ratio": theirs["decoder_blocks.0.mlp.fc1.bias"].size / decoder_width,
            "positions": kinds["decoder_pos_embed"],
            "out_values": out_values(theirs),
        }
    model = Autoencoder(
        encoder=encoder,
        decoder=Decoder(grid=grid, **sizes),
        patch_size=tuple(patch_size),
        channels=channels,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )
    return model, tree
