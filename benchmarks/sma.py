"""What SMA's pre-training is worth on HIGGS and on molecules, at small sizes.

    python -m benchmarks.sma --workdir runs/sma --higgs higgs_train_7k.tsv \
        --molecules molecules [--parts higgs molecules] [--tasks ESOL BBBP]
        [--seeds 0 1 2]

Three starts of the same network, with the same labels, steps and rates: pre-trained by
SMA, pre-trained with random masks (`method.scores=random`, nothing else changed), and
not pre-trained. Each is fine-tuned, the step that is best on validation rows is kept,
and the test rows are scored once. `--higgs` is HIGGS rows with the label in front;
`--molecules` a folder with MoleculeNet's HIV.csv (whose SMILES are pre-trained on, and
whose labels are not read), ESOL_delaney-processed.csv, FreeSolv_SAMPL.csv,
Lipophilicity.csv and BBBP.csv. Splits are random and ours: 80 % to train, 10 % to
choose, 10 % to test; of HIGGS 1,000 labels, 10 % and 20 %. Runs that are there are
resumed or left as they are; the last thing printed are the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib

from benchmarks.compare import launch
from benchmarks.seeds import cell

Fields = dict[str, object]
STARTS = {"SMA": "attention", "random masks": "random", "not pre-trained": None}
ONCE: Fields = {
    "log.tensorboard": False,
    "checkpoint.every": 10_000,
    "model.width": 64,
    "model.heads": 4,
}
HIGGS: Fields = {**ONCE, "model.depth": 3}
SMILES: Fields = {**ONCE, "model.depth": 2}
# name -> (file, column of the target, task, length, epochs)
MOLECULES = {
    "ESOL": (
        "ESOL_delaney-processed.csv",
        "measured log solubility in mols per litre",
        "regression",
        64,
        15,
    ),
    "FreeSolv": ("FreeSolv_SAMPL.csv", "expt", "regression", 48, 20),
    "Lipophilicity": ("Lipophilicity.csv", "exp", "regression", 80, 5),
    "BBBP": ("BBBP.csv", "p_np", "classification", 96, 6),
}
METRICS = {
    "HIGGS": ("accuracy", "roc_auc"),
    "ESOL": ("rmse",),
    "FreeSolv": ("rmse",),
    "Lipophilicity": ("rmse",),
    "BBBP": ("roc_auc",),
}
SHARES = ("accuracy", "roc_auc")


def trained(config: str, workdir: pathlib.Path, fields: Fields) -> pathlib.Path:
    """A run, made unless it is there."""
    if not (workdir / "scores.json").exists():
        words = [f"--config.{field}={value}" for field, value in fields.items()]
        launch("--config", config, "--workdir", str(workdir), *words)
    return workdir


def higgs(folder: pathlib.Path, file: pathlib.Path, seed: int) -> None:
    """Pre-trains on 70 % of the rows, fine-tunes on 1,000 labels."""
    for name, scores in STARTS.items():
        given: Fields = {**HIGGS, "data.path": file, "seed": seed}
        config = "sma_finetune_higgs"
        if scores is not None:
            run = trained(
                "sma_higgs",
                folder / f"higgs_{scores}_{seed}",
                {**given, "epochs": 15, "eval.every": 0, "method.scores": scores},
            )
            config += f":{run}"
        trained(config, place(folder, "HIGGS", name, seed), {**given, "epochs": 30})


def molecules(
    folder: pathlib.Path, files: pathlib.Path, tasks: list[str], seed: int
) -> None:
    """Pre-trains on a fifth of HIV's SMILES, fine-tunes on properties of molecules."""
    for name, scores in STARTS.items():
        config = "sma_finetune_smiles"
        if scores is not None:
            run = trained(
                "sma_smiles",
                folder / f"smiles_{scores}_{seed}",
                {
                    **SMILES,
                    "data.path": files / "HIV.csv",
                    "data.split": "train[:20%]",
                    "eval.split": "train[20%:22%]",
                    "table.length": 96,
                    "epochs": 3,
                    "eval.every": 0,
                    "method.scores": scores,
                    "seed": seed,
                },
            )
            config += f":{run}"
        for task in tasks:
            file, target, kind, length, epochs = MOLECULES[task]
            trained(
                config,
                place(folder, task, name, seed),
                {
                    **SMILES,
                    "data.path": files / file,
                    "table.target": target,
                    "table.task": kind,
                    "table.length": length,
                    "epochs": epochs,
                    "seed": seed,
                },
            )


def place(folder: pathlib.Path, task: str, start: str, seed: int) -> pathlib.Path:
    """Where a fine-tuned run lies."""
    return folder / f"{task}_{start.replace(' ', '_')}_{seed}"


def table(folder: pathlib.Path, tasks: list[str], seeds: list[int]) -> str:
    """Test scores as Markdown, means and standard errors over seeds."""
    columns = [(task, metric) for task in tasks for metric in METRICS[task]]
    lines = [
        "| start | "
        + " | ".join(f"{task} {metric}" for task, metric in columns)
        + " |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for start in STARTS:
        cells = []
        for task, metric in columns:
            found = [
                json.loads(
                    (place(folder, task, start, seed) / "scores.json").read_text()
                )
                for seed in seeds
            ]
            values = [one["trained"][metric] for one in found]
            cells.append(cell(values, 100 if metric in SHARES else 1))
        lines.append(f"| {start} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Trains what is missing, and prints a table for each part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--higgs", type=pathlib.Path, default="higgs_train_7k.tsv")
    parser.add_argument("--molecules", type=pathlib.Path, default="molecules")
    parser.add_argument("--parts", nargs="+", default=["higgs", "molecules"])
    parser.add_argument("--tasks", nargs="+", choices=MOLECULES, default=[*MOLECULES])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    # Runs differ in their seeds and masks, and compile the same programs.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(options.workdir / "jax"))
    for seed in options.seeds:
        if "higgs" in options.parts:
            higgs(options.workdir, options.higgs, seed)
        if "molecules" in options.parts:
            molecules(options.workdir, options.molecules, options.tasks, seed)
    for part, tasks in (("higgs", ["HIGGS"]), ("molecules", options.tasks)):
        if part in options.parts:
            print(f"## {part}\n\n{table(options.workdir, tasks, options.seeds)}\n")


if __name__ == "__main__":
    main()
