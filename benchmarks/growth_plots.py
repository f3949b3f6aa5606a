"""The plot of "Growth" in docs/performance.md."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

LABELS = {
    "tokens": "tokens of an image",
    "batch": "images a step",
    "depth": "layers of the encoder",
    "devices": "devices on one host",
}


def draw(found: Mapping[str, Any], path: pathlib.Path) -> None:
    """Time of a step over each size, beside what FLOPs alone would give.

    Args:
        found: axis -> sizes, seconds, gflop and exponents, as in growth.json.
        path: of the PNG file.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    panels = figure.subplots(1, len(found))
    for axes, (axis, points) in zip(panels, found.items(), strict=True):
        sizes, seconds = points["sizes"], points["seconds"]
        # Through the last point: there the time has least to do with fixed costs.
        scale = 1e3 * seconds[-1] / points["gflop"][-1]
        if axis == "devices":
            axes.plot(
                sizes,
                [1e3 * seconds[0]] * len(sizes),
                "--",
                color="0.55",
                label="as undivided",
            )
        else:
            axes.plot(
                sizes,
                [scale * count for count in points["gflop"]],
                "--",
                color="0.55",
                label=f"by FLOPs: exponent {points['flop_exponent']['all']:.2f}",
            )
        axes.plot(
            sizes,
            [1e3 * value for value in seconds],
            "o-",
            color="#0072B2",
            markersize=4,
            label=f"measured: exponent {points['exponent']['all']:.2f}",
        )
        axes.set(xscale="log", yscale="log", xlabel=LABELS[axis])
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        low, high = axes.get_ylim()
        axes.set_ylim(low / 1.3, high * 2)  # room for the legend
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, framealpha=0.85, loc="upper left")
    panels[0].set_ylabel("ms a step")
    figure.savefig(path, dpi=110)
