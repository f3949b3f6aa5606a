import pytest

from sgmae_jax.analysis import flops


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


def test_share_of_the_peak():
    # The published ViT-B anchor: 20 % of 790 TFLOP/s is 2690 images a second.
    assert flops.model_flops_utilisation(2690, 58.7e9, "NVIDIA H200") == pytest.approx(
        0.2 * 790 / 989, 1e-3
    )
    assert flops.model_flops_utilisation(
        22900, 105e9, "TPU v4", devices=32
    ) == pytest.approx(0.273, abs=1e-3)
    assert flops.model_flops_utilisation(100, 1e9, "cpu") is None
