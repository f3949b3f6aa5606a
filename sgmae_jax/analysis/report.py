"""One self-contained page about a run, from what lies in its directory."""

from __future__ import annotations

import base64
import json
import math
import os
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sgmae_jax.analysis.charts import Point, line_chart, percent, short
from sgmae_jax.analysis.page import (
    PATH,
    number,
    score_cell,
    scrolling,
    section,
    text,
    write_page,
)
from sgmae_jax.analysis.score_table import (
    ERROR,
    kind_of,
    kinds_of,
    score_text,
    title_of,
)

# Drawn first and under these titles; other numbers in the log follow in a fold.
_CHARTS = {
    "loss": "Loss",
    "lr": "Learning rate",
}
_SPEED, _BAD = re.compile(r"(\w+)_per_second"), re.compile(r"bad_(\w+)")
_PICTURES = 8
_COLUMNS = {
    "reconstruction": (
        "From left to right: input, masked input, reconstruction of every patch, "
        "reconstruction with the visible patches."
    ),
    "segments": "From left to right: input, true classes of pixels, predicted ones.",
}
_PNG = b"\x89PNG\r\n\x1a\n"


def write_report(workdir: str | os.PathLike) -> Path:
    """Writes `report.html`: scores, curves, pictures and config of a run.

    Reads config.json, metrics.jsonl, scores.json and pictures/*.png; what is missing
    or damaged is left out. The page needs no network and no script, and names no
    directory of the machine.

    Args:
        workdir: a run directory.

    Returns:
        Path of the page.
    """
    workdir = Path(workdir)
    title, body = report_body(workdir)
    body = body or "<p>There is nothing to report yet.</p>"
    return write_page(workdir / "report.html", title or "Training run", body)


def report_body(workdir: Path) -> tuple[str, str]:
    """The title of a run, and what `write_report` shows of it."""
    config = _flat(_read_json(workdir / "config.json"))
    rows = _read_metrics(workdir / "metrics.jsonl")
    title = " · ".join(
        str(config[name])
        for name in ("method.name", "model.preset", "data.source")
        if config.get(name)
    )
    sections = [
        _facts(rows),
        _scores(_read_json(workdir / "scores.json")),
        _curves(rows),
        _pictures(sorted(workdir.glob("pictures/*.png"), key=_order)),
        _config(config),
    ]
    return title, "".join(sections)


def _facts(rows: Mapping[float, Mapping[str, float]]) -> str:
    """The few numbers one looks for first."""
    series = {name: _finite_values(rows, name) for name in _names(rows)}
    facts = []
    if rows:
        facts.append(("steps", short(max(rows))))
    if epochs := series.get("epoch"):
        facts.append(("epochs", short(round(epochs[-1], 2))))
    if loss := series.get("loss"):
        facts.append(("final loss", short(loss[-1])))
    for name, speed in series.items():
        if (unit := _SPEED.fullmatch(name)) and speed:
            median = short(round(statistics.median(speed), 1))
            facts.append((f"{unit[1]}/s, median", median))
    if use := series.get("mfu"):
        facts.append(("of peak, median", percent(statistics.median(use))))
    if skipped := sum(series.get("skipped", ())):
        facts.append(("steps skipped", short(skipped)))
    for name, bad in series.items():
        if (unit := _BAD.fullmatch(name)) and any(bad):
            facts.append((f"bad {unit[1]}", short(max(bad))))
    tiles = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>"
        for name, value in facts
    )
    return f'<dl class="facts">{tiles}</dl>' if tiles else ""


def _scores(scores: Any) -> str:
    """Accuracy of features and of a head, the run's own beside the baselines."""
    if not isinstance(scores, dict):
        return ""
    rows = {name: row for name, row in scores.items() if isinstance(row, dict) and row}
    kinds = kinds_of(rows.values())
    if not kinds:
        return ""
    head = "".join(f"<th>{text(title_of(kind))}</th>" for kind in kinds)
    body = ""
    for name, row in rows.items():
        own = ' class="own"' if name.startswith("trained") else ""
        cells = "".join(
            score_cell(row.get(kind), _shown(row, kind), share=kind_of(kind).share)
            for kind in kinds
        )
        body += f'<tr{own}><th scope="row">{text(name)}</th>{cells}</tr>'
    own_head = {"accuracy", "miou"} & set(kinds)
    head_too = ", and of the run's own head" if own_head else ""
    words = "Scores on held-out data."
    if all(kind_of(kind).share for kind in kinds):
        words = f"Accuracy on held-out images, from frozen features{head_too}."
    return section(
        "Scores",
        f"<p>{words}</p>"
        + scrolling(
            "Scores",
            f'<table class="scores"><thead><tr><th>features</th>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table>",
        ),
    )


def _shown(row: Mapping[str, Any], kind: str) -> str:
    """A score with its standard error, if it has one."""
    spread = number(row.get(kind + ERROR))
    value = number(row.get(kind))
    if not kind_of(kind).share:
        return score_text(row, kind) if math.isfinite(value) else ""
    if not math.isfinite(spread) or not math.isfinite(value):
        return ""
    return f"{percent(value)} ± {percent(spread)}"


def _curves(rows: Mapping[float, Mapping[str, float]]) -> str:
    names = _names(rows)
    scored = [name for name in names if name.startswith("eval/")]
    first = {name: title for name, title in _CHARTS.items() if name in names}
    first |= {
        name: f"{unit[1].capitalize()} per second"
        for name in names
        if (unit := _SPEED.fullmatch(name))
    }
    charts = [
        line_chart(title, {"last": _series(rows, name)})
        for name, title in first.items()
    ]
    shares = {}
    for name in scored:
        kind = name.removeprefix("eval/")
        inside = all(0 <= value <= 1 for value in _finite_values(rows, name))
        if kind_of(kind).share and inside:
            shares[title_of(kind)] = _series(rows, name)
        else:
            charts.append(line_chart(title_of(kind), {"last": _series(rows, name)}))
    charts.append(line_chart("Accuracy on held-out images", shares, form=percent))
    others = [
        line_chart(name, {"last": _series(rows, name)})
        for name in names
        if name not in (*first, *scored, "step", "epoch")
    ]
    drawn, folded = "".join(charts), "".join(others)
    content = f'<div class="charts">{drawn}</div>' if drawn else ""
    if folded:
        content += (
            "<details><summary>More numbers from the log</summary>"
            f'<div class="charts">{folded}</div></details>'
        )
    return section("Curves", content)


def _pictures(paths: Sequence[Path]) -> str:
    """The latest picture open, earlier ones (evenly chosen) folded below."""
    sheets = []
    for path in _spread(paths, _PICTURES):
        data = path.read_bytes()
        if not data.startswith(_PNG):
            continue
        kind, step = _order(path)
        name = kind.replace("_", " ").strip() or "picture"
        when = f"step {short(step)}" if step >= 0 else path.stem
        source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        image = f'<img src="{source}" alt="{text(f"{name}, {when}")}" loading="lazy">'
        sheets.append((when, f"<figure>{image}</figure>"))
    if not sheets:
        return ""
    *earlier, (when, latest) = sheets
    intro = f"<p>{_COLUMNS[kind]}</p>" if kind in _COLUMNS else ""
    content = f"{intro}<h3>{text(when)}</h3>{latest}" + "".join(
        f"<details><summary>{text(when)}</summary>{sheet}</details>"
        for when, sheet in reversed(earlier)
    )
    return section("Pictures", content)


def _config(config: Mapping[str, Any]) -> str:
    if not config:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{text(name)}</th><td>{_value(value)}</td></tr>'
        for name, value in config.items()
    )
    table = scrolling("Configuration", f'<table class="config">{rows}</table>')
    fold = f"<details><summary>{len(config)} fields</summary>{table}</details>"
    return section("Configuration", fold)


def _value(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, str):
        # A path as a whole may hold blanks.
        whole = PATH.match(value)
        return text(value.replace(" ", "_") if whole else value)
    return text(json.dumps(value, ensure_ascii=False))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _read_metrics(path: Path) -> dict[float, dict[str, float]]:
    """Numbers by step; what a resumed run wrote again counts, the first does not."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    rows: dict[float, dict[str, float]] = {}
    for line in lines:
        try:
            values = json.loads(line)
            step = number(values.pop("step"))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # half a line: the run was killed while writing it
        if math.isfinite(step):
            numbers = {name: number(value) for name, value in values.items()}
            rows.setdefault(step, {}).update(numbers)
    return dict(sorted(rows.items()))


def _names(rows: Mapping[float, Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows.values() for name in row))


def _series(rows: Mapping[float, Mapping[str, float]], name: str) -> list[Point]:
    return [(step, row[name]) for step, row in rows.items() if name in row]


def _finite_values(rows: Mapping[float, Mapping[str, float]], name: str) -> list[float]:
    return [value for _, value in _series(rows, name) if math.isfinite(value)]


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree} if prefix else {}
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}.{name}" if prefix else str(name))
    return flat


def _order(path: Path) -> tuple[str, int]:
    """Kind and step of a picture: `reconstruction_00000800.png`."""
    found = re.fullmatch(r"(.*?)_?(\d+)", path.stem)
    return (found[1], int(found[2])) if found else (path.stem, -1)


def _spread(paths: Sequence[Path], count: int) -> Iterable[Path]:
    """At most `count`, evenly chosen, first and last among them."""
    if len(paths) <= count:
        return paths
    return [paths[i * (len(paths) - 1) // (count - 1)] for i in range(count)]
