"""JPEG folder to ready batches, ours against Grain, TFDS, tf.data and PyTorch.

    python -m benchmarks.input --images DIR [--count 1024] [--rounds 7]

All in one run and in turn. A contender whose packages are missing is skipped. Prints
one line a contender and one JSON line a ratio of times, ours over the best other one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.input_loaders import (
    AUGMENT,
    BATCH,
    Grain,
    Ours,
    Tfds,
    Torch,
    grain_crop,
    plain_window,
)
from benchmarks.measure import report
from sgmae_jax.data.augment import crop_box
from sgmae_jax.data.images import decode_image

OURS = ("ours", "ours, arrays", "ours, cached")
GAIN = 1.3


def smooth_photographs(folder: pathlib.Path, count: int) -> None:
    """JPEGs of 500x375 pixels, quality 90, from noise smoothed at three scales."""
    rng = np.random.default_rng(0)
    for number in range(count):
        whole = np.zeros((375, 500, 3))
        for scale, strength in ((125, 60), (25, 30), (5, 12)):
            small = rng.normal(0, 1, (375 // scale, 500 // scale, 3))
            bytes_ = (128 + 40 * small).clip(0, 255).astype(np.uint8)
            field = Image.fromarray(bytes_).resize((500, 375), Image.Resampling.BICUBIC)
            whole += (np.asarray(field, float) - 128) / 40 * strength
        image = Image.fromarray((128 + whole).clip(0, 255).astype(np.uint8))
        image.save(folder / f"{number:04}.jpg", quality=90)


def link_images(images: pathlib.Path, root: pathlib.Path, count: int) -> None:
    """root/train/CLASS/….jpg, so many links to the JPEGs of a folder in turn."""
    files = [
        file
        for file in sorted(images.rglob("*"))
        if file.suffix.lower() in (".jpg", ".jpeg")
    ]
    if not files:
        raise SystemExit(f"--images {str(images)!r} holds no JPEGs")
    for number, file in enumerate(itertools.islice(itertools.cycle(files), count)):
        folder = root / "train" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:05}.jpg").symlink_to(file.resolve())


def timed(contender: Any, workers: int) -> tuple[float, float, int]:
    """Wall seconds and this process' seconds of CPU for an epoch, and its images."""
    batches, skip = contender.batches(workers)
    if skip:
        list(itertools.islice(batches, skip))
    wall, cpu = time.perf_counter(), time.process_time()
    count = sum(1 for _ in batches)
    return time.perf_counter() - wall, time.process_time() - cpu, count * BATCH


def difference(contender: Any, root: pathlib.Path) -> float:
    """Mean absolute difference from the reference on the same windows, in 1/255."""
    if isinstance(contender, Ours):
        return contender.mean_difference()
    found = []
    for number, file in enumerate(sorted(root.glob("train/*/*"))[:BATCH]):
        data = file.read_bytes()
        height, width = decode_image(data, name=file.name).shape[:2]
        rng = np.random.default_rng(number)
        if isinstance(contender, Grain):
            shown = grain_crop(data, np.random.default_rng(number))
            window = crop_box(rng, height, width, AUGMENT)
            plain = plain_window(data, window)
            shown = shown[:, ::-1] if rng.random() < 0.5 else shown
        else:
            window = crop_box(rng, height, width, AUGMENT)
            plain = plain_window(data, window)
            shown = contender.window(data, window)
        found.append(np.abs(shown.astype(float) - plain).mean())
    return float(np.mean(found))


def contenders(root: pathlib.Path, kept: str) -> dict[str, Any]:
    """Those whose packages are there, PyTorch first: it forks."""
    makers: dict[str, Callable[[], Any]] = {
        "PyTorch DataLoader": lambda: Torch(root),
        "Grain, Pillow": lambda: Grain(root),
        "TFDS ImageFolder": lambda: Tfds(root, cropped=False),
        "tf.data, decode_and_crop": lambda: Tfds(root, cropped=True),
        "ours": lambda: Ours(root, pictures=True),
        "ours, arrays": lambda: Ours(root),
        "ours, cached": lambda: Ours(root, cache=kept),
    }
    made = {}
    for name, make in makers.items():
        try:
            began = time.perf_counter()
            made[name] = make()
            if name == "ours, cached":
                seconds = time.perf_counter() - began
                print(f"filling the cache took {seconds:.1f} s", flush=True)
        except ImportError as error:
            print(f"skipped: {name}: {error}", flush=True)
    return made


def race(made: dict[str, Any], workers: int, rounds: int) -> None:
    """Times all in turn and prints what came out."""
    walls: dict[str, list[float]] = {name: [] for name in made}
    cpus: dict[str, list[float]] = {name: [] for name in made}
    # Not `interleave`: starting and stopping threads and processes is not timed.
    for turn in range(-1, rounds):
        names = list(made)
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            wall, cpu, images = timed(made[name], workers)
            if turn >= 0:
                walls[name].append(wall / images)
                cpus[name].append(cpu / images)
    for name in made:
        line = {
            "contender": name,
            "workers": workers,
            "images_per_s": round(1 / statistics.median(walls[name])),
        }
        if workers == 1:
            line["images_per_cpu_s"] = round(1 / statistics.median(cpus[name]))
        print(json.dumps(line), flush=True)
    clocks = {"wall": walls, "cpu": cpus} if workers == 1 else {"wall": walls}
    for clock, seconds in clocks.items():
        others = [name for name in made if name not in OURS]
        if not others:
            return
        best = min(others, key=lambda name: statistics.median(seconds[name]))
        for name in OURS:
            report(
                f"{name} / {best}",
                seconds[name],
                seconds[best],
                target=round(1 / GAIN, 3),
                row=16,
                workers=workers,
                clock=clock,
                gain=round(
                    statistics.median(
                        b / a for a, b in zip(seconds[name], seconds[best], strict=True)
                    ),
                    2,
                ),
            )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=pathlib.Path, help="folder; none: made up")
    parser.add_argument("--count", type=int, default=1024, help="images in an epoch")
    parser.add_argument("--rounds", type=int, default=7, help="at least 5")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        if options.images is None:
            (place / "made").mkdir()
            smooth_photographs(place / "made", min(options.count, 64))
        root = place / "linked"
        link_images(options.images or place / "made", root, options.count)
        made = contenders(root, str(place / "kept"))
        for name, contender in made.items():
            found = difference(contender, root)
            line = {"contender": name, "mean_difference_of_255": round(found, 4)}
            print(json.dumps(line), flush=True)
        for workers in (1, 2):
            race(made, workers, options.rounds)


if __name__ == "__main__":
    main()
