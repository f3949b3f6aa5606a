"""Which columns of HIGGS two runs of SMA hide, and what they make of them: a picture.

    python -m benchmarks.sma_masks --guided runs/sma/higgs_attention_0 \
        --random runs/sma/higgs_random_0 --data higgs_train_7k.tsv --out sma.png

The rows are held out ones (`eval.split` of the first run), 500 at most.
"""

from __future__ import annotations

import argparse
import pathlib

import jax
import numpy as np
from matplotlib.figure import Figure

from sgmae_jax import domains
from sgmae_jax.data import plain_batches
from sgmae_jax.methods.base import Run
from sgmae_jax.methods.frozen import read_run

# Features as the UCI page of HIGGS names them.
NAMES = (
    *("lepton pT", "lepton eta", "lepton phi", "missing E", "missing E phi"),
    *(f"jet {i} {what}" for i in range(1, 5) for what in ("pT", "eta", "phi", "b-tag")),
    *("m jj", "m jjj", "m lv", "m jlv", "m bb", "m wbb", "m wwbb"),
)


def looked_at(
    folder: pathlib.Path, data: str, count: int = 500
) -> dict[str, np.ndarray]:
    """hidden [n, N], and of the cells truth and prediction [n, N]."""
    from sgmae_jax.checkpointing import folder_of, read_meta

    config, method, params = read_run(folder)
    config.data.path = data
    run = Run(**read_meta(folder_of(folder))[1]["run"])
    domain = domains.of_config(config)
    rows = domain.make_rows(config, run, None)
    source = domain.open_source(config, config.eval.split, in_memory=False)
    batch, real = next(plain_batches(source, rows, min(count, len(source))))
    look = jax.jit(method.picture, static_argnums=4)
    # The last step: masks are guided by then.
    shown = look(params, batch, jax.random.key(1), run.total_steps, ())
    return {
        "hidden": np.asarray(shown.hidden)[:real],
        "truth": batch["values"][:real, :, 0],
        "made": np.asarray(shown.prediction)[:real, :, 0],
    }


def main() -> None:
    """Draws the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--guided", type=pathlib.Path, required=True)
    parser.add_argument("--random", type=pathlib.Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    found = {
        "random masks": looked_at(options.random, options.data),
        "SMA": looked_at(options.guided, options.data),
    }
    figure = Figure(figsize=(11, 9), layout="constrained")
    top, error, *heat = figure.subplots(4, 1, height_ratios=(2, 2, 2.2, 2.2))
    places, colours = np.arange(28), ("#9aa5b1", "#3b6ea5")
    for shift, colour, (name, one) in zip(
        (-0.2, 0.2), colours, found.items(), strict=True
    ):
        top.bar(places + shift, one["hidden"].mean(0), 0.4, label=name, color=colour)
        square = np.square(one["made"] - one["truth"]) * one["hidden"]
        mean = square.sum(0) / np.maximum(one["hidden"].sum(0), 1)
        error.bar(places + shift, mean, 0.4, label=name, color=colour)
    top.set(ylabel="share of rows\nin which it is hidden")
    top.legend(frameon=False)
    error.set(ylabel="squared error\nwhere hidden", ylim=(0, 3))
    error.axhline(1, color="#222222", linewidth=0.8, linestyle=":")
    for axis, (name, one) in zip(heat, found.items(), strict=True):
        cells = np.where(one["hidden"][:24] > 0, one["made"][:24], np.nan)
        axis.set_facecolor("#e4e4e4")
        drawn = axis.imshow(cells, cmap="RdBu_r", vmin=-2, vmax=2, aspect="auto")
        axis.set(ylabel=f"{name}:\nhidden cells\nas predicted", yticks=[])
    for axis in (top, error, *heat):
        axis.set(xlim=(-0.5, 27.5), xticks=places, xticklabels=[])
    heat[-1].set_xticklabels(NAMES, rotation=60, ha="right", fontsize=8)
    figure.colorbar(drawn, ax=heat, label="standard deviations")
    figure.savefig(options.out, dpi=90)


if __name__ == "__main__":
    main()
