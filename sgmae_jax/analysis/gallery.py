"""Pictures of how a model divides images, and one page with all of an analysis."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from sgmae_jax.analysis.charts import percent, short
from sgmae_jax.analysis.masks import mask_sheet
from sgmae_jax.analysis.page import section, write_page
from sgmae_jax.analysis.pictures import (
    enlarged,
    greyed,
    predicted_pixels,
    save_png,
    sheet,
    token_pixels,
)
from sgmae_jax.analysis.plots import write_plots
from sgmae_jax.analysis.samples import Samples
from sgmae_jax.analysis.series import Series
from sgmae_jax.analysis.study import Shown
from sgmae_jax.models import Autoencoder

TITLES = (
    "image",
    "relation map",
    "bi-partition",
    "relevance",
    "mask",
    "mask with hints",
    "reconstruction",
)
_CAPTION = (
    "Relation map: cosine of every token to the framed one. Bi-partition: orange is "
    "the side taken for the object, blue the rest; grey where there is no usable cut. "
    "Relation map and relevance run from dark (lowest of the image) to light "
    "(highest). Reconstruction: under the mask with hints, visible patches pasted over"
)
_OBJECT, _REST = np.array([230, 159, 0]), np.array([0, 114, 178])
_FRAME = (213, 94, 0)


def partition_sheet(
    model: Autoencoder,
    images: UInt8[np.ndarray, "P H W C"],
    marked: Int[np.ndarray, " P"],
    shown: Shown,
    *,
    norm_pix: bool,
) -> UInt8[np.ndarray, "height width 3"]:
    """A row an image: see `TITLES`.

    Args:
        model: for its patches and its normalisation.
        images: P of them, at least one.
        marked: the token that is framed, and to which relations are shown.
        shown: of these images.
        norm_pix: predictions are in units of each patch's own mean and deviation.
    """

    def spread(tokens: Any) -> np.ndarray:
        return token_pixels(tokens, model.grid, model.patch_size)

    made = predicted_pixels(
        images,
        shown.prediction,  # type: ignore[arg-type]
        patch_size=model.patch_size,
        mean=model.mean,
        std=model.std,
        norm_pix=norm_pix,
    )
    grey = images[..., :3].mean(-1, keepdims=True)
    inside = spread(np.asarray(shown.object))
    tint = 0.5 * grey + 0.5 * np.where(inside, _OBJECT, _REST)
    divided = np.asarray(shown.object).any(-1).reshape(-1, 1, 1, 1)
    tinted = np.where(divided, tint, grey).round().astype(np.uint8)
    guided, hinted = (spread(np.asarray(x) > 0) for x in (shown.guided, shown.hinted))
    columns = [
        enlarged(column)
        for column in (
            images,
            _heat(shown.relation, model),
            tinted,
            _heat(shown.relevance, model),
            greyed(images, guided),
            greyed(images, hinted),
            np.where(hinted, made, images),
        )
    ]
    for column in columns[:2]:
        _frame(column, marked, model.grid)
    units = ", un-normalised with each hidden patch's true mean and deviation."
    return sheet(columns, TITLES, caption=_CAPTION + (units if norm_pix else "."))


def _heat(values: Any, model: Autoencoder) -> UInt8[np.ndarray, "P H W 3"]:
    """Token values as colours, from the lowest to the highest of each image."""
    from matplotlib import colormaps

    # A diverged model gives NaN, which is drawn as the lowest.
    rows: Float[np.ndarray, "P N"] = np.nan_to_num(np.asarray(values, np.float64))
    low, high = rows.min(-1, keepdims=True), rows.max(-1, keepdims=True)
    level = (rows - low) / np.where(high > low, high - low, 1)
    pixels = token_pixels(level, model.grid, model.patch_size)[..., 0]
    return (colormaps["cividis"](pixels)[..., :3] * 255).round().astype(np.uint8)


def write_gallery(series: Series, folder: str | Path) -> Path:
    """Writes sheets, plots and the page that shows them.

    Args:
        series: as `study_run` returns it.
        folder: where they go; it exists.

    Returns:
        Path of the page, index.html; it needs no script, no other file, no network.
    """
    folder = Path(folder)
    record = series.record
    title = f"Analysis · {record['method']} · {record['source']}"
    return write_page(folder / "index.html", title, gallery_body(series, folder))


def gallery_body(series: Series, folder: Path) -> str:
    """Writes sheets and plots, and returns what a page shows of them.

    Args:
        series: as `study_run` returns it.
        folder: where they go; it exists.
    """
    for old in folder.glob("pictures_*.png"):
        old.unlink()  # an earlier analysis may have drawn other steps
    pictures = []
    for step, shown in series.shown.items():
        count = len(shown.object)
        if not count:
            continue
        path = folder / f"pictures_{step:08d}.png"
        save_png(
            path,
            partition_sheet(
                series.model,
                series.samples.images[:count],
                series.study.marked[:count],
                shown,
                norm_pix=series.study.options.norm_pix,
            ),
        )
        when = f"step {step}" if step else "before training"
        words = f"{', '.join(TITLES)} of {count} images, {when}"
        pictures.append((when, f"<figure>{_image(path, words)}</figure>"))
    # Every one but the last is folded: a page of them all would be long.
    content = "".join(
        f"<details><summary>{when}</summary>{figure}</details>"
        for when, figure in pictures[:-1]
    ) + "".join(f"<h3>{when}</h3>{figure}" for when, figure in pictures[-1:])
    plots = "".join(
        f"<figure>{_image(plot.path, f'{plot.title}. {plot.words}')}</figure>"
        for plot in write_plots(series.record, folder)
    )
    record = series.record
    return (
        _facts(record, series.samples)
        + section("Pictures", content)
        + section("Masks over training", _masks(series, folder))
        + section("Numbers", _table(record))
        + section("Over training", f'<div class="plots">{plots}</div>')
    )


def _masks(series: Series, folder: Path) -> str:
    """Draws the method's own masks, if it has any to show."""
    path = folder / "masks.png"
    path.unlink(missing_ok=True)  # of an earlier analysis
    if not series.masks:
        return ""
    count = len(next(iter(series.masks.values())))
    drawn = mask_sheet(
        series.samples.images[:count],
        series.masks,
        grid=series.model.grid,
        patch_size=series.model.patch_size,
    )
    save_png(path, drawn)
    steps = ", ".join(map(str, series.masks))
    words = f"{count} images, and under the method's own masks at steps {steps}"
    return f"<figure>{_image(path, words)}</figure>"


def _facts(record: Mapping[str, Any], samples: Samples) -> str:
    height, width = record["grid"]
    facts = {
        "images": f"{record['images']} of {record['split']}",
        "tokens": f"{height} × {width}",
        "hidden": percent(record["mask_ratio"]),
        "checkpoints": str(len(record["steps"]) - 1),
        "divided by": f"{record['relation']}, {record['part']} layer {record['layer']}",
        "true objects": "known" if samples.objects is not None else "not known",
    }
    tiles = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in facts.items()
    )
    return f'<dl class="facts">{tiles}</dl>'


def _table(record: Mapping[str, Any]) -> str:
    """The few numbers of a step one looks for first."""
    part = record["part"]
    layer = record["layer"] - (record["layer"] > 0)

    def row(found: Mapping[str, Any]) -> dict[str, float | None]:
        own, masks = found[part], found["masks"]
        rates = found["decoder"]["exploitation_per_token"][-1]
        cells = {
            "second eigenvalue": found["partition"]["eigenvalue"],
            "same cluster": own["cosine_intra"][layer],
            "different clusters": own["cosine_inter"][layer],
            "from visible, per token": rates[0][1],
            "from mask tokens, per token": rates[1][1],
        }
        cells |= {f"loss, {name}": masks[name]["loss"] for name in masks}
        if "ari" in found["partition"]:
            cells |= {
                "ARI": found["partition"]["ari"],
                "right side": found["partition"]["right_side"],
            }
            cells |= {f"IoU, {name}": masks[name]["object_iou"] for name in masks}
        return cells

    rows = {step: row(found) for step, found in record["steps"].items()}
    head = "".join(f"<th>{name}</th>" for name in next(iter(rows.values())))
    body = "".join(
        f'<tr><th scope="row">{step}</th>'
        + "".join(
            f"<td>{'–' if cell is None else short(cell)}</td>" for cell in row.values()
        )
        + "</tr>"
        for step, row in rows.items()
    )
    return (
        '<div class="scroll" role="region" aria-label="Numbers" tabindex="0"><table>'
        f"<thead><tr><th>step</th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _image(path: Path, words: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(words)}">'


def _frame(
    column: UInt8[np.ndarray, "P h w 3"],
    marked: Int[np.ndarray, " P"],
    grid: tuple[int, int],
) -> None:
    """Draws a frame around a token of each image, into the pictures given."""
    height, width = column.shape[1] // grid[0], column.shape[2] // grid[1]
    thick = max(2, min(height, width) // 8)
    for picture, token in zip(column, marked, strict=True):
        row, place = divmod(int(token), grid[1])
        cell = picture[
            row * height : (row + 1) * height, place * width : (place + 1) * width
        ]
        inner = cell[thick:-thick, thick:-thick].copy()
        cell[:] = _FRAME
        cell[thick:-thick, thick:-thick] = inner
