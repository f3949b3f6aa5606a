"""A Markdown table of scores over seeds: mean and standard error of every row.

python -m benchmarks.seeds runs/seed0/evaluation.json runs/seed1/evaluation.json
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics


def cell(values: list[float], scale: float = 100) -> str:
    """Mean ± standard error, in percent or at another scale; of one value no error."""
    mean = f"{scale * statistics.mean(values):.2f}"
    if len(values) < 2:
        return mean
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{mean} ± {scale * error:.2f}"


def table(runs: list[dict[str, dict[str, float]]]) -> str:
    """Rows in the order of the first run; every run must have every row."""
    lines = ["| features | kNN | probe |", "|---|---|---|"]
    for row in runs[0]:
        kinds = [[run[row][kind] for run in runs] for kind in ("knn", "probe")]
        lines.append(f"| {row} | {cell(kinds[0])} | {cell(kinds[1])} |")
    return "\n".join(lines)


def main() -> None:
    """Reads the files named and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    contents = [json.loads(file.read_text()) for file in parser.parse_args().files]
    print(table([one.get("scores", one) for one in contents]))


if __name__ == "__main__":
    main()
