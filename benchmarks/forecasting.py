"""Does pre-training a forecaster help: Forecast-MAE on ten driving scenes.

    python -m benchmarks.forecasting --data scenes/ --workdir runs/forecasting \
        [--pretrain 15] [--tune 12] [--seeds 3]

One network, from Forecast-MAE's encoder and from a random start, fine-tuned alike for a
fixed number of epochs; the last step is scored, once, on windows of two scenes that
nothing else has seen. Beside them constant velocity and ridge regression. Windows
overlap and scenes are few: whether it learns, and no more. Runs that are there are
resumed or left as they are; the last thing printed is the table.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics

from benchmarks.compare import launch

SCORES = ("minADE6", "minFDE6", "MR6", "b-minFDE6", "minADE1", "minFDE1")
QUIET = {
    "checkpoint.every": 200,
    "log.tensorboard": False,
    "log.every": 24,
}


def run(config: str, folder: pathlib.Path, options, **fields: object) -> None:
    """A run of the program, unless it has ended before."""
    if (folder / "report.html").exists():
        return
    given = {**QUIET, "data.path": options.data} | fields
    words = [f"--config.{name}={value}" for name, value in given.items()]
    launch("--config", config, "--workdir", str(folder), *words)


def cell(values: list[float]) -> str:
    """Mean ± standard error."""
    mean = f"{statistics.mean(values):.3f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {statistics.stdev(values) / len(values) ** 0.5:.3f}"


def main() -> None:
    """Trains, scores and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--pretrain", type=int, default=15, help="epochs")
    parser.add_argument("--tune", type=int, default=12, help="epochs")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.seeds):
        first = options.workdir / f"forecast_mae_{seed}"
        shared = {"optim.warmup_epochs": 2, "seed": seed}
        run("forecast_mae_nuscenes", first, options, epochs=options.pretrain, **shared)
        for name, encoder in (("from scratch", ""), ("pre-trained", str(first))):
            folder = options.workdir / f"{name.replace(' ', '_')}_{seed}"
            config = f"forecast_nuscenes:{encoder}" if encoder else "forecast_nuscenes"
            run(config, folder, options, epochs=options.tune, **shared)
            scores = json.loads((folder / "scores.json").read_text())
            found.setdefault(name, []).append(scores.pop("trained forecasts"))
            # The same for every seed.
            found |= {other: [row] for other, row in scores.items()}
    print(f"| forecaster | {' | '.join(SCORES)} |")
    print("|---" * (len(SCORES) + 1) + "|")
    for name, runs in found.items():
        cells = [
            cell([one[kind] for one in runs]) if kind in runs[0] else "–"
            for kind in SCORES
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
