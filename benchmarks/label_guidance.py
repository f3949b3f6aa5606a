"""MLO-MAE, its parts and its controls on CIFAR-10, at equal compute.

    python -m benchmarks.label_guidance --data cifar10.zip --workdir runs/labels \
        [--epochs 1] [--seeds 0 1 2] [--arms "MAE" "MLO-MAE"]

Every arm gets the FLOPs of so many epochs of MAE, by count, whatever of its steps is
spent on labels; one more arm is MAE for as few steps as MLO-MAE makes. Model, data,
batch, learning rate and the warm-up's share of a run are the same for all. Then each
encoder is probed, and fine-tuned with the labels of 10,000 training images, with one
recipe for all. 5,000 test images are used once for each. Runs that are there are
resumed or left as they are, so the command can be given again; the last thing it prints
is the table.
"""

from __future__ import annotations

import argparse
import json
import pathlib

from benchmarks.compare import IMAGES, launch
from benchmarks.seeds import cell
from sgmae_jax import methods
from sgmae_jax.config import load_config
from sgmae_jax.methods.base import Run

BATCH, WARM = 64, 0.1
EPOCH = IMAGES // BATCH
LABELS = 10_000  # images that encoders are fine-tuned on
# Scores are made once, after training, on test images.
ONCE: dict[str, object] = {
    "eval.every": 0,
    "eval.choose_best": False,
    "eval.baselines": False,
    "eval.fit_split": "train",
    "eval.split": "test",
    "eval.fit_limit": 5000,
    "eval.limit": 5000,
}
SHORT = "MAE for as many steps as MLO-MAE"
MASKS = "MAE, with the masks MLO-MAE learned"
# name -> (config, fields of the method)
ARMS: dict[str, tuple[str, dict[str, object]]] = {
    "MAE": ("mae", {}),
    "MLO-MAE": ("mlo_mae", {}),
    SHORT: ("mae", {}),
    "MLO-MAE, the authors' network": ("mlo_mae", {"method.masker": "flat"}),
    "its path through the head only": ("mlo_mae", {"method.paths": "head"}),
    "its direct path only": ("mlo_mae", {"method.paths": "direct"}),
    "random hypergradient": ("mlo_mae", {"method.paths": "random"}),
    "frozen random network": ("mlo_mae", {"method.paths": "none"}),
    "MAE with a supervised loss": ("supervised_mae", {}),
    MASKS: ("mae", {"mask.fn": "sgmae_jax.methods.learned_masks:learned"}),
}


def fields_of(folder: pathlib.Path, name: str, seed: int, options) -> dict[str, object]:
    """What an arm's config changes in the shipped one."""
    fields = {
        "data.path": str(options.data),
        "data.batch_size": BATCH,
        "optim.base_lr": 3e-3,
        **ARMS[name][1],
    }
    if ARMS[name][0] == "mlo_mae":
        # A short run: more outer steps than a long one needs.
        fields["method.every"] = 8
    if name == MASKS:
        fields["mask.options.run"] = str(directory(folder, "MLO-MAE", seed))
    return fields


def steps_of(name: str, fields: dict[str, object], options) -> int:
    """Steps that the budget buys."""

    def cost(method: str, fields: dict[str, object]) -> float:
        given = [(field, str(value)) for field, value in fields.items()]
        loaded = load_config(f"{method}_tiny_cifar10", given)
        run = Run(
            EPOCH, 100 * EPOCH, IMAGES, methods.frozen_networks(loaded), classes=10
        )
        built = methods.load(loaded.method.name).build(loaded, run)
        return built.flops(built.phase(0, {}))

    plain = {"data.path": str(options.data)}
    budget = options.epochs * EPOCH * cost("mae", plain)
    return round(budget / cost(ARMS[name][0], fields))


def typed(fields: dict[str, object]) -> list[str]:
    """Fields as words of the command line."""
    return [f"--config.{field}={value}" for field, value in fields.items()]


def train(folder: pathlib.Path, name: str, seed: int, options) -> pathlib.Path:
    """Pre-trains one arm with one seed; returns its run directory."""
    run = directory(folder, name, seed)
    if (run / "scores.json").exists():
        return run
    fields = fields_of(folder, name, seed, options)
    paid = "MLO-MAE" if name == SHORT else name
    steps = steps_of(paid, fields_of(folder, paid, seed, options), options)
    fields |= {
        "epochs": None,
        "steps": steps,
        "optim.warmup_epochs": round(WARM * steps / EPOCH, 4),
        "checkpoint.every": 500,
        "checkpoint.keep_period": max(steps // 4, 1),
        "log.pictures": max(steps // 4, 1),
        "seed": seed,
        **ONCE,
    }
    config = f"{ARMS[name][0]}_tiny_cifar10"
    launch("--config", config, "--workdir", str(run), *typed(fields))
    return run


def fine_tune(run: pathlib.Path | None, folder: pathlib.Path, seed: int, options):
    """Fine-tunes a run's encoder, or a fresh one; returns the run directory."""
    tuned = folder / f"{run.name if run else f'from_scratch_{seed}'}_tuned"
    if not (tuned / "scores.json").exists():
        fields = {
            "data.path": str(options.data),
            "data.split": f"train[:{LABELS}]",
            "data.batch_size": BATCH,
            "epochs": options.tuning_epochs,
            "seed": seed,
            **ONCE,
        }
        config = "finetune_tiny_cifar10" + (f":{run}" if run else "")
        launch("--config", config, "--workdir", str(tuned), *typed(fields))
    return tuned


def scores_of(run: pathlib.Path) -> dict[str, float]:
    """Scores on the test images of what a run trained."""
    return json.loads((run / "scores.json").read_text())["trained encoder"]


def directory(folder: pathlib.Path, name: str, seed: int) -> pathlib.Path:
    """Where a run lies."""
    plain = name.lower().translate(str.maketrans(" -", "__", ",'"))
    return folder / f"{plain}_{seed}"


def main() -> None:
    """Trains, fine-tunes, evaluates and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--tuning-epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=[*ARMS])
    options = parser.parse_args()
    folder = options.workdir
    found: dict[str, list[list[float | None]]] = {}
    steps: dict[str, int | None] = {}
    for seed in options.seeds:
        for name in options.arms:
            run = train(folder, name, seed, options)
            tuned = scores_of(fine_tune(run, folder, seed, options))
            scores = scores_of(run)
            row = [scores["knn"], scores["probe"], tuned["accuracy"]]
            found.setdefault(name, []).append(row)
            steps[name] = json.loads((run / "config.json").read_text())["steps"]
        scratch = scores_of(fine_tune(None, folder, seed, options))
        row = [None, None, scratch["accuracy"]]
        found.setdefault("no pre-training", []).append(row)
        steps["no pre-training"] = None
    print("| arm | steps | kNN | probe | fine-tuned |\n|---|---|---|---|---|")
    for name, rows in found.items():
        columns = zip(*rows, strict=True)
        cells = ["–" if None in column else cell(list(column)) for column in columns]
        made = f"{steps[name]:,}" if steps[name] else "–"
        print(f"| {name} | {made} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
