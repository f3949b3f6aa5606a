"""Huge pages for what malloc hands out, where the kernel gives them on request.

XLA takes the buffers of every step on a CPU from malloc and frees them behind it; glibc
returns blocks of their size to the kernel, which clears each page anew when it is first
written: 18,000 pages in a step of a small model, or 450 huge ones. What fits into a
heap, up to 1 GiB, is therefore kept for the next step.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import sys
from collections.abc import Mapping

_KERNEL = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
_TUNABLES = "GLIBC_TUNABLES"
_WISHES = {
    "glibc.malloc.hugetlb": 1,
    "glibc.malloc.mmap_threshold": 2**30,
    "glibc.malloc.trim_threshold": 2**30,
    "glibc.malloc.top_pad": 2**26,
}


def environment(
    current: Mapping[str, str], kernel: pathlib.Path = _KERNEL
) -> dict[str, str] | None:
    """The environment in which glibc (2.35 or newer) asks for huge pages.

    Args:
        current: the environment as it is.
        kernel: the file that says when the kernel gives huge pages.

    Returns:
        `current` with more tunables; None where there is nothing to gain: the kernel
        gives them always or never, or somebody has set one of the tunables.
    """
    try:
        on_request = "[madvise]" in kernel.read_text()
    except OSError:
        return None
    tunables = current.get(_TUNABLES, "")
    if not on_request or any(name in tunables for name in _WISHES):
        return None
    wishes = [f"{name}={value}" for name, value in _WISHES.items()]
    return {**current, _TUNABLES: ":".join([tunables, *wishes]).removeprefix(":")}


def ask(module: str) -> None:
    """Starts this program anew in that environment, which glibc reads at a start only.

    The process keeps its number. Nothing happens where nothing is to be gained, or
    where the module is run by another program, which must not be started twice.

    Args:
        module: what `python -m` was told to run.
    """
    by_name = ("-m", module) in itertools.pairwise(sys.orig_argv)
    wanted = environment(os.environ)
    if by_name and wanted is not None:
        os.execve(sys.executable, sys.orig_argv, wanted)
