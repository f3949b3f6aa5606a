import jax
import jax.numpy as jnp
import pytest

from sgmae_jax.analysis import flops

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
    patches, values = (224 // patch) ** 2, 3 * patch**2
    kept = patches // 4

    def close(macs, giga):
        # To the digits printed.
        return macs / 1e9 == pytest.approx(giga, rel=5e-3)

    assert close(flops.transformer_macs(kept + 1, width=width, depth=depth), encoder)
    assert close(flops.transformer_macs(patches + 1, width=512, depth=8), decoder)
    macs = flops.mae_macs(
        patches=patches,
        kept=kept,
        patch_values=values,
        width=width,
        depth=depth,
        decoder_width=512,
        decoder_depth=8,
    )
    assert close(macs, forward)
    assert close(flops.train_flops(macs), train)
    full = flops.encoder_macs(
        patches, patches=patches, patch_values=values, width=width, depth=depth
    )
    assert close(flops.train_flops(full), unmasked)


def test_encoder_and_decoder_make_the_whole():
    common = dict(patches=64, patch_values=48, mlp_ratio=2.0)
    assert flops.mae_macs(
        kept=16, width=96, depth=3, decoder_width=64, decoder_depth=2, **common
    ) == flops.encoder_macs(16, width=96, depth=3, **common) + flops.decoder_macs(
        kept=16, encoder_width=96, width=64, depth=2, **common
    )


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
    macs = flops.transformer_macs(tokens, width=width, depth=1)
    assert 2 * macs == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize(
    ("kind", "tera"),
    [
        ("TPU v2", 22.5),
        ("TPU v3", 61.5),
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5", 459),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
        ("Tesla V100-SXM2-16GB", 125),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA RTX A6000", 154.8),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA L40S", 362),
        ("cpu", None),
        ("", None),
        ("NVIDIA H200 MIG 1g.18gb", None),
        ("NVIDIA A1000", None),
    ],
)
def test_peak_by_device_kind(kind, tera):
    assert flops.peak_flops(kind) == (None if tera is None else tera * 1e12)


def test_mfu():
    # The published ViT-B anchor: 20 % of 790 TFLOP/s is 2690 images a second.
    assert flops.mfu(2690, 58.7e9, "NVIDIA H200") == pytest.approx(
        0.2 * 790 / 989, 1e-3
    )
    assert flops.mfu(22900, 105e9, "TPU v4", devices=32) == pytest.approx(
        0.273, abs=1e-3
    )
    assert flops.mfu(100, 1e9, "cpu") is None
