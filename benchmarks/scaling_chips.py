"""Figures of accelerators, given by their makers; none of them is measured by us."""

from __future__ import annotations

from typing import NamedTuple

from sgmae_jax.analysis.flops import peak_flops

# Share of the peak that training is assumed to reach.
UTILISATION = 0.4
# Share of the memory that a program can have.
USABLE = 0.9
# Bytes of a JPEG of ImageNet, its usual mean.
JPEG = 110e3
# Bytes a second that one host writes: a network disk, an object store, local NVMe.
DISKS = (0.2e9, 1e9, 5e9)


class Chip(NamedTuple):
    """One chip and what is around it.

    Attributes:
        name: what it is called.
        kind: as `peak_flops` knows it.
        memory: bytes.
        link: bytes a second that a chip sends to its neighbours, one direction.
        host: chips a host.
        network: bytes a second a chip sends to other hosts, one direction; None where
            the links above reach them.
        source: who says so.
    """

    name: str
    kind: str
    memory: float
    link: float
    host: int
    network: float | None
    source: str

    @property
    def peak(self) -> float:
        """Dense bfloat16 FLOP/s."""
        found = peak_flops(self.kind)
        assert found is not None
        return found


_CLOUD = "cloud.google.com/tpu/docs"
CHIPS = (
    Chip("TPU v5e", "TPU v5e", 16e9, 200e9, 8, None, f"{_CLOUD}/v5e"),
    Chip(
        "TPU v4",
        "TPU v4",
        32e9,
        300e9,
        4,
        None,
        f"{_CLOUD}/v4; Jouppi et al. 2023: six links of 50 GB/s",
    ),
    Chip("H100", "H100", 80e9, 450e9, 8, 50e9, "NVIDIA H100 and DGX H100 data sheets"),
    Chip("TPU v5p", "TPU v5p", 95e9, 600e9, 4, None, f"{_CLOUD}/v5p"),
    Chip("H200", "H200", 141e9, 450e9, 8, 50e9, "NVIDIA H200 and DGX H200 data sheets"),
)
