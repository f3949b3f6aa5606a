"""The plots of docs/scaling.md."""

from __future__ import annotations

import pathlib

from benchmarks.scaling_chips import CHIPS
from benchmarks.scaling_model import FSDP, MODES, NAMES, Found, Need


def draw_memory(found: Found, path: pathlib.Path) -> None:
    """Memory of a device over its batch, one panel a way to keep the state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    batches = [2**n for n in range(11)]
    for axes, (mode, title) in zip(
        panels,
        (("data", "whole state on each device"), ("fsdp", f"state over {FSDP}")),
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
