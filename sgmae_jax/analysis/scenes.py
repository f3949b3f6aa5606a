"""Pictures of traffic scenes: lanes, agents, what was hidden, told and forecast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from sgmae_jax.data.motion import HISTORY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito: told apart with every kind of colour vision.
PAST, FUTURE_COLOUR, GUESS, LANE, FOCAL = (
    *("#0072B2", "#009E73", "#D55E00"),
    *("#BBBBBB", "#000000"),
)
_AROUND = 55.0  # metres shown to every side of the focal agent
_DPI = 90
_SIZE = 3.6  # inches of a panel
Batch = Mapping[str, np.ndarray]


def reconstruction_sheet(batch: Batch, picture: Any) -> UInt8[np.ndarray, "H W 3"]:
    """A row a scene: all of it, what the encoder saw, and what the decoder told.

    Args:
        batch: see `Scene`.
        picture: mask, history, future and lanes as Forecast-MAE gives them.
    """
    rows = len(batch["agent_kind"])
    figure, panels = _panels(rows, 3, ("scene", "shown", "shown and predicted"))
    for row in range(rows):
        one = {name: array[row] for name, array in batch.items()}
        seen = one["agent_present"]
        mask = [part[row] for part in picture.mask]
        whole, shown, told = panels[row]
        _lanes(whole, one, one["lane_present"].any(-1))
        _tracks(whole, one, seen[:, :HISTORY], seen[:, HISTORY:])
        for axes in (shown, told):
            _lanes(axes, one, mask[2])
            past = seen[:, :HISTORY] & mask[0][:, None]
            _tracks(axes, one, past, seen[:, HISTORY:] & mask[1][:, None])
        hidden = {
            "past": seen[:, :HISTORY] & ~mask[0][:, None],
            "future": seen[:, HISTORY:] & ~mask[1][:, None],
        }
        for kind, places in (("past", picture.history), ("future", picture.future)):
            for agent in np.flatnonzero(hidden[kind].any(1)):
                points = places[row, agent] + one["agent_center"][agent]
                _line(told, points[hidden[kind][agent]], GUESS, 1.4)
        for lane in np.flatnonzero(one["lane_present"].any(-1) & ~mask[2]):
            points = picture.lanes[row, lane] + one["lane_center"][lane]
            _line(told, points[one["lane_present"][lane]], GUESS, 0.6)
    _legend(
        figure,
        {"past": PAST, "future": FUTURE_COLOUR, "predicted": GUESS, "lane": LANE},
    )
    return _pixels(figure)


def forecast_sheet(batch: Batch, forecast: Any) -> UInt8[np.ndarray, "H W 3"]:
    """A panel a scene: pasts, true futures, and what is forecast, with its scores.

    Args:
        batch: see `Scene`.
        forecast: places, logits and others as the method `forecast` gives them.
    """
    count = len(batch["agent_kind"])
    figure, panels = _panels(1, count, [""] * count)
    for row, axes in enumerate(panels[0]):
        one = {name: array[row] for name, array in batch.items()}
        seen = one["agent_present"]
        _lanes(axes, one, one["lane_present"].any(-1))
        _tracks(axes, one, seen[:, :HISTORY], seen[:, HISTORY:])
        logits = forecast.logits[row]
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        places = forecast.places[row]
        if forecast.others is None:  # of all agents
            who, places = np.flatnonzero(seen.any(1)), places[int(logits.argmax())]
            for agent in who:
                _line(axes, places[agent] + one["agent_center"][agent], GUESS, 1.2)
        else:
            for mode, share in enumerate(shares):
                points = places[mode] + one["agent_center"][0]
                axes.plot(
                    *points.T, color=GUESS, linewidth=1.3, alpha=0.35 + 0.65 * share
                )
                words = {"fontsize": 6, "color": GUESS, "clip_on": True}
                axes.text(*points[-1], f"{share:.0%}", **words)
    _legend(
        figure,
        {"past": PAST, "future": FUTURE_COLOUR, "forecast": GUESS, "lane": LANE},
    )
    return _pixels(figure)


def _panels(rows: int, columns: int, titles) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_SIZE * columns, _SIZE * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for row in panels:
        for axes, title in zip(row, titles, strict=True):
            axes.set_aspect("equal")
            axes.set_xlim(-_AROUND, _AROUND)
            axes.set_ylim(-_AROUND, _AROUND)
            axes.tick_params(labelsize=6)
            axes.set_title(title, fontsize=9)
    return figure, panels


def _lanes(axes: Axes, one: Batch, which: np.ndarray) -> None:
    for lane in np.flatnonzero(which):
        points = one["lane_points"][lane][one["lane_present"][lane]]
        _line(axes, points, LANE, 1.0)


def _tracks(axes: Axes, one: Batch, past: np.ndarray, future: np.ndarray) -> None:
    for agent in np.flatnonzero(past.any(1) | future.any(1)):
        center = one["agent_center"][agent]
        _line(axes, (one["agent_past"][agent] + center)[past[agent]], PAST, 1.6)
        _line(
            axes,
            (one["agent_future"][agent] + center)[future[agent]],
            FUTURE_COLOUR,
            1.6,
        )
    exists = one["agent_present"].any(1)
    axes.plot(*one["agent_center"][exists].T, ".", color=PAST, markersize=3)
    axes.plot(*one["agent_center"][0], "o", color=FOCAL, markersize=4)


def _line(axes: Axes, points: np.ndarray, colour: str, width: float) -> None:
    axes.plot(*points.T, color=colour, linewidth=width)


def _legend(figure: Any, colours: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=colour, label=name) for name, colour in colours.items()
    ]
    dot = Line2D([], [], color=FOCAL, marker="o", linestyle="", label="focal agent")
    figure.legend(
        handles=[*lines, dot], loc="outside lower center", ncols=5, fontsize=7
    )


def _pixels(figure: Any) -> UInt8[np.ndarray, "H W 3"]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
