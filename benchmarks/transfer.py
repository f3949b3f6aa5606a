"""What pre-trained encoders are worth: probes, few labels, fine-tuning, segmentation.

    python -m benchmarks.transfer --workdir runs/transfer --data cifar10.zip \
        [--parts cifar textures] [--seeds 0 1 2]

CIFAR-10: MAE is pre-trained with each seed, scored by every protocol of frozen
features, probed by LARS on crops, and fine-tuned on the labels of 10,000 training
images beside the same network from a random start, at equal steps. Textures: MAE and
self-guided MAE are pre-trained, and heads for segmentation are trained on 2,000
labelled images, on frozen tokens and with the encoder tuned, and from a random start.
Choices (k, best step) are made on training images held out for them; the test images
are used once for each row. Runs that are there are resumed or left as they are; the
last thing printed are the tables.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable, Iterable

from benchmarks.compare import launch
from sgmae_jax.analysis.comparison import compare, markdown, read_result

Fields = dict[str, object]
LABELS = 10_000
ONCE: Fields = {"eval.baselines": False, "log.tensorboard": False}
PRETRAINED: Fields = {"eval.every": 0, "log.pictures": 0, **ONCE}
# Six epochs of CIFAR-10 in small batches, which go further in few epochs.
CIFAR: Fields = {
    "epochs": 6,
    "data.batch_size": 64,
    "optim.base_lr": 3e-3,
    "optim.warmup_epochs": 0.6,
    **PRETRAINED,
}
PROTOCOLS: Fields = {
    "eval.fit_split": "train[:95%]",
    "eval.validation_split": "train[95%:]",
    "eval.split": "test",
    "eval.fit_limit": LABELS,
    "eval.limit": 10_000,
    "eval.neighbours": (5, 10, 20, 50, 100),
}
# How a head is trained; rates chosen on training images held out, seed 0.
SEGMENTERS: dict[str, Fields] = {
    "linear_frozen": {},
    "linear_tuned": {"method.frozen": False, "optim.base_lr": 1.6e-2},
    "upernet_frozen": {"method.head": "upernet", "optim.base_lr": 1.6e-2},
}


class Bench:
    """Runs of one seed in one folder; each is made once.

    Args:
        folder: where run directories lie.
        data: CIFAR-10, as the shipped configs take it.
        seed: of every run.
    """

    def __init__(self, folder: pathlib.Path, data: str, seed: int):
        self._folder, self._data, self._seed = folder, data, seed

    def path(self, name: str) -> pathlib.Path:
        """Where a run of this seed lies."""
        return self._folder / f"{name}_{self._seed}"

    def run(self, name: str, config: str, fields: Fields, *, cifar: bool) -> str:
        """Trains, unless that is done; returns the run directory."""
        workdir = self.path(name)
        if not (workdir / "scores.json").exists():
            given = {**fields, "seed": self._seed}
            if cifar:
                given["data.path"] = self._data
            self._launch(config, workdir, given)
        return str(workdir)

    def evaluate(self, run: str, fields: Fields) -> None:
        """Scores a run by every protocol, unless that is done."""
        if not pathlib.Path(run, "evaluation.json").exists():
            given = {**fields, "data.path": self._data, "eval.baselines": True}
            self._launch(f"evaluate:{run}", pathlib.Path(run), given)

    def _launch(self, config: str, workdir: pathlib.Path, fields: Fields) -> None:
        words = [f"--config.{field}={value}" for field, value in fields.items()]
        launch("--config", config, "--workdir", str(workdir), *words)


def cifar(bench: Bench) -> Iterable[str]:
    """Probes, few labels and fine-tuning of one seed's MAE encoder."""
    encoder = bench.run("cifar", "mae_tiny_cifar10", CIFAR, cifar=True)
    bench.evaluate(encoder, PROTOCOLS)
    yield encoder
    labelled = {"data.split": f"train[:{LABELS}]", **ONCE}
    probe = f"linear_probe_tiny_cifar10:{encoder}"
    yield bench.run("probe", probe, {**labelled, "epochs": 20}, cifar=True)
    for name, given in (("tuned", f":{encoder}"), ("scratch", "")):
        config = f"finetune_tiny_cifar10{given}"
        yield bench.run(name, config, labelled, cifar=True)


def textures(bench: Bench) -> Iterable[str]:
    """Segmentation by one seed's encoders, under both heads, frozen and tuned."""
    longer = {"epochs": 4, **PRETRAINED}
    starts = {
        "random": bench.run("random", "quickstart", longer, cifar=False),
        "guided": bench.run("guided", "self_guided_textures", longer, cifar=False),
        "untrained": "",
    }
    for kind, encoder in starts.items():
        config = "segment_textures" + (f":{encoder}" if encoder else "")
        for name, fields in SEGMENTERS.items():
            given = {**fields, **ONCE}
            yield bench.run(f"{kind}_{name}", config, given, cifar=False)


PARTS: dict[str, Callable[[Bench], Iterable[str]]] = {
    "cifar": cifar,
    "textures": textures,
}


def main() -> None:
    """Trains what is missing, and prints a table for each part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--data", default="cifar10.zip")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    for part in options.parts:
        runs: list[str] = []
        for seed in options.seeds:
            runs += PARTS[part](Bench(options.workdir, options.data, seed))
        results = [read_result(pathlib.Path(run)) for run in runs]
        print(f"## {part}\n\n{markdown(*compare(results))}", flush=True)


if __name__ == "__main__":
    main()
