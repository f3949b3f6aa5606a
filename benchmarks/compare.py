"""Teachers and learned masks beside MAE on CIFAR-10, at equal compute.

    python -m benchmarks.compare --data cifar10.zip --workdir runs/compare \
        [--epochs 4] [--seeds 2]

Every arm gets the FLOPs of so many epochs of MAE, by count: a method whose step costs
more makes fewer steps. Model, data, learning rate and the warm-up's share of a run are
the same for all; everything else is the arm's shipped CIFAR-10 config. The test images
are used once, after training. Runs that are there are resumed or left as they are, so
the command can be given again; the last thing it prints is the table.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys

from benchmarks.seeds import cell
from sgmae_jax import methods
from sgmae_jax.config import load_config
from sgmae_jax.methods.base import Run

# Images that are trained on, 95 % of 50,000; and steps an epoch of 256 of them.
IMAGES, EPOCH = 47_500, 185
WARM = 0.1
# name -> (config, share of the budget, the arm whose encoder is the first stage)
ARMS = {
    "MAE": ("mae", 1.0, None),
    "RC-MAE": ("rc_mae", 1.0, None),
    "dBOT": ("dbot", 1.0, None),
    "CL-MAE": ("cl_mae", 1.0, None),
    "first stage": ("mae", 0.5, None),
    "AutoMAE, first stage counted": ("automae", 0.5, "first stage"),
    "AutoMAE, first stage given": ("automae", 1.0, "MAE"),
}
# The rows of an evaluation that are shown for each arm.
ROWS = {
    "trained encoder": "",
    "trained teacher": ", teacher",
    "trained student": ", student",
}


def step_flops(config: str, data: pathlib.Path) -> float:
    """FLOPs of a step for one image, the mean over a run."""
    loaded = load_config(config, [("data.path", str(data))])
    length = 1000
    run = Run(EPOCH, length, IMAGES, methods.frozen_networks(loaded))
    method = methods.load(loaded.method.name).build(loaded, run)
    costs = [method.flops(method.phase(step, {})) for step in range(length)]
    return sum(costs) / length


def launch(*words: str) -> None:
    """A task of the program in a process of its own; its failure ends this one."""
    subprocess.run([sys.executable, "-m", "sgmae_jax.main", *words], check=True)


def train(folder: pathlib.Path, name: str, seed: int, options) -> pathlib.Path:
    """One arm, one seed; returns its run directory."""
    method, share, first = ARMS[name]
    config = f"{method}_tiny_cifar10"
    if first:
        config += f":{directory(folder, first, seed)}"
    budget = (
        share * options.epochs * EPOCH * step_flops("mae_tiny_cifar10", options.data)
    )
    steps = round(budget / step_flops(config, options.data))
    stages = 2 if method == "dbot" else 1
    fields = {
        "data.path": options.data,
        "epochs": None,
        "steps": steps,
        "optim.warmup_epochs": round(WARM * steps / stages / EPOCH, 4),
        "checkpoint.every": EPOCH,
        "eval.every": 0,
        "eval.baselines": False,
        "eval.fit_limit": 1000,
        "eval.limit": 1000,
        "log.pictures": max(steps // 4, 1),
        "seed": seed,
    }
    run = directory(folder, name, seed)
    if not (run / "scores.json").exists():
        words = [f"--config.{field}={value}" for field, value in fields.items()]
        launch("--config", config, "--workdir", str(run), *words)
    return run


def evaluate(run: pathlib.Path, options) -> dict[str, dict[str, float]]:
    """Scores on the test images, fitted on 10,000 training images."""
    written = run / "evaluation.json"
    if not written.exists():
        launch(
            "--config",
            f"evaluate:{run}",
            "--workdir",
            str(run),
            f"--config.data.path={options.data}",
            "--config.eval.fit_split=train",
            "--config.eval.split=test",
            "--config.eval.fit_limit=10000",
            "--config.eval.limit=10000",
            f"--config.eval.baselines={run.name.startswith('mae_')}",
        )
    return json.loads(written.read_text())["scores"]


def directory(folder: pathlib.Path, name: str, seed: int) -> pathlib.Path:
    """Where a run lies."""
    plain = name.lower().replace(", ", "_").replace(" ", "_").replace("-", "_")
    return folder / f"{plain}_{seed}"


def main() -> None:
    """Trains, evaluates and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {}
    steps: dict[str, int] = {}
    for seed in range(options.seeds):
        for name in ARMS:
            run = train(options.workdir, name, seed, options)
            if name == "first stage":
                continue
            made = json.loads((run / "config.json").read_text())["steps"]
            for row, scores in evaluate(run, options).items():
                label = name + ROWS[row] if row in ROWS else row
                found.setdefault(label, []).append(scores)
                steps[label] = made if row in ROWS else 0
    print("| features | steps | kNN | probe |\n|---|---|---|---|")
    for label, runs in found.items():
        kinds = [[one[kind] for one in runs] for kind in ("knn", "probe")]
        made = f"{steps[label]:,}" if steps[label] else "–"
        print(f"| {label} | {made} | {cell(kinds[0])} | {cell(kinds[1])} |")


if __name__ == "__main__":
    main()
