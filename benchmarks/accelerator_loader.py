"""Input beside an accelerator: from memory, from JPEGs, and onto the device."""

from __future__ import annotations

import os
import pathlib
import tempfile

import jax
import numpy as np

from benchmarks.accelerator_lines import show, spread
from benchmarks.accelerator_plan import Plan
from benchmarks.measure import interleave
from sgmae_jax.data import ImageRows, Loader, open_source


def loader(plan: Plan, lines: pathlib.Path | None) -> None:
    """Images a second from JPEGs and from memory, by threads, and onto the device."""
    del lines
    side, batch = plan.main.sizes.image, plan.loader
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        _write_images(pathlib.Path(folder), batch)
        memory = open_source(
            "synthetic",
            split=f"train[:{batch}]",
            image_size=(side, side),
            in_memory=True,
        )
        for what, source in (
            ("in memory", memory),
            ("JPEG, 500x375", open_source("folder", path=folder)),
        ):
            for threads in sorted({1, max(cores // 2, 1), cores}):
                made = Loader(
                    source,
                    ImageRows((side, side)),
                    batch_size=batch,
                    seed=0,
                    threads=threads,
                )
                batches = made.iterate()
                seconds = interleave(
                    {"": lambda batches=batches: next(batches)[1]["id"]},
                    rounds=plan.rounds,
                    # Batches made ahead must be used up before it counts.
                    warmup=3,
                )[""]
                rows = next(batches)[1]
                batches.close()
                rate = batch * len(seconds) / sum(seconds)
                line = {"loader": what, "threads": threads, "batch": batch}
                show(line | {"images_per_second": round(rate), **spread(seconds)})
    images = rows["image"]
    seconds = interleave({"": lambda: jax.device_put(images)}, rounds=plan.rounds)[""]
    rate = batch * len(seconds) / sum(seconds)
    line = {"loader": "to the device, uint8", "threads": 1, "batch": batch}
    show(line | {"images_per_second": round(rate), **spread(seconds)})


def _write_images(folder: pathlib.Path, count: int) -> None:
    """JPEGs of the usual size whose detail is neither flat nor noise."""
    from PIL import Image

    draw = np.random.default_rng(0)
    (folder / "train" / "one").mkdir(parents=True)
    for index in range(count):
        coarse = draw.integers(0, 256, (47, 63, 3), np.uint8)
        image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        image.save(folder / "train" / "one" / f"{index:05}.jpg", quality=90)
