"""The tables of docs/scaling.md, from what benchmarks.scaling has found."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Mapping, Sequence

from benchmarks.scaling_chips import CHIPS, DISKS, JPEG, UTILISATION
from benchmarks.scaling_model import (
    FSDP,
    MODES,
    NAMES,
    Found,
    Need,
    scattered_formula,
    wire_formula,
)
from benchmarks.scaling_plots import draw_memory, draw_traffic


def needs(found: Found) -> str:
    """What a step needs of a device, without division of the state."""
    rows = []
    for size, name in NAMES.items():
        one = found[f"{size} 8 data dots 64"]
        full = found[f"{size} 8 data full 64"]
        count = one["parameters"]
        dots_need = Need(found, size, "data", "dots")
        rows.append(
            (
                name,
                f"{count / 1e6:.0f}",
                f"{one['flops_formula'] / 64 / 1e9:.1f}",
                _ratio(one["flops_dots"], one["flops_formula"])
                + " / "
                + _ratio(full["flops_dots"], full["flops_formula"]),
                f"{12 * count / 1e9:.2f}",
                f"{4 * count / 1e9:.2f}",
                " / ".join(
                    f"{found[f'{size} kept {remat}'] / 1e6:.0f}"
                    for remat in ("none", "dots", "full")
                ),
                f"{dots_need.fixed / 1e9:.2f}",
                f"{dots_need.image / 1e6:.0f} / "
                f"{Need(found, size, 'data', 'full').image / 1e6:.0f}",
            )
        )
    return _table(
        (
            "encoder",
            "parameters, M",
            "GFLOP an image, formula",
            "products counted / formula, dots / full",
            "state, GB",
            "gradients, GB",
            "kept an image, MB, none / dots / full",
            "compiled: without a batch, GB",
            "compiled: an image, MB, dots / full",
        ),
        rows,
    )


def devices(found: Found) -> str:
    """What a device of many holds and computes, for ViT-B and 64 images each."""
    rows = []
    for count in (1, 8, 64, 512):
        for mode in MODES:
            one = found.get(f"vit_b {count} {mode} dots 64", {})
            if "wire" not in one:
                continue
            rows.append(
                (
                    count,
                    MODES[mode],
                    f"{one['state'] / 1e9:.2f}",
                    f"{one['temp'] / 1e9:.2f}",
                    f"{(one['argument'] + one['temp']) / 1e9:.2f}",
                    _ratio(one["flops_dots"], one["flops_formula"]),
                )
            )
    return _table(
        (
            "devices",
            "state",
            "state, GB",
            "temporary, GB",
            "all, GB",
            "products counted / formula",
        ),
        rows,
    )


def counted(found: Found) -> str:
    """What the compiler's own count says, with loops and without."""
    loops = found["vit_b 8 data dots 64"]
    flat = found["vit_b 8 data dots 16 unrolled"]
    formula, part = loops["flops_formula"], flat["flops_formula"]
    return (
        "`cost_analysis` of the compiler counts the body of a loop once: "
        f"{loops['flops_compiler'] / formula:.2f} of the formula for ViT-B. With the "
        f"layers written out it counts {flat['flops_compiler'] / part:.3f} (norms, "
        f"softmax and AdamW included), and {flat['bytes_compiler'] / 1e9:.0f} GB read "
        "and written for 16 images a device."
    )


def fits(found: Found) -> str:
    """The largest batch a chip, by memory."""
    rows = []
    for size, name in NAMES.items():
        for mode in ("data", "fsdp"):
            both = [Need(found, size, mode, remat) for remat in ("dots", "full")]
            cells = [
                " / ".join(str(need.largest(chip.memory)) for need in both)
                for chip in CHIPS
            ]
            rows.append((name, "data" if mode == "data" else f"fsdp = {FSDP}", *cells))
    heads = [f"{chip.name}, {chip.memory / 1e9:.0f} GB" for chip in CHIPS]
    return _table(("encoder", "state", *heads), rows)


def traffic(found: Found) -> str:
    """What a device sends in a step, counted and by formula."""
    rows = []
    wished = [("vit_b", n, mode) for n in (8, 64, 512) for mode in MODES]
    wished += [(size, 8, mode) for size in list(NAMES)[1:] for mode in MODES]
    for size, devices, mode in wished:
        one = found.get(f"{size} {devices} {mode} dots 64", {"failed": "not compiled"})
        mesh = f"{devices} x 1" if mode == "data" else f"{devices // FSDP} x {FSDP}"
        head = (NAMES[size], mesh, MODES[mode])
        if "failed" in one:
            rows.append((*head, *["–"] * 4, one["failed"]))
            continue
        wire, total = one["wire"], sum(one["wire"].values())
        kinds = ("all-reduce", "all-gather")
        cells = [f"{wire.get(kind, 0) / 1e9:.2f}" for kind in kinds]
        expected = wire_formula(one, mode, devices)
        formula = f"{expected / 1e9:.2f} ({total / expected:.3f})"
        rows.append(
            (*head, *cells, f"{total / 1e9:.2f}", formula, one["compile_seconds"])
        )
    return _table(
        (
            "encoder",
            "mesh",
            "state",
            "all-reduce",
            "all-gather",
            "all, GB",
            "formula (ratio)",
            "compiled in, s",
        ),
        rows,
    )


def balance(found: Found) -> str:
    """From which batch a chip computes longer than it sends."""
    rows = []
    for chip in CHIPS:
        for what, speed in (("links", chip.link), ("network", chip.network)):
            if speed is None:
                continue
            cells = []
            for size in NAMES:
                one = found[f"{size} 8 data dots 64"]
                image = one["flops_formula"] / 64 / (UTILISATION * chip.peak)
                data = wire_formula(one, "data", 512) / speed
                parted = scattered_formula(one, 512) / speed
                cells.append(f"{data / image:.0f} / {parted / image:.0f}")
            rows.append((chip.name, what, f"{speed / 1e9:.0f}", *cells))
    return _table(("chip", "over", "GB/s", *NAMES.values()), rows)


def given(found: Found) -> str:
    """The chips' figures, with their sources."""
    del found
    rows = [
        (
            chip.name,
            f"{chip.memory / 1e9:.0f}",
            f"{chip.peak / 1e12:.0f}",
            f"{chip.link / 1e9:.0f}",
            "–" if chip.network is None else f"{chip.network / 1e9:.0f}",
            chip.host,
            chip.source,
        )
        for chip in CHIPS
    ]
    return _table(
        (
            "chip (given)",
            "memory, GB",
            "bf16 TFLOP/s",
            "links one way, GB/s",
            "network a chip, GB/s",
            "chips a host",
            "source",
        ),
        rows,
    )


def feeding(found: Found) -> str:
    """What a host must read and decode."""
    rate = _median(found["decode"]["rates"])
    rows = []
    for chip in CHIPS:
        cells = []
        for size in NAMES:
            one = found[f"{size} 8 data dots 64"]
            images = chip.host * UTILISATION * chip.peak / (one["flops_formula"] / 64)
            cells.append(
                f"{images:,.0f} · {images * JPEG / 1e6:,.0f} · {images / rate:.0f}"
            )
        rows.append((chip.name, chip.host, *cells))
    return _table(("chip", "chips a host", *NAMES.values()), rows)


def checkpoints(found: Found) -> str:
    """Sizes of checkpoints, and how long a host writes them."""
    rows = []
    for size, name in NAMES.items():
        count = found[f"{size} 8 data dots 64"]["parameters"]
        whole = 12 * count
        cells = [f"{whole / disk:.1f}" for disk in DISKS]
        rows.append((name, f"{whole / 1e9:.2f}", f"{4 * count / 1e9:.2f}", *cells))
    heads = [f"s at {disk / 1e9:g} GB/s (given)" for disk in DISKS]
    return _table(("encoder", "GB", "with an EMA, more", *heads), rows)


def written(found: Found) -> str:
    """A checkpoint that was written here."""
    one = found["disk"]
    return (
        "Measured on the disk here, with other work beside it, ViT-B: `save()` of "
        f"{one['state'] / 1e9:.2f} GB returns in {one['returned_seconds']:.1f} s, is "
        f"on the disk after {one['saved_seconds']:.1f} s, digest included "
        f"({one['state'] / one['saved_seconds'] / 1e9:.2f} GB/s), and comes back "
        f"verified in {one['restored_seconds']:.1f} s."
    )


def decoded(found: Found) -> str:
    """The rate of one core here."""
    one = found["decode"]
    rates = one["rates"]
    return (
        f"One core here makes {_median(rates):.0f} random crops of 224 pixels a "
        f"second ({rates[0]:.0f} to {rates[-1]:.0f} in {len(rates)} rounds) of "
        f"generated JPEGs of 500x375 pixels and {one['bytes'] / 1e3:.0f} kB."
    )


TABLES: Mapping[str, Callable[[Found], str]] = {
    "needs": needs,
    "counted": counted,
    "devices": devices,
    "fits": fits,
    "traffic": traffic,
    "balance": balance,
    "given": given,
    "feeding": feeding,
    "checkpoints": checkpoints,
    "written": written,
    "decoded": decoded,
}


def write(found: Found, folder: pathlib.Path) -> None:
    """Puts the tables between their marks in FOLDER/scaling.md, and draws the plots.

    A table whose numbers are not all there yet stays as it is.
    """
    page = folder / "scaling.md"
    text = page.read_text()
    for name, make in TABLES.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        try:
            made = make(found)
        except KeyError as missing:
            print(f"{name}: {missing} is not there yet")
            continue
        pattern = re.escape(begin) + ".*?" + re.escape(end)
        block = f"{begin}\n{made}\n{end}"
        text = re.sub(pattern, lambda _, block=block: block, text, flags=re.DOTALL)
    page.write_text(text)
    for draw in (draw_memory, draw_traffic):
        name = draw.__name__.removeprefix("draw_")
        try:
            draw(found, folder / "images" / f"scaling_{name}.png")
        except KeyError as missing:
            print(f"plot of {name}: {missing} is not there yet")


def _ratio(one: float, other: float) -> str:
    return f"{one / other:.3f}"


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _table(heads: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
