"""Plots of a series of metrics, one PNG a metric; needs Matplotlib when called."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito: told apart with every kind of colour vision.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
_DPI = 105
_NAMED = 7
_EIGENVALUES = 32
_LAYERED = {
    "feature_variance": ("Feature variance", "variance of unit features"),
    "similarity_variance": ("Similarity variance", "variance of cosines"),
    "relation_divergence": (
        "Distance of token relations from the last checkpoint",
        "KL divergence in nats",
    ),
    "attention_distance": ("Attention distance", "tokens"),
    "attention_nmi": ("Mutual information of query and key", "normalised, 0 to 1"),
}


class Plot(NamedTuple):
    """A plot that was written: its file, its title, and what it shows, in words."""

    path: Path
    title: str
    words: str


def write_plots(record: Mapping[str, Any], folder: str | os.PathLike) -> list[Plot]:
    """Draws every metric of an analysis.

    Args:
        record: as in analysis.json.
        folder: where the files go; it exists.

    Returns:
        The plots, in the order in which to look at them.
    """
    steps = {int(step): found for step, found in record["steps"].items()}
    plots = []

    def save(name: str, title: str, words: str, figure: Figure | None) -> None:
        path = Path(folder, f"{name}.png")
        if figure is None:
            path.unlink(missing_ok=True)  # that of an earlier analysis
            return
        figure.suptitle(title, fontsize=12)
        figure.savefig(path, dpi=_DPI)
        plots.append(Plot(path, title, words))

    save(
        "agreement",
        "Agreement with the true object",
        "Adjusted Rand index of the bi-partition, how often its object side is the "
        "object, and intersection over union and recall of hidden tokens with the "
        "object, over training.",
        _agreement(steps),
    )
    save(
        "edge_weights",
        "Edge weights inside and across the bi-partition",
        "Mean cosine and mean attention of two tokens in the same cluster and in "
        "different ones, and their difference by encoder layer, over training.",
        _edge_weights(steps, record),
    )
    save(
        "exploitation",
        "Exploitation rates of mask tokens' outputs, cumulated",
        "Share of what mask tokens' outputs draw from visible tokens and from mask "
        "tokens, by decoder layer, as it is and per token.",
        _exploitation(steps),
    )
    for name, (title, unit) in _LAYERED.items():
        figure = _by_layer(steps, name, unit, ("encoder", "decoder"))
        save(name, title, f"{title} of every layer over training.", figure)
    save(
        "fourier",
        "Relative log amplitude of the last layers' token maps",
        "Log amplitude by spatial frequency, relative to frequency 0, one line a "
        "checkpoint.",
        _fourier(steps, record["frequencies"]),
    )
    save(
        "reconstruction",
        "Reconstruction loss by mask",
        "Mean squared error on hidden tokens under random, guided and hinted masks.",
        _over_steps(
            "mean squared error",
            {
                words: (colour, _series(steps, "masks", name, "loss"))
                for name, (words, colour) in _MASKS.items()
            },
        ),
    )
    save(
        "mask_token_variance",
        "Variance of mask tokens",
        "Variance of the decoder's mask tokens, every layer, over training.",
        _by_layer(
            steps, "mask_token_variance", "variance of unit features", ("decoder",)
        ),
    )
    save(
        "spectrum",
        "Spectrum of the graph of tokens",
        f"The largest {_EIGENVALUES} eigenvalues of the normalised graph, one line a "
        "checkpoint.",
        _spectrum(steps),
    )
    save(
        "cut",
        "The normalised cut",
        "Second eigenvalue, gap to the third, and share of images without a usable "
        "cut, over training.",
        _over_steps(
            "mean over images",
            {
                "second eigenvalue": (BLUE, _series(steps, "partition", "eigenvalue")),
                "gap to the third": (ORANGE, _series(steps, "partition", "gap")),
                "images without a cut": (
                    GREEN,
                    _series(steps, "partition", "degenerate"),
                ),
            },
        ),
    )
    return plots


_MASKS = {
    "random": ("random", BLUE),
    "guided": ("guided", ORANGE),
    "hinted": ("guided, with hints", GREEN),
}


def _agreement(steps: Mapping[int, Any]) -> Figure | None:
    if "ari" not in next(iter(steps.values()))["partition"]:
        return None
    figure, (ari, iou, recall) = _panels(3)
    _draw(
        ari,
        {
            "adjusted Rand index": (BLUE, _series(steps, "partition", "ari")),
            "IoU of the object side": (
                ORANGE,
                _series(steps, "partition", "object_iou"),
            ),
            "images with the right side": (
                GREEN,
                _series(steps, "partition", "right_side"),
            ),
        },
    )
    ari.set_ylabel("bi-partition against the object")
    for axes, name, words in (
        (iou, "object_iou", "IoU of hidden tokens with the object"),
        (recall, "object_recall", "share of the object that is hidden"),
    ):
        lines = {
            label: (colour, _series(steps, "masks", mask, name))
            for mask, (label, colour) in _MASKS.items()
        }
        _draw(axes, lines)
        axes.set_ylabel(words)
    return figure


def _edge_weights(steps: Mapping[int, Any], record: Mapping[str, Any]) -> Figure:
    figure, rows = _panels(2, rows=2)
    part = record["part"]
    for (above, below), relation in zip(rows.T, ("cosine", "attention"), strict=True):
        intra = _series(steps, part, f"{relation}_intra")
        inter = _series(steps, part, f"{relation}_inter")
        index = record["layer"] - (record["layer"] > 0)
        _draw(
            above,
            {
                "same cluster": (BLUE, _layer_of(intra, index)),
                "different clusters": (ORANGE, _layer_of(inter, index)),
            },
        )
        layer = index % len(intra[1][0]) + 1
        above.set_title(f"{relation}, {part} layer {layer}", fontsize=10)
        above.set_ylabel(f"mean {relation}")
        _layers(
            below,
            _series(steps, "encoder", f"{relation}_intra"),
            _series(steps, "encoder", f"{relation}_inter"),
        )
        below.set_title(f"{relation}, encoder layers", fontsize=10)
        below.set_ylabel("same minus different")
    return figure


def _by_layer(
    steps: Mapping[int, Any], name: str, unit: str, parts: Sequence[str]
) -> Figure:
    figure, axes = _panels(len(parts))
    for one, part in zip(np.atleast_1d(axes), parts, strict=True):
        _layers(one, _series(steps, part, name))
        one.set_title(part, fontsize=10)
        one.set_ylabel(unit)
    return figure


def _exploitation(steps: Mapping[int, Any]) -> Figure:
    figure, panels = _panels(2)
    for axes, name, unit in (
        (panels[0], "cumulated", "exploitation rate"),
        (panels[1], "per_token", "rate per token (uniform attention: 1)"),
    ):
        x, rates = _series(steps, "decoder", f"exploitation_{name}")
        depth = rates.shape[1]
        for source, (words, colours) in enumerate(
            (("visible", "Blues"), ("mask tokens", "Oranges"))
        ):
            for layer in range(depth):
                shade = _shades(colours, depth)[layer]
                named = depth == 1 or layer in (0, depth - 1)
                axes.plot(
                    x,
                    rates[:, layer, source, 1],
                    "-" if source == 0 else "--",
                    color=shade,
                    marker="o" if source == 0 else "s",
                    markersize=3,
                    label=f"from {words}, layer {layer + 1}" if named else None,
                )
        axes.set_ylabel(unit)
        _finish(axes)
    return figure


def _spectrum(steps: Mapping[int, Any]) -> Figure:
    figure, axes = _panels(1)
    _, values = _series(steps, "partition", "spectrum")
    count = min(_EIGENVALUES, values.shape[1])
    _checkpoints(axes, list(steps), np.arange(1, count + 1), values[:, :count])
    axes.set_xlabel("number of the eigenvalue")
    axes.set_ylabel("eigenvalue")
    return figure


def _fourier(steps: Mapping[int, Any], frequencies: Sequence[float]) -> Figure:
    figure, panels = _panels(2)
    for axes, part in zip(panels, ("encoder", "decoder"), strict=True):
        _, values = _series(steps, part, "relative_log_amplitude")
        _checkpoints(axes, list(steps), np.asarray(frequencies), values[:, -1])
        axes.set_title(f"{part}, last layer", fontsize=10)
        axes.set_xlabel("frequency (1 = a period in two tokens)")
        axes.set_ylabel("log amplitude, relative")
    return figure


Line = tuple[np.ndarray, np.ndarray]


def _series(steps: Mapping[int, Any], *names: str) -> Line:
    """Steps, and a metric at each; NaN where it was not finite."""
    rows = []
    for found in steps.values():
        for name in names:
            found = found[name]
        rows.append(np.asarray(found, float))
    return np.asarray(list(steps)), np.stack(rows)


def _layer_of(line: Line, index: int) -> Line:
    return line[0], line[1][:, index]


def _panels(columns: int, *, rows: int = 1) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    size = (1.2 + 3.8 * columns, 0.6 + 2.9 * rows)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns)


def _over_steps(unit: str, lines: Mapping[str, tuple[str, Line]]) -> Figure:
    figure, axes = _panels(1)
    _draw(axes, lines)
    axes.set_ylabel(unit)
    return figure


def _draw(axes: Axes, lines: Mapping[str, tuple[str, Line]]) -> None:
    """One line a name over the steps, told apart by colour, mark and stroke."""
    looks = zip(lines.items(), "os^", ("-", "--", ":"), strict=False)
    for (name, (colour, (x, y))), mark, stroke in looks:
        axes.plot(x, y, stroke, marker=mark, markersize=3.5, color=colour, label=name)
    _finish(axes)


def _layers(axes: Axes, line: Line, less: Line | None = None) -> None:
    """One line a layer over the steps, dark to light; minus another if given."""
    x, y = line
    y = y if less is None else y - less[1]
    depth = y.shape[1]
    named = _named(depth)
    for layer, colour in enumerate(_shades("cividis", depth)):
        label = f"layer {layer + 1}" if layer in named else None
        axes.plot(x, y[:, layer], marker="o", markersize=3, color=colour, label=label)
    _finish(axes)


def _checkpoints(
    axes: Axes, steps: Sequence[int], x: np.ndarray, y: np.ndarray
) -> None:
    """One line a checkpoint, dark to light."""
    named = _named(len(steps))
    for place, colour in enumerate(_shades("cividis", len(steps))):
        words = f"step {steps[place]}" if steps[place] else "untrained"
        axes.plot(
            x,
            y[place],
            "--" if place == 0 else "-",
            color=colour,
            label=words if place in named else None,
        )
    _finish(axes, "")


def _finish(axes: Axes, x_label: str = "training step") -> None:
    axes.set_xlabel(x_label)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, framealpha=0.85)


def _named(count: int) -> set[int]:
    """Which of many lines the legend names: evenly chosen, first and last included."""
    return set(np.linspace(0, count - 1, min(count, _NAMED)).round().astype(int))


def _shades(name: str, count: int) -> list[Any]:
    """Colours of a map, without its palest end."""
    from matplotlib import colormaps

    colours: Callable[[float], Any] = colormaps[name]
    low, high = (0.0, 0.88) if name == "cividis" else (0.45, 0.95)
    if count == 1:
        return [colours(low if name == "cividis" else 0.8)]
    return [colours(low + (high - low) * i / (count - 1)) for i in range(count)]
