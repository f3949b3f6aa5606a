"""Where masks fall: how often each patch is hidden, and how alike masks are.

    python -m benchmarks.mask_maps --data cifar10.zip --out maps.png \
        "MLO-MAE=runs/labels/mlo_mae_0" "random=runs/labels/random_hypergradient_0"

A row a run; a column a kept checkpoint, the first one before training. A square's grey
is the share of the images in which that patch is hidden, black never and white always.
The table: "images", the share of hidden patches that two images have in common (a mask
ratio of 0.75 gives 0.75 by chance, 1 if all images are masked alike); "start", the
share that an image has in common with its own mask before training.
"""

from __future__ import annotations

import argparse
import pathlib

import jax
import numpy as np

from sgmae_jax import methods
from sgmae_jax.analysis.masks import own_masks
from sgmae_jax.analysis.pictures import enlarged, save_png, sheet
from sgmae_jax.checkpointing import read_meta, restore_params
from sgmae_jax.checkpointing.reading import saved_steps
from sgmae_jax.config import config_from, grid_of, pair
from sgmae_jax.data import open_source
from sgmae_jax.methods.base import Run


def in_common(first: np.ndarray, second: np.ndarray) -> float:
    """Share of the first masks' hidden patches that the second ones hide too."""
    return float((first * second).sum() / first.sum())


def masks_of(run: pathlib.Path, images: np.ndarray) -> dict[int, np.ndarray]:
    """Masks [P, N] of the same images, at step 0 and at every kept checkpoint."""
    folder = run / "checkpoints"
    _, meta = read_meta(folder)
    config = config_from(meta["config"])
    method = methods.load(config.method.name).build(config, Run(**meta["run"]))
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    hide = own_masks(method, images, seed=config.seed, marks=meta.get("marks", {}))
    fresh = jax.jit(method.init)(jax.random.fold_in(jax.random.key(config.seed), 0))
    return {0: hide(fresh, 0)} | {
        step: hide(restore_params(folder, shapes, step=step), step)
        for step in sorted(saved_steps(folder))
    }


def main() -> None:
    """Draws the picture and prints the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", help="NAME=RUN")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--columns", type=int, default=2)
    options = parser.parse_args()
    rows, words = [], []
    for text in options.runs:
        name, _, run = text.partition("=")
        _, meta = read_meta(pathlib.Path(run) / "checkpoints")
        config = config_from(meta["config"])
        source = open_source("folder", path=options.data, split="train[95%:]")
        images = np.stack([source[i]["image"] for i in range(options.images)])
        assert images.shape[1:3] == pair(config.data.image_size)
        found = masks_of(pathlib.Path(run), images)
        steps = sorted(found)
        places = np.linspace(0, len(steps) - 1, options.columns).round().astype(int)
        shown = [steps[place] for place in places]
        row = []
        for step in shown:
            often = found[step].mean(0).reshape(grid_of(config))
            row.append(np.repeat((255 * often)[..., None], 3, -1).astype(np.uint8))
            others = np.roll(found[step], 1, axis=0)
            words.append(
                f"| {name} | {step} | {in_common(found[step], others):.3f} | "
                f"{in_common(found[shown[0]], found[step]):.3f} | "
                f"{often.std():.3f} | {often.min():.2f} to {often.max():.2f} |"
            )
        rows.append((name, shown, np.stack(row)))
    columns = [
        enlarged(np.stack([row[2][place] for row in rows]))
        for place in range(options.columns)
    ]
    titles = [f"column {place + 1}" for place in range(options.columns)]
    names = "; ".join(
        f"row {i + 1}: {name}, steps {', '.join(map(str, shown))}"
        for i, (name, shown, _) in enumerate(rows)
    )
    caption = f"How often each patch is hidden: black never, white always. {names}."
    save_png(options.out, sheet(columns, titles, caption=caption))
    print("| run | step | images | start | deviation | range |\n" + "|---" * 6 + "|")
    print("\n".join(words))


if __name__ == "__main__":
    main()
