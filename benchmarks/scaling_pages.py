"""The tables and plots of docs/scaling.md, from what benchmarks.scaling has found."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.scaling_chips import CHIPS, DISKS, JPEG, USABLE, UTILISATION
from benchmarks.scaling_point import SHAPES

Found = Mapping[str, Any]
NAMES = {size: f"ViT-{size[-1].upper()}/{SHAPES[size].patch}" for size in SHAPES}
NAMES["vit_g"] = "ViT-g/14"
MODES = {"data": "data", "fsdp": "fsdp"}
_FSDP = 8


class Need:
    """Memory of a device as a straight line over its batch.

    What an image needs is the difference of two batches with a whole state. It is the
    same where the state is divided: images are divided alike.

    Args:
        found: everything that was measured.
        size: a name in `SHAPES`.
        mode: see `benchmarks.scaling_point.MODES`.
        remat: see `model.remat`.
    """

    def __init__(self, found: Found, size: str, mode: str, remat: str):
        at = {n: _whole(found[f"{size} 8 data dots {n}"]) for n in (64, 256)}
        of_dots = (at[256] - at[64]) / (256 - 64)
        # What is there without a batch does not depend on what the backward pass keeps.
        divided = _whole(found[f"{size} 8 {mode} dots 64"])
        self.fixed = divided - 64 * of_dots
        self.image = of_dots
        if remat == "full":
            at = {n: _whole(found[f"{size} 8 data full {n}"]) for n in (256, 1024)}
            self.image = (at[1024] - at[256]) / (1024 - 256)

    def of(self, batch: float) -> float:
        """Bytes at so many images a device."""
        return self.fixed + batch * self.image

    def largest(self, memory: float) -> int:
        """Most images a device, 0 where the state alone does not fit."""
        return max(int((USABLE * memory - self.fixed) / self.image), 0)


def _whole(point: Mapping[str, float]) -> float:
    """What is there beside each other; results lie where arguments were."""
    return point["argument"] + point["temp"]


def wire_formula(found: Mapping[str, Any], mode: str, devices: int) -> float:
    """Bytes a device should send in a step, all in float32.

    Args:
        found: a point.
        mode: "data": gradients are summed over all devices. "fsdp": every weight
            is gathered forward and backward over `fsdp`, and gradients are summed.
        devices: how many there are.
    """
    size = 4 * found["parameters"]
    summed = 2 * (devices - 1) / devices * size
    gathers = 0.0 if mode == "data" else 2 * (_FSDP - 1) / _FSDP * size
    return summed + gathers


def scattered_formula(found: Mapping[str, Any], devices: int) -> float:
    """The same of "fsdp", where each device keeps its share of the sums alone."""
    size, others = 4 * found["parameters"], devices // _FSDP
    share = (_FSDP - 1) / _FSDP
    return 3 * share * size + 2 * (others - 1) / others * size / _FSDP


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
            rows.append((name, "data" if mode == "data" else f"fsdp = {_FSDP}", *cells))
    heads = [f"{chip.name}, {chip.memory / 1e9:.0f} GB" for chip in CHIPS]
    return _table(("encoder", "state", *heads), rows)


def traffic(found: Found) -> str:
    """What a device sends in a step, counted and by formula."""
    rows = []
    wished = [("vit_b", n, mode) for n in (8, 64, 512) for mode in MODES]
    wished += [(size, 8, mode) for size in list(NAMES)[1:] for mode in MODES]
    for size, devices, mode in wished:
        one = found.get(f"{size} {devices} {mode} dots 64", {"failed": "not compiled"})
        mesh = f"{devices} x 1" if mode == "data" else f"{devices // _FSDP} x {_FSDP}"
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


def draw_memory(found: Found, path: pathlib.Path) -> None:
    """Memory of a device over its batch, one panel a way to keep the state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    batches = [2**n for n in range(11)]
    for axes, (mode, title) in zip(
        panels,
        (("data", "whole state on each device"), ("fsdp", f"state over {_FSDP}")),
        strict=True,
    ):
        for index, (size, name) in enumerate(NAMES.items()):
            for remat, style in (("dots", "-"), ("full", "--")):
                need = Need(found, size, mode, remat)
                axes.plot(
                    batches,
                    [need.of(batch) / 1e9 for batch in batches],
                    style,
                    color=f"C{index}",
                    label=name if remat == "dots" else None,
                )
        for place, chip in enumerate(CHIPS):
            level = chip.memory / 1e9
            axes.axhline(level, color="0.75", linewidth=0.8, zorder=0)
            axes.text(
                1 + 2 * (place % 2), level * 1.03, chip.name, fontsize=7, color="0.4"
            )
        axes.set(xscale="log", yscale="log", xlabel="images a device", title=title)
        axes.set_ylim(0.3, 500)
        axes.set_xticks(batches[::2], [str(batch) for batch in batches[::2]])
    panels[0].set_ylabel("GB a device")
    panels[1].legend(
        fontsize=7,
        loc="lower right",
        title="lines: dots, dashed: full",
        title_fontsize=7,
    )
    figure.savefig(path, dpi=110)


def draw_traffic(found: Found, path: pathlib.Path) -> None:
    """What a device sends in a step of 64 images, by kind."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    panels = figure.subplots(1, 2, width_ratios=(3, 4))
    b_alone = [("vit_b", n) for n in (8, 64, 512)]
    for axes, (title, wished) in zip(
        panels,
        (
            ("ViT-B/16 on 8, 64 and 512", b_alone),
            ("on 8 devices", [(size, 8) for size in NAMES]),
        ),
        strict=True,
    ):
        ticks = []
        for place, (size, devices) in enumerate(wished):
            ticks.append(NAMES[size] if axes is panels[1] else str(devices))
            for offset, mode in enumerate(MODES):
                one = found.get(f"{size} {devices} {mode} dots 64", {})
                total = sum(one.get("wire", {}).values()) / 1e9
                axes.bar(
                    place + 0.27 * (offset - 1),
                    total,
                    0.25,
                    color=f"C{offset}",
                    label=MODES[mode] if place == 0 else None,
                )
                axes.text(
                    place + 0.27 * (offset - 1),
                    total,
                    f"{total:.1f}",
                    ha="center",
                    va="bottom",
                    fontsize=7,
                )
        axes.set_xticks(range(len(wished)), ticks)
        axes.set_title(title)
        axes.margins(y=0.12)
    panels[0].set_ylabel("GB sent a device and step")
    panels[1].legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110)


def _ratio(one: float, other: float) -> str:
    return f"{one / other:.3f}"


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _table(heads: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
