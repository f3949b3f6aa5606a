"""Line charts as inline SVG: no script, no font file, colours from the page's CSS."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

Point = tuple[float, float]
Spread = tuple[float, float, float]  # x, low, high

# Drawn at about its own size on a phone, so that the text stays readable there.
_WIDTH, _HEIGHT = 360, 214
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 10, 38
# More points than this cannot be told apart at this width.
_POINTS = 300
_MARKED = 40
_COLOURS = 6


def short(value: float) -> str:
    """A number in few letters, for example 0.0523, 1.5e-4 or 12 300."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    if not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{float(f'{value:.3g}'):g}"


def percent(value: float) -> str:
    """A share in [0, 1] as a percentage with at most one decimal."""
    return f"{100 * value:.1f}".removesuffix(".0") + " %"


def line_chart(
    title: str,
    series: Mapping[str, Sequence[Point]],
    *,
    form: Callable[[float], str] = short,
    axis: str = "step",
    spreads: Mapping[str, Sequence[Spread]] = MappingProxyType({}),
) -> str:
    """A figure with one line a series, over the training step or anything else.

    Numbers that are not finite leave a gap and are counted below the title.

    Args:
        title: of the chart.
        series: name -> (step, value) in ascending step.
        form: how values are written.
        axis: what the numbers along the bottom are.
        spreads: name -> (step, low, high), drawn as upright strokes.

    Returns:
        HTML, or the empty string where nothing can be drawn.
    """
    sound = {name: [p for p in points if _finite(p)] for name, points in series.items()}
    everything = [point for points in sound.values() for point in points]
    if not everything:
        return ""
    lost = sum(map(len, series.values())) - len(everything)
    x_ticks, x_low, x_high = _ticks([x for x, _ in everything], 4)
    if all(float(x).is_integer() for x, _ in everything):
        x_ticks = [tick for tick in x_ticks if float(tick).is_integer()]
    ends = [end for rows in spreads.values() for _, *row in rows for end in row]
    heights = [y for _, y in everything] + [end for end in ends if math.isfinite(end)]
    y_ticks, y_low, y_high = _ticks(heights, 5)

    def place(x: float, y: float) -> str:
        across = (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)
        up = (y - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)
        return f"{_LEFT + across:.1f},{_HEIGHT - _BOTTOM - up:.1f}"

    parts = []
    for y in y_ticks:
        row = place(x_low, y).split(",")[1]
        parts.append(
            f'<path class="grid" d="M{_LEFT},{row}H{_WIDTH - _RIGHT}"/>'
            f'<text x="{_LEFT - 6}" y="{row}" dy=".35em" text-anchor="end">'
            f"{html.escape(form(y))}</text>"
        )
    for x in x_ticks:
        column = place(x, y_low).split(",")[0]
        parts.append(
            f'<text x="{column}" y="{_HEIGHT - _BOTTOM + 16}" '
            f'text-anchor="middle">{short(x)}</text>'
        )
    parts.append(
        f'<text class="axis" x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" '
        f'text-anchor="end">{html.escape(axis)}</text>'
    )
    for index, (name, points) in enumerate(series.items()):
        strokes = "".join(
            f"M{place(x, low)}L{place(x, high)}"
            for x, low, high in spreads.get(name, ())
            if math.isfinite(low) and math.isfinite(high)
        )
        if strokes:
            kind = f"s{index % _COLOURS}"
            parts.append(f'<g class="{kind}"><path class="spread" d="{strokes}"/></g>')
        parts.append(_line(points, place, index, form, axis))
    described = "; ".join(
        f"{name}: {form(points[0][1])} at {axis} {short(points[0][0])} to "
        f"{form(points[-1][1])} at {axis} {short(points[-1][0])}"
        for name, points in sound.items()
        if points
    )
    legend = " ".join(
        f'<span class="key s{index % _COLOURS}">{html.escape(name)} '
        f"<b>{html.escape(form(points[-1][1]))}</b></span>"
        for index, (name, points) in enumerate(sound.items())
        if points
    )
    note = f'<span class="note">{lost} not finite</span>' if lost else ""
    return (
        f'<figure class="card"><figcaption><h3>{html.escape(title)}</h3>'
        f"{legend}{note}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{html.escape(f"{title}. {described}")}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _line(
    points: Sequence[Point],
    place: Callable[[float, float], str],
    index: int,
    form: Callable[[float], str],
    axis: str,
) -> str:
    """One series; a gap starts a new stroke, a lone point becomes a dot."""
    strokes: list[list[Point]] = [[]]
    for point in _thinned(points):
        if _finite(point):
            strokes[-1].append(point)
        elif strokes[-1]:
            strokes.append([])
    path = "".join(
        "M" + "L".join(place(*point) for point in stroke)
        for stroke in strokes
        if len(stroke) > 1
    )
    few = len(points) <= _MARKED
    dots = "".join(
        '<circle cx="{}" cy="{}" r="3"><title>{} {}: {}</title></circle>'.format(
            *place(*point).split(","),
            html.escape(axis),
            short(point[0]),
            html.escape(form(point[1])),
        )
        for stroke in strokes
        for point in stroke
        if few or len(stroke) == 1
    )
    return f'<g class="s{index % _COLOURS}"><path class="line" d="{path}"/>{dots}</g>'


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """At most `_POINTS` points, each the mean of its neighbours' finite values."""
    if len(points) <= _POINTS:
        return points
    thin = []
    for index in range(_POINTS):
        first = index * len(points) // _POINTS
        group = points[first : (index + 1) * len(points) // _POINTS]
        good = [point for point in group if _finite(point)] or [(group[0][0], math.nan)]
        thin.append(
            (sum(x for x, _ in good) / len(good), sum(y for _, y in good) / len(good))
        )
    return thin


def _finite(point: Point) -> bool:
    # Differences of larger numbers overflow, and no axis could show them.
    return abs(point[0]) < 1e300 and abs(point[1]) < 1e300


def _ticks(values: Sequence[float], wanted: int) -> tuple[list[float], float, float]:
    """Round tick values, and the ends of an axis that holds all values."""
    low, high = min(values), max(values)
    # What is never negative gets no room below zero.
    floor = 0.0 if low >= 0 else -math.inf
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        margin = abs(low) / 2 or 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    margin = (high - low) / 25
    first = math.ceil((low - margin) / step)
    last = math.floor((high + margin) / step)
    ticks = [index * step for index in range(first, last + 1)]
    bottom = max(low - margin, floor)
    return [tick for tick in ticks if tick >= bottom], bottom, high + margin
