"""What every page we write shares: the frame, sections, tables, and clean text."""

from __future__ import annotations

import html
import math
import os
import re
from pathlib import Path
from typing import Any

from sgmae_jax import __version__
from sgmae_jax.analysis.charts import percent
from sgmae_jax.analysis.style import CSS

# Starts of paths: root, home, drive, parent. `3/4` and `img/s` are not among them.
PATH = re.compile(
    r"""(?:file://|(?<![\w.:/\\])(?:~[\w.-]*/|\.{0,2}/(?=[\w.~-])|[A-Za-z]:\\|\\\\))"""
    r"""[^\s"'<>|,;()\[\]{}]*"""
)


def write_page(path: Path, title: str, body: str) -> Path:
    """Writes a page that needs no network and no script; readers never see a half.

    Args:
        path: of the page.
        title: plain text.
        body: HTML.
    """
    heading = text(title)
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{heading}</title><style>{CSS}</style></head><body><main>"
        f"<header><h1>{heading}</h1></header>{body}"
        f"<footer>sgmae_jax {__version__}</footer></main></body></html>\n"
    )
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, path)
    return path


def section(title: str, content: str) -> str:
    """A titled part of a page; nothing without content."""
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""


def scrolling(label: str, table: str) -> str:
    """A table in a region of its own that scrolls sideways."""
    # Focusable, so that a wide table can be scrolled by keyboard.
    return (
        f'<div class="scroll" role="region" aria-label="{label}" tabindex="0">'
        f"{table}</div>"
    )


def text(value: str) -> str:
    """Safe in HTML, and without directories or user names of the machine."""
    return html.escape(PATH.sub(_file_name, value))


def _file_name(found: re.Match[str]) -> str:
    """The name of a file stays; of a directory nothing, it may be a user's name."""
    last = re.split(r"[/\\]", found[0])[-1]
    return f"…/{last}" if "." in last.strip(".") else "…"


def score_cell(
    value: Any, shown: str = "", *, best: bool = False, share: bool = True
) -> str:
    """The cell of a score; a dash where there is none.

    Args:
        value: a number, or anything else for none.
        shown: as text; empty: a percentage.
        best: stands out.
        share: it is one, in [0, 1], and has a bar for its size.
    """
    size = number(value)
    if not math.isfinite(size):
        return "<td>–</td>"
    width = 100 * min(max(size, 0.0), 1.0)
    bar = f'<span class="bar"><i style="width:{width:.1f}%"></i></span>'
    bar = bar if share else ""
    kind = ' class="own"' if best else ""
    return f"<td{kind}>{text(shown) or percent(size)}{bar}</td>"


def number(value: Any) -> float:
    """The number, or NaN where there is none: null, NaN and infinity are gaps."""
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return math.nan
