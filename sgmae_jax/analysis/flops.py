"""How much arithmetic training costs, and how much of the devices' peak it gets."""

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


def model_flops_utilisation(
    images_per_second: float,
    flops_per_image: float,
    device_kind: str,
    devices: int = 1,
) -> float | None:
    """Share of the devices' peak that the model's own arithmetic reaches.

    Args:
        images_per_second: over all devices.
        flops_per_image: useful FLOP, as `sgmae_jax.models.macs` counts them.
        device_kind: `jax.Device.device_kind`.
        devices: number of devices, at least 1.

    Returns:
        A fraction, or None where the peak is not known.
    """
    peak = peak_flops(device_kind)
    if peak is None:
        return None
    return images_per_second * flops_per_image / (peak * devices)
