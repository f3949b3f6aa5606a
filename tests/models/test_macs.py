import jax
import jax.numpy as jnp
import pytest

from sgmae_jax.models import macs
from sgmae_jax.models.macs import train_flops

# 224 px, three quarters hidden, decoder 512 x 8: patch, width, depth, then as published
# in GMAC (encoder blocks, decoder blocks, forward) and train GFLOP masked and not.
SIZES = {
    "ViT-S/16": (16, 384, 12, 1.09, 5.28, 6.51, 39.0, 27.6),
    "ViT-B/16": (16, 768, 12, 4.29, 5.28, 9.78, 58.7, 105),
    "ViT-L/16": (16, 1024, 24, 15.2, 5.28, 20.8, 124.5, 369),
    "ViT-H/14": (14, 1280, 32, 41.2, 7.01, 48.6, 291, 1004),
}


@pytest.mark.parametrize("name", SIZES)
def test_published_table(name):
    patch, width, depth, encoder, decoder, forward, train, unmasked = SIZES[name]
    tokens, values = (224 // patch) ** 2, 3 * patch**2
    kept = tokens // 4

    def close(count, giga):
        # To the digits printed.
        return count / 1e9 == pytest.approx(giga, rel=5e-3)

    assert close(macs.transformer_macs(kept + 1, width=width, depth=depth), encoder)
    assert close(macs.transformer_macs(tokens + 1, width=512, depth=8), decoder)
    common = dict(tokens=tokens, kept=kept, patch_values=values)
    forward_macs = macs.encoder_macs(
        width=width, depth=depth, **common
    ) + macs.decoder_macs(encoder_width=width, width=512, depth=8, **common)
    assert close(forward_macs, forward)
    assert close(train_flops(forward_macs), train)
    full = macs.encoder_macs(
        kept=tokens, tokens=tokens, patch_values=values, width=width, depth=depth
    )
    assert close(train_flops(full), unmasked)


def test_one_block_against_the_compiler():
    tokens, width = 50, 64

    def block(x, qkv, project, up, down):
        q, k, v = jnp.split(x @ qkv, 3, axis=-1)
        x = x + (q @ k.T) @ v @ project
        return x + (x @ up) @ down

    shapes = [
        (width, 3 * width),
        (width, width),
        (width, 4 * width),
        (4 * width, width),
    ]
    arrays = [jax.ShapeDtypeStruct(s, jnp.float32) for s in [(tokens, width), *shapes]]
    counted = jax.jit(block).lower(*arrays).compile().cost_analysis()["flops"]
    count = macs.transformer_macs(tokens, width=width, depth=1)
    assert 2 * count == pytest.approx(counted, rel=0.02)
