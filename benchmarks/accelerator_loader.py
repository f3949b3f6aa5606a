"""Input beside an accelerator: from memory, from JPEGs, and onto the device."""

from __future__ import annotations

import os
import pathlib
import tempfile

import jax

from benchmarks.accelerator_lines import show, spread
from benchmarks.accelerator_plan import Plan
from benchmarks.input import smooth_photographs
from benchmarks.measure import interleave
from sgmae_jax.data import ImageRows, Loader, open_source


def loader(plan: Plan, lines: pathlib.Path | None) -> None:
    """Images a second from JPEGs and from memory, by threads, and onto the device."""
    del lines
    side, batch = plan.main.sizes.image, plan.loader
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        photographs = pathlib.Path(folder, "train", "one")
        photographs.mkdir(parents=True)
        smooth_photographs(photographs, batch)
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
