"""All ratios of docs/performance.md by one command, and their table.

    python -m benchmarks.run --out docs/performance.json [--only step] [--images DIR]
    python -m benchmarks.run --out docs/performance.json --table

Each benchmark runs in a process of its own, one after the other. Its lines replace
those that the file held of it, so that a part can be measured again alone. A benchmark
that lacks something (PyTorch, the authors' repository) says what it skipped.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from sgmae_jax import huge_pages

# name -> what follows `python -m benchmarks.`
PARTS = {
    "step": "step --full",
    "masks": "masks --full",
    "guidance": "guidance --full --rounds 5",
    "methods": "methods --full",
    "outer_step": "outer_step --full --rounds 5",
    "memory": "memory",
    "overheads": "overheads --full",
    "start": "start --full --rounds 3",
    "input": "input --count 384 --rounds 5",
    "evaluation": "evaluation",
    "trace": "trace --full",
}
ROWS = {
    1: "step at 75 % masking / at 0 %",
    2: "model FLOPs over the accelerator's peak",
    3: "our step / the authors' PyTorch step",
    4: "our step / a bare hand-written JAX step",
    5: "random masks / fixed masks",
    6: "self-guided step / random-mask step",
    7: "eigenvector by Lanczos / dense eigh",
    8: "a mask an example / a mask a batch",
    9: "MLO-MAE's step / MAE's step",
    10: "methods with a teacher / MAE",
    11: "scanned layers / unrolled layers",
    12: "recomputation: time and memory",
    13: "bfloat16 / float32",
    14: "attention by cuDNN / by XLA",
    15: "state given up / kept",
    16: "a batch from the loader / a step",
    17: "training with / without metrics, EMA, writer, guard",
    18: "the longest step during a save / the median step",
    19: "eight devices / one: masks and losses",
    20: "start of the program",
    21: "closed-form probe / probe by LARS",
    22: "compilations / buckets of a moving mask ratio",
}
# The widest that a processor says it has; virtual machines give many the same name.
VECTORS = {
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX-512 with bfloat16",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
}
CPUINFO = pathlib.Path("/proc/cpuinfo")
PACKAGES = "jax jaxlib flax optax numpy torch timm grain tensorflow-datasets".split()


def environment() -> dict[str, Any]:
    """What the numbers depend on beside the code."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": found,
    }


def _processor() -> str:
    try:
        text = CPUINFO.read_text()
    except OSError:
        return platform.processor()
    facts = [line.partition(":") for line in text.splitlines()]
    first = {key.strip(): value.strip() for key, _, value in reversed(facts)}
    name = first.get("model name", platform.processor())
    flags = first.get("flags", "").split()
    widest = [said for flag, said in VECTORS.items() if flag in flags]
    return ", ".join([name, *widest[:1]])


def measure(name: str, more: Sequence[str] = ()) -> dict[str, Any]:
    """Runs one benchmark, showing what it prints; its JSON lines and how it ended.

    Args:
        name: of `PARTS`.
        more: words behind its own, which depend on the machine.
    """
    words = [sys.executable, "-m", *f"benchmarks.{PARTS[name]}".split(), *more]
    lines, skipped = [], []
    # As the program itself starts.
    env = huge_pages.environment(os.environ)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env) as child:
        for line in child.stdout or ():
            print(line, end="", flush=True)
            if line.startswith("skipped: "):
                skipped.append(line.removeprefix("skipped: ").strip())
            elif line.startswith("{"):
                lines.append(json.loads(line))
    return {
        "command": f"python -m benchmarks.{PARTS[name]}",
        "exit": child.returncode,
        "environment": environment(),
        "lines": lines,
        "skipped": skipped,
    }


def table(parts: dict[str, Any]) -> str:
    """The ratios as markdown, in the order of the rows; a row without any says so.

    The last column counts the machines that the parts were run on; they are named
    below.
    """
    made = [
        "| # | ratio | size | median | quartiles | by FLOPs | target | met | on |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    machines: list[str] = []
    lines = []
    for part in parts.values():
        machine = _machine(part["environment"])
        if machine not in machines:
            machines.append(machine)
        number = 1 + machines.index(machine)
        # Without a ratio: what explains them.
        lines += [(number, line) for line in part["lines"] if "ratio" in line]
    for row, title in ROWS.items():
        own = [(number, line) for number, line in lines if line.get("row") == row]
        if not own:
            made.append(f"| {row} | {title} | | not measured | | | | | |")
        made += [
            f"| {row} | {line['ratio']} | {_cells(line)} | {number} |"
            for number, line in own
        ]
    named = [f"{number}: {name}" for number, name in enumerate(machines, 1)]
    return "\n".join([*made, "", "; ".join(named) + "."])


def _machine(environment: dict[str, Any]) -> str:
    return f"{environment['cores']} cores of {environment['processor']}"


def _cells(line: dict[str, Any]) -> str:
    by_flops, target = line["by_flops"], line["target"]
    if isinstance(target, list):
        target = " to ".join(f"{bound:.2f}" for bound in target)
    elif target is not None:
        target = f"{target:.2f}"
    met = {True: "yes", False: "**no**", None: ""}[line["met"]]
    cells = (
        size_of(line),
        f"{line['median']:.2f}",
        " – ".join(f"{value:.2f}" for value in line["quartiles"]),
        "" if by_flops is None else f"{by_flops:.2f}",
        target or "",
        met,
    )
    return " | ".join(cells)


def size_of(line: dict[str, Any]) -> str:
    """What was measured, as a reader would say it: "224 px, 192x12, batch 8"."""
    said = []
    if sizes := line.get("sizes"):
        said.append(f"{sizes['image']} px, {sizes['width']}x{sizes['depth']}")
    if "batch" in line:
        said.append(f"batch {line['batch']}")
    if "width" in line:
        said.append(f"width {line['width']}")
    if "tokens" in line:
        said.append(f"{line['tokens']} tokens, {line['steps']} steps")
    if "size" in line:
        said.append(line["size"])
    if "workers" in line:
        said.append(f"workers: {line['workers']}, {line['clock']} time")
    if "bytes_ratio" in line:
        said.append(f"bytes {line['bytes_ratio']:.2f}")
    if "masks_equal" in line:
        said.append("masks equal" if line["masks_equal"] else "masks differ")
        said.append(f"losses by {line['loss_difference']:.0e}")
    return ", ".join(said)


def main() -> None:
    """Measures, or prints the table of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--images", help="folder of JPEGs for the input")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    parts = json.loads(options.out.read_text()) if options.out.exists() else {}
    if not options.table:
        for name in options.only:
            own = name == "input" and options.images
            parts[name] = measure(name, ["--images", options.images] if own else [])
            options.out.write_text(json.dumps(parts, indent=1) + "\n")
    print(table(parts))


if __name__ == "__main__":
    main()
