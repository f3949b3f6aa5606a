"""A plan for scale on paper: what a step costs on 8 to 512 devices that are not here.

    python -m benchmarks.scaling --out docs [--parts compile,kept,disk,decode,pages]

Compiles the step on simulated devices, one process a point, and keeps every number in
OUT/scaling.json: a second call goes on where the first was stopped. The last part
writes the tables of OUT/scaling.md between their marks, and the plots.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.scaling_point import SHAPES, kept_bytes

PARTS = ("compile", "kept", "disk", "decode", "pages")
_LIMIT = 540  # seconds a compilation may take


def points() -> Iterator[tuple[str, list[str]]]:
    """(name, command line) of everything that is compiled, the quickest first."""

    def point(size, devices, mode, batch, remat="dots", unrolled=False):
        name = f"{size} {devices} {mode} {remat} {batch}" + " unrolled" * unrolled
        words = ["--size", size, "--devices", str(devices), "--mode", mode]
        words += ["--batch", str(batch), "--remat", remat]
        return name, words + ["--unrolled"] * unrolled

    for size in SHAPES:
        for mode in ("data", "fsdp"):
            yield point(size, 8, mode, 64)
        yield point(size, 8, "data", 64, "full")
    for devices in (64, 512):
        for mode in ("data", "fsdp"):
            yield point("vit_b", devices, mode, 64)
    for size in SHAPES:
        # A second batch, for what an image needs. Small ones would be misleading:
        # there the arrays of the optimizer's step are the peak.
        yield point(size, 8, "data", 256)
        yield point(size, 8, "data", 256, "full")
        yield point(size, 8, "data", 1024, "full")
    yield point("vit_b", 1, "data", 64)
    yield point("vit_b", 8, "data", 16, unrolled=True)


class Store:
    """Numbers by name, on the disk after each one.

    Args:
        path: of a JSON file; made if it is not there.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.found: dict[str, Any] = (
            json.loads(path.read_text()) if path.is_file() else {}
        )

    def fill(self, name: str, make: Callable[[], Any]) -> None:
        """Keeps what `make` returns, unless the name is there already."""
        if name in self.found:
            return
        began = time.perf_counter()
        self.found[name] = make()
        text = json.dumps(self.found, indent=1, sort_keys=True)
        self._path.write_text(text + "\n")
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)


def compile_point(words: list[str]) -> dict[str, Any]:
    """One point in a process of its own; {"failed": why} where it does not work."""
    command = [sys.executable, "-m", "benchmarks.scaling_point", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT)
    except subprocess.TimeoutExpired:
        return {"failed": f"more than {_LIMIT} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no word"])[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1])


def disk() -> dict[str, Any]:
    """Saves and restores a ViT-B state with its moments, for real."""
    import jax

    from benchmarks.scaling_point import build, config_of
    from sgmae_jax.checkpointing import Checkpointer
    from sgmae_jax.training.state import init_state

    method = build(config_of("vit_b", batch=8))

    @jax.jit
    def make(key):
        # As after some training: zeros in the moments would be stored in no space.
        def noise(leaf):
            if leaf.dtype != "float32":
                return leaf
            return leaf + jax.random.normal(key, leaf.shape)

        return jax.tree.map(noise, init_state(method, key))

    state = make(jax.random.key(0))
    jax.block_until_ready(state)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    with tempfile.TemporaryDirectory(dir=pathlib.Path.cwd()) as folder:
        saver = Checkpointer(pathlib.Path(folder) / "checkpoints", keep=1)
        began = time.perf_counter()
        saver.save(1, state._asdict(), {})
        returned = time.perf_counter() - began
        saver.wait()
        saved = time.perf_counter() - began
        files = sum(p.stat().st_size for p in _files(folder))
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=leaf.sharding
            ),
            state,
        )
        began = time.perf_counter()
        jax.block_until_ready(saver.restore(target._asdict()))
        restored = time.perf_counter() - began
        saver.close()
    return {
        "state": size,
        "files": files,
        "returned_seconds": returned,
        "saved_seconds": saved,
        "restored_seconds": restored,
    }


def _files(folder: str) -> Iterator[pathlib.Path]:
    """Every file below a folder."""
    return (p for p in pathlib.Path(folder).rglob("*") if p.is_file())


def decode(images: int = 64, rounds: int = 5) -> dict[str, Any]:
    """Images a second of one core: JPEG of about 110 kB to a crop of 224 pixels.

    The photographs are made of noise with a spectrum like theirs, so that decoding
    has as many coefficients to read.
    """
    import io

    import numpy as np
    from PIL import Image

    from sgmae_jax.data import ImageRows
    from sgmae_jax.data.images import decode_image

    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(375)[:, None], np.fft.fftfreq(500)[None])
    frequency[0, 0] = 1
    files = []
    for _ in range(images):
        noise = np.fft.fft2(rng.normal(size=(3, 375, 500))) / frequency**1.1
        pixels = np.fft.ifft2(noise).real
        pixels = 128 + 55 * pixels / pixels.std(axis=(1, 2), keepdims=True)
        image = Image.fromarray(
            np.moveaxis(pixels.clip(0, 255), 0, -1).astype(np.uint8)
        )
        with io.BytesIO() as file:
            image.save(file, "JPEG", quality=90)
            files.append(file.getvalue())
    rows = ImageRows((224, 224))

    def one(data: bytes) -> None:
        rows.train({"image": decode_image(data, name="photograph"), "label": 0}, rng)

    rates = []
    for _ in range(rounds):
        # Seconds of a core: other work on the machine does not count.
        began = time.process_time()
        for data in files:
            one(data)
        rates.append(images / (time.process_time() - began))
    return {
        "bytes": float(np.mean([len(data) for data in files])),
        "rates": sorted(rates),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs"))
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument(
        "--seconds", type=float, default=3600, help="then stop compiling"
    )
    args = parser.parse_args()
    parts = args.parts.split(",")
    store = Store(args.out / "scaling.json")
    began = time.monotonic()
    if "compile" in parts:
        for name, words in points():
            if time.monotonic() - began > args.seconds:
                print("out of time; the same command goes on")
                break
            store.fill(name, functools.partial(compile_point, words))
    os.environ["JAX_PLATFORMS"] = "cpu"
    if "kept" in parts:
        for size in SHAPES:
            for remat in ("none", "dots", "full"):
                make = functools.partial(kept_bytes, size, remat)
                store.fill(f"{size} kept {remat}", make)
    if "disk" in parts:
        store.fill("disk", disk)
    if "decode" in parts:
        store.fill("decode", decode)
    if "pages" in parts:
        from benchmarks.scaling_pages import write

        write(store.found, args.out)


if __name__ == "__main__":
    main()
