"""Pictures of rows: what was hidden, and what was made of it."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sgmae_jax.data.byte_text import to_text
from sgmae_jax.methods.base import Method
from sgmae_jax.processes import fetch

_TEXTS, _ROWS, _WIDTH = 8, 24, 96
_INK, _HIDDEN, _WRONG = "#222222", "#c8c8c8", "#c0392b"


def artists(config, method: Method) -> dict[str, Callable[..., np.ndarray]]:
    """Who draws what the method can show of a training batch, by name of the picture.

    Each is called with (params, batch, root key, step, phase), and returns
    u8[height, width, 3].
    """
    if method.picture is None:
        return {}
    look = jax.jit(method.picture, static_argnums=4)

    def draw(params, batch, *rest) -> np.ndarray:
        shown = look(params, batch, *rest)
        batch, hidden, made = fetch((batch, shown.hidden, shown.prediction))
        if "values" not in batch and config.data.source == "text":
            return draw_texts(batch["symbols"], batch["valid"], hidden, made)
        return draw_table(batch.get("values"), hidden, made)

    return {"reconstruction": draw}


def draw_table(
    values: Float[np.ndarray, "B N 1"] | None,
    hidden: Float[np.ndarray, "B N"],
    made: Float[np.ndarray, "B N V"],
) -> UInt8[np.ndarray, "height width 3"]:
    """How often each column was hidden; and of the first rows the cells' numbers.

    Args:
        values: standardised; None where no column has numbers: the share is all then.
        hidden: 1 = the encoder did not see the cell.
        made: predictions, the number first.
    """
    numbers = values is not None
    figure = Figure(figsize=(9, 7.5 if numbers else 2.6), layout="constrained")
    axes = figure.subplots(4 if numbers else 1, 1, squeeze=False)[:, 0]
    axes[0].bar(np.arange(hidden.shape[1]), hidden.mean(0), color="#3b6ea5")
    axes[0].set(
        ylabel="share hidden", xlabel="column", xlim=(-0.5, hidden.shape[1] - 0.5)
    )
    axes[0].axhline(hidden.mean(), color=_INK, linewidth=0.8, linestyle=":")
    if values is not None:
        truth, unseen = values[:_ROWS, :, 0], hidden[:_ROWS] > 0
        filled = np.where(unseen, made[:_ROWS, :, 0], truth)
        titles = (
            "rows of the batch",
            "what the encoder sees",
            "hidden cells predicted",
        )
        shown = (truth, np.where(unseen, np.nan, truth), filled)
        for axis, title, cells in zip(axes[1:], titles, shown, strict=True):
            axis.set_facecolor(_HIDDEN)
            drawn = axis.imshow(cells, cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto")
            axis.set(ylabel=title.replace(" ", "\n", 2), xticks=[], yticks=[])
        figure.colorbar(drawn, ax=list(axes[1:]), label="standard deviations")
    return _pixels(figure)


def draw_texts(
    symbols: np.ndarray, valid: np.ndarray, hidden: np.ndarray, made: np.ndarray
) -> UInt8[np.ndarray, "height width 3"]:
    """Texts, what the encoder sees of them, and the likeliest symbol of each byte.

    Args:
        symbols: i32[B,N].
        valid: False at padding.
        hidden: 1 = the encoder did not see the byte.
        made: logits of symbols, f32[B,N,S].
    """
    lines: list[tuple[str, str, np.ndarray]] = []
    for row in range(min(_TEXTS, len(symbols))):
        count = min(int(valid[row].sum()), _WIDTH)
        unseen = hidden[row, :count] > 0
        truth, best = symbols[row, :count], made[row, :count].argmax(-1)
        seen = "".join(
            "_" if gone else one
            for gone, one in zip(unseen, to_text(truth), strict=True)
        )
        filled = to_text(np.where(unseen, best, truth))
        lines += [
            ("text", to_text(truth), np.zeros(count, bool)),
            ("seen", seen, np.zeros(count, bool)),
            ("made", filled, unseen & (best != truth)),
        ]
    figure = Figure(figsize=(12, 0.24 * (len(lines) + len(lines) // 3) + 0.6))
    axis = figure.subplots()
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.93)
    axis.set(xlim=(-6, _WIDTH), ylim=(len(lines) * 4 / 3, -1))
    axis.axis("off")
    axis.set_title("hidden bytes: _ ; wrong guesses in red", fontsize=9, loc="left")
    for place, (name, text, wrong) in enumerate(lines):
        y = place * 4 / 3
        axis.text(-6, y, name, fontsize=8, color="#888888", family="monospace")
        for x, (letter, off) in enumerate(zip(text, wrong, strict=True)):
            # A dollar sign would begin a formula.
            axis.text(
                x,
                y,
                letter.replace("$", r"\$"),
                fontsize=8,
                family="monospace",
                color=_WRONG if off else _INK,
            )
    return _pixels(figure)


def _pixels(figure: Figure) -> UInt8[np.ndarray, "height width 3"]:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
