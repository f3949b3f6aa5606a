"""The JSON lines of a run on an accelerator: written, read, and made into tables."""

from __future__ import annotations

import json
import pathlib
import statistics
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Line = dict[str, Any]
T = TypeVar("T")


def show(line: Line) -> None:
    """Prints one line, at once: the run may be cut off at any time."""
    print(json.dumps(line), flush=True)


def spread(seconds: list[float]) -> Line:
    """Median and quartiles in milliseconds."""
    low, middle, high = statistics.quantiles(seconds, n=4)
    return {
        "ms": round(1e3 * middle, 4),
        "quartiles_ms": [round(1e3 * low, 4), round(1e3 * high, 4)],
    }


def attempt(what: Line, build: Callable[[], T]) -> T | None:
    """What `build` makes; where it cannot, a line that says why, and None.

    One program that does not fit, or that this device lacks, must not end a part.
    """
    try:
        return build()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        show({**what, "failed": reason})
        return None


def read(file: pathlib.Path) -> list[Line]:
    """All whole lines of a file; the last may have been cut off."""
    lines = []
    for text in file.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def fastest(lines: Iterable[Line]) -> str | None:
    """Our program with the most images a second in the first case; None without any."""
    own = [
        line
        for line in lines
        if line.get("program", "").startswith("ours") and "images_per_second" in line
    ]
    if not own:
        return None
    case = own[0]["size"], own[0]["batch"]
    same = [line for line in own if (line["size"], line["batch"]) == case]
    return max(same, key=lambda line: line["images_per_second"])["program"]


def table(lines: list[Line]) -> str:
    """Markdown: what it ran on, then one table a kind of line."""
    products = {line["matmul"]: line["tflops"] for line in lines if "matmul" in line}
    parts = [_environment(lines, products)]
    for title, key, head, row in (
        (
            "Steps",
            "program",
            "| model | batch | program | images/s | ms a step | quartiles | TFLOP/s "
            "| of data sheet | of measured matmul | GiB planned | GiB at peak "
            "| compiled in |",
            lambda line: _program(line, products),
        ),
        (
            "Ratios",
            "ratio",
            "| ratio | size | median | quartiles | target | by FLOPs | bytes |",
            _ratio,
        ),
        (
            "Attention, forward and backward",
            "attention",
            "| kind | tokens | heads | batch | ms | quartiles |",
            _attention,
        ),
        (
            "Loader",
            "loader",
            "| from | threads | images/s | ms a batch | quartiles |",
            _loader,
        ),
    ):
        rows = [row(line) for line in lines if key in line and "failed" not in line]
        if rows:
            rule = "|" + "---|" * (head.count("|") - 1)
            parts.append("\n".join([f"### {title}", "", head, rule, *rows]))
    lost = [_lost(line) for line in lines if "failed" in line or line.get("ended")]
    if lost:
        parts.append("\n".join(["### Not measured", "", *lost]))
    return "\n\n".join(parts)


def _environment(lines: list[Line], products: dict[str, float]) -> str:
    run = next((line for line in lines if "run" in line), None)
    if run is None:
        return "No line says what this ran on."
    versions = ", ".join(f"{name} {one}" for name, one in run["versions"].items())
    text = f"{run['devices']} x {run['device']}, {run['cores']} cores; {versions}."
    if run["sheet_tflops"]:
        text += f" Peak by the maker's data sheet: {run['sheet_tflops']:.0f} TFLOP/s."
    if products:
        measured = ", ".join(f"{one:.4g} in {name}" for name, one in products.items())
        text += f" Measured on square matrices: {measured} TFLOP/s."
    if run["run"] == "small":
        text += " **Small sizes: the script is tried out, the device is not measured.**"
    return text


def _cells(*values: object) -> str:
    return "| " + " | ".join("–" if one is None else str(one) for one in values) + " |"


def _range(pair: list[float]) -> str:
    return f"{pair[0]:.4g} – {pair[1]:.4g}"


def _gib(line: Line, key: str) -> str | None:
    return f"{line[key] / 2**30:.2f}" if key in line else None


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.1%}"


def _program(line: Line, products: dict[str, float]) -> str:
    dtype = next((one for one in products if one in line["program"]), None)
    return _cells(
        line["size"],
        line["batch"],
        line["program"],
        f"{line['images_per_second']:,.0f}",
        f"{line['ms']:.4g}",
        _range(line["quartiles_ms"]),
        f"{line['tflops']:.4g}",
        _share(line["mfu"]) if dtype == "bfloat16" else None,
        _share(line["tflops"] / products[dtype]) if dtype else None,
        _gib(line, "planned_bytes"),
        _gib(line, "peak_bytes"),
        f"{line['compile_s']} s" if "compile_s" in line else None,
    )


def _ratio(line: Line) -> str:
    size, batch = line.get("size"), line.get("batch")
    if size is None and "width" in line:
        size = f"width {line['width']}, depth {line['depth']}"
    if size is None and "sizes" in line:
        sizes = line["sizes"]
        size = f"{sizes['image']} px, {sizes['width']}x{sizes['depth']}"
    place = ", ".join(
        [*[str(size)] * (size is not None), *[f"batch {batch}"] * (batch is not None)]
    )
    extra = f", {line['steps']} steps" if "steps" in line else ""
    return _cells(
        line["ratio"] + extra,
        place or None,
        f"{line['median']:.4g}",
        _range(line["quartiles"]),
        line["target"],
        line.get("flop_ratio"),
        line.get("bytes_ratio"),
    )


def _attention(line: Line) -> str:
    return _cells(
        line["attention"],
        line["tokens"],
        f"{line['heads']} x {line['head_width']}",
        line["batch"],
        f"{line['ms']:.4g}",
        _range(line["quartiles_ms"]),
    )


def _loader(line: Line) -> str:
    return _cells(
        line["loader"],
        line["threads"],
        f"{line['images_per_second']:,}",
        f"{line['ms']:.4g}",
        _range(line["quartiles_ms"]),
    )


def _lost(line: Line) -> str:
    if "failed" in line:
        what = [str(one) for key, one in line.items() if key != "failed"]
        return f"* {', '.join(what)}: {line['failed']}"
    why = "out of time" if line["ended"] == 124 else f"exit code {line['ended']}"
    return f"* {line['part']}, what is not above: {why} after {line['seconds']} s"
