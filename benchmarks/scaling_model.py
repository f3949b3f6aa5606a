"""What a step needs and sends on many devices, as lines and formulas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.scaling_chips import USABLE
from benchmarks.scaling_point import SHAPES

Found = Mapping[str, Any]
NAMES = {size: f"ViT-{size[-1].upper()}/{SHAPES[size].patch}" for size in SHAPES}
NAMES["vit_g"] = "ViT-g/14"
MODES = {"data": "data", "fsdp": "fsdp"}
FSDP = 8


class Need:
    """Memory of a device as a straight line over its batch.

    What an image needs is the difference of two batches with a whole state. It is the
    same where the state is divided: images are divided alike.

    Args:
        found: everything that was measured.
        size: a name in `SHAPES`.
        mode: see `benchmarks.scaling_point.MODES`.
        remat: see `model.remat`.
    """

    def __init__(self, found: Found, size: str, mode: str, remat: str):
        at = {n: _whole(found[f"{size} 8 data dots {n}"]) for n in (64, 256)}
        of_dots = (at[256] - at[64]) / (256 - 64)
        # What is there without a batch does not depend on what the backward pass keeps.
        divided = _whole(found[f"{size} 8 {mode} dots 64"])
        self.fixed = divided - 64 * of_dots
        self.image = of_dots
        if remat == "full":
            at = {n: _whole(found[f"{size} 8 data full {n}"]) for n in (256, 1024)}
            self.image = (at[1024] - at[256]) / (1024 - 256)

    def of(self, batch: float) -> float:
        """Bytes at so many images a device."""
        return self.fixed + batch * self.image

    def largest(self, memory: float) -> int:
        """Most images a device, 0 where the state alone does not fit."""
        return max(int((USABLE * memory - self.fixed) / self.image), 0)


def _whole(point: Mapping[str, float]) -> float:
    """What is there beside each other; results lie where arguments were."""
    return point["argument"] + point["temp"]


def wire_formula(found: Mapping[str, Any], mode: str, devices: int) -> float:
    """Bytes a device should send in a step, all in float32.

    Args:
        found: a point.
        mode: "data": gradients are summed over all devices. "fsdp": every weight
            is gathered forward and backward over `fsdp`, and gradients are summed.
        devices: how many there are.
    """
    size = 4 * found["parameters"]
    summed = 2 * (devices - 1) / devices * size
    gathers = 0.0 if mode == "data" else 2 * (FSDP - 1) / FSDP * size
    return summed + gathers


def scattered_formula(found: Mapping[str, Any], devices: int) -> float:
    """The same of "fsdp", where each device keeps its share of the sums alone."""
    size, others = 4 * found["parameters"], devices // FSDP
    share = (FSDP - 1) / FSDP
    return 3 * share * size + 2 * (others - 1) / others * size / FSDP
