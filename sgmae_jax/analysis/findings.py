"""The analyses of the laboratory as tables and charts, one section each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sgmae_jax.analysis.charts import Point, Spread, line_chart, percent, short
from sgmae_jax.analysis.page import scrolling, section, text

Runs = Mapping[str, Mapping[str, Any]]  # name -> what laboratory.json holds of a run
Cell = Mapping[str, Any] | float | str | None  # an interval, a number, words
# What a receptive field is compared with: every visible patch counting alike.
_EVEN = {"model": "even, hidden", "decoder": "even, hidden", "encoder": "even, visible"}


def findings(runs: Runs, cka: Mapping[str, Mapping[str, Any]]) -> str:
    """Sections A to G of what was measured, those that have anything to show.

    Args:
        runs: by name; the first is drawn first.
        cka: "name and name" -> interval of [L1, L2].
    """
    looked = {name: run["found"] for name, run in runs.items() if run.get("found")}
    return "".join(
        (
            _invariance(runs, looked),
            _consistency(looked),
            _position(looked),
            _reach(looked),
            _fields(looked),
            _window(runs),
            _similarity(cka),
        )
    )


def shown(cell: Cell, form: Callable[[float], str] = short) -> str:
    """A cell in words: a mean with its interval, a number, or a dash."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Mapping):
        if cell["mean"] is None:
            return "–"
        ends = [cell[end] for end in ("low", "high")]
        if None in ends:
            return form(cell["mean"])
        return f"{form(cell['mean'])} ({form(ends[0])} to {form(ends[1])})"
    return "–" if cell is None else form(cell)


def at(interval: Mapping[str, Any] | None, *place: int) -> Mapping[str, Any] | None:
    """One number of an interval of many; negative places count from the end."""
    if interval is None:
        return None
    found = {}
    for name in ("mean", "low", "high"):
        value = interval[name]
        for index in place:
            value = value[index]
        found[name] = value
    return found


def table(label: str, head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table that scrolls in itself; the first column names the rows."""
    heads = "".join(f"<th>{text(name)}</th>" for name in head)
    body = "".join(
        f'<tr><th scope="row">{text(shown(first))}</th>'
        + "".join(f"<td>{text(shown(cell))}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    inside = f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody>"
    return scrolling(label, f'<table class="numbers">{inside}</table>')


def chart(
    title: str,
    axis: str,
    lines: Mapping[str, Iterable[tuple[float, Mapping[str, Any] | None]]],
    form: Callable[[float], str] = short,
) -> str:
    """A line chart of intervals, name -> (x, interval)."""
    points: dict[str, list[Point]] = {}
    spreads: dict[str, list[Spread]] = {}
    for name, line in lines.items():
        sound = [(x, y) for x, y in line if y is not None and y["mean"] is not None]
        points[name] = [(x, y["mean"]) for x, y in sound]
        spreads[name] = [(x, _or_nan(y["low"]), _or_nan(y["high"])) for x, y in sound]
    return line_chart(title, points, form=form, axis=axis, spreads=spreads)


def charts(*drawn: str) -> str:
    """Charts side by side where there is room."""
    inside = "".join(drawn)
    return f'<div class="charts">{inside}</div>' if inside else ""


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _layers(interval: Mapping[str, Any], *place: int) -> list[tuple[float, Any]]:
    """(layer from 1, its number) of an interval by layer."""
    depth = len(interval["mean"])
    return [(layer + 1, at(interval, layer, *place)) for layer in range(depth)]


def _invariance(runs: Runs, looked: Runs) -> str:
    rows, trends = [], {}
    for name, found in looked.items():
        cells: list[Cell] = [name]
        for part in ("encoder", "decoder"):
            deep = bool(found[part]["mean"])
            cells += [at(found[part], -1, kind) if deep else None for kind in (0, 1)]
        rows.append([*cells, found["error"], found["variance_share"]])
        trends[name] = [
            (float(step), glance["variance_share"])
            for step, glance in runs[name].get("over_training", {}).items()
        ]
    encoder = {n: _layers(f["encoder"], 0) for n, f in looked.items()}
    decoder = {n: _layers(f["decoder"], 0) for n, f in looked.items()}
    words = (
        "<p>Cosine of a token to itself under another mask, and to other tokens of the "
        "same image as the control; last layers. Share of the reconstruction error "
        "that is variance over masks: the rest is how far the mean over masks is from "
        "the image.</p>"
    )
    head = (
        "run",
        "encoder, same",
        "encoder, other",
        "decoder, same",
        "decoder, other",
        "error",
        "variance share",
    )
    drawn = charts(
        chart(
            "Share of the error that is variance over masks", "step", trends, percent
        ),
        chart("Encoder: same token under another mask, cosine", "layer", encoder),
        chart("Decoder: same token under another mask, cosine", "layer", decoder),
    )
    body = words + table("Invariance", head, rows) + drawn
    return section("A. Invariance to masking", body) if rows else ""


def _consistency(looked: Runs) -> str:
    rows = [
        (
            name,
            at(found["geometry_encoder"], -1, 0),
            at(found["geometry_encoder"], -1, 1),
            at(found["geometry_prediction"], 0),
            at(found["geometry_prediction"], 1),
            found["bias"],
        )
        for name, found in looked.items()
    ]
    head = (
        "run",
        "encoder, Spearman",
        "encoder, CKA",
        "prediction, Spearman",
        "prediction, CKA",
        "mean over masks to image",
    )
    encoder = {n: _layers(f["geometry_encoder"], 0) for n, f in looked.items()}
    decoder = {n: _layers(f["geometry_decoder"], 0) for n, f in looked.items()}
    words = (
        "<p>How alike the tokens of an image lie to its patches: rank correlation of "
        "the distances of all pairs, and linear CKA. Encoder: whole images. Decoder "
        "and prediction: means over masks that hide the patch. Last column: squared "
        "distance of the mean prediction from the patch, a value.</p>"
    )
    drawn = charts(
        chart("Encoder tokens and patches, Spearman", "layer", encoder),
        chart("Decoder tokens and patches, Spearman", "layer", decoder),
    )
    body = words + table("Distribution consistency", head, rows) + drawn
    return section("B. Consistency with the image", body) if rows else ""


def _position(looked: Runs) -> str:
    lines = {n: f["position"] for n, f in looked.items() if "position" in f}
    rows = [
        (name, layer, at(found, layer - 1, 0), at(found, layer - 1, 1))
        for name, found in lines.items()
        for layer in range(1, len(found["mean"]) + 1)
    ]
    words = (
        "<p>Attention of mask tokens under one mask for all images: cosine between the "
        "maps of two images, and correlation with the map where every token is mask "
        "token and position alone.</p>"
    )
    head = ("run", "decoder layer", "other images", "position alone")
    drawn = charts(
        chart(
            "Mask tokens' attention, other images, cosine",
            "layer",
            {n: _layers(f, 0) for n, f in lines.items()},
        ),
        chart(
            "Mask tokens' attention, position alone, correlation",
            "layer",
            {n: _layers(f, 1) for n, f in lines.items()},
        ),
    )
    body = words + table("Position", head, rows) + drawn
    return section("C. What the decoder attends by", body) if rows else ""


def _reach(looked: Runs) -> str:
    lines = {n: f["reach"] for n, f in looked.items() if f.get("reach")}
    if not lines:
        return ""
    depth = max(len(i["mean"]) for f in lines.values() for i in f.values())
    rows = [
        (name, percent(float(ratio)), *(at(i, k) for k in range(len(i["mean"]))))
        for name, found in lines.items()
        for ratio, i in found.items()
    ]
    head = ("run", "hidden", *(f"layer {k + 1}" for k in range(depth)))
    words = (
        "<p>Mean distance, in patches, of what mask tokens attend to; patches only, "
        "rows brought back to 1.</p>"
    )
    drawn = charts(
        *(
            chart(
                f"Attention distance, decoder layer {place + 1}",
                "share hidden",
                {
                    name: [
                        (float(ratio), at(i, place))
                        for ratio, i in found.items()
                        if place < len(i["mean"])
                    ]
                    for name, found in lines.items()
                },
            )
            for place in sorted({0, depth - 1})
        )
    )
    body = words + table("Attention distance", head, rows) + drawn
    return section("D. How far the decoder attends", body)


def _fields(looked: Runs) -> str:
    lines = {n: f for n, f in looked.items() if f.get("radii")}
    rows = []
    for name, found in lines.items():
        for ratio, radii in found["radii"].items():
            cells: list[Cell] = [name, percent(float(ratio))]
            for kind in ("model", "decoder", "encoder"):
                cells += [at(radii[kind], share) for share in (0, 1)]
            cells += [at(radii[even], 0) for even in ("even, hidden", "even, visible")]
            rows.append(cells)
    head = (
        "run",
        "hidden",
        *(
            f"{kind}, {share} %"
            for kind in (
                "pixels to prediction",
                "latent to prediction",
                "pixels to latent",
            )
            for share in (50, 90)
        ),
        "even from hidden, 50 %",
        "even from visible, 50 %",
    )
    words = (
        "<p>Radius in patches that holds half, and nine tenths, of the derivative's "
        "norm over the visible patches. Where more is hidden the visible patches lie "
        "further off by themselves: “even” is the radius if all of them counted "
        "alike.</p>"
    )

    def line(found: Mapping[str, Any], kind: str) -> list[tuple[float, Any]]:
        return [(float(r), at(i[kind], 0)) for r, i in found["radii"].items()]

    titles = {
        "model": "Radius of half the field, pixels to prediction",
        "decoder": "Radius of half the field, latent to prediction",
        "encoder": "Radius of half the field, pixels to latent",
    }
    drawn = []
    for kind, title in titles.items():
        curves = {name: line(found, kind) for name, found in lines.items()}
        if lines:
            first = next(iter(lines.values()))
            curves["even"] = line(first, _EVEN[kind])
        drawn.append(chart(title, "share hidden", curves))
    profiles = {
        name: list(enumerate(at(found["profile"][ratio]["model"], k) for k in range(n)))
        for name, found in lines.items()
        if (ratio := next(reversed(found["profile"])))
        and (n := len(found["profile"][ratio]["model"]["mean"]))
    }
    drawn.append(
        chart(
            "Mass of the field by distance, most hidden", "patches", profiles, percent
        )
    )
    body = words + table("Receptive fields", head, rows) + charts(*drawn)
    return section("E. Effective receptive fields", body) if rows else ""


def _window(runs: Runs) -> str:
    """Analysis F: what a window and what a mask does, in runs that differ in these."""
    facts = {(run["window"], tuple(run["ratios"])) for run in runs.values()}
    if len(facts) < 2:
        return ""
    rows = []
    for name, run in runs.items():
        found = run.get("found") or {}
        radii = found.get("radii", {}).get(str(run["look"]["ratio"]), {})
        window = run["window"]
        scores = run.get("scores", {})
        rows.append(
            (
                name,
                " and ".join(percent(ratio) for ratio in run["ratios"]),
                "all" if window is None else f"{2 * window + 1} × {2 * window + 1}",
                at(radii.get("encoder"), 0),
                at(radii.get("model"), 0),
                *(
                    percent(scores[kind]) if kind in scores else None
                    for kind in ("knn", "probe")
                ),
            )
        )
    head = (
        "run",
        "hidden in training",
        "decoder window",
        "radius, pixels to latent",
        "radius, pixels to prediction",
        "kNN",
        "linear probe",
    )
    words = (
        "<p>The mask as augmentation and as a limit of the receptive field: runs that "
        "differ in the share hidden and in how far a decoder token may attend.</p>"
    )
    return section("F. Window against mask", words + table("Windows", head, rows))


def _similarity(cka: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for pair, interval in cka.items():
        grid = interval["mean"]
        deep = min(len(grid), len(grid[0]))
        like = sum(grid[layer][layer] for layer in range(deep)) / deep
        rows.append((pair, at(interval, 0, 0), at(interval, -1, -1), like))
    head = ("pair", "first layers", "last layers", "mean of like layers")
    folds = "".join(
        f"<details><summary>{text(pair)}, all layers</summary>"
        + table(
            f"CKA of {text(pair)}",
            ("layer", *(f"layer {k + 1}" for k in range(len(interval["mean"][0])))),
            [
                (f"layer {i + 1}", *(at(interval, i, j) for j in range(len(row))))
                for i, row in enumerate(interval["mean"])
            ],
        )
        + "</details>"
        for pair, interval in cka.items()
    )
    words = (
        "<p>Linear CKA of encoder layers on the same whole images, patch tokens as "
        "samples; rows of the tables are layers of the first of a pair.</p>"
    )
    body = words + table("CKA", head, rows) + folds
    return section("G. Similarity of models", body) if rows else ""
