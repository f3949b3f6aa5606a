"""Several processes train as one does: the same masks, and losses to 1e-5."""

import json
import math
import shutil

import pytest

from sgmae_jax import methods
from tests import jobs, tiny
from tests.data.tables import rows, write_csv
from tests.fault.test_restart import GUIDED, METHODS, scorer

STEPS = 4
TABLE = {
    "data__source": "table",
    "data__split": "train[:60%]",
    "eval__split": "train[80%:]",
    "mask__ratio": 0.3,
    "model__decoder_heads": 1,
}
SCENES = {
    "data__source": "synthetic_roads",
    "motion__agents": "(8,)",
    "motion__lanes": "(32,)",
    "model__width": 64,
    "model__decoder_width": 32,
    "eval__limit": 8,
    "eval__fit_limit": 16,
    "eval__batch_size": 8,
}
OTHERS = {
    "mae": {},
    "supervised_mae": {},
    "self_guided": {
        **GUIDED,
        "data__split": "train[:64]",
        "method__begin_epoch": 0.5,
        "method__refresh": "bank",
        "method__refresh_epochs": 1,
    },
    "sma": TABLE,
    "sma_finetune": {**TABLE, "table__target": "y"},
    "forecast_mae": SCENES,
    "forecast": SCENES,
}


def fields(name, folder):
    """A tiny config of a method, and the files it needs."""
    found = {**METHODS, **OTHERS}[name] | {"method__name": name, "steps": STEPS}
    if name == "automae":
        found["method__scorer"] = scorer(folder / "scorer")
    if found.get("data__source") == "table":
        found["data__path"] = write_csv(folder / "mine.csv", rows(80))
        if name == "sma":
            found["table__ignore"] = ("y",)
    return found


def trained(folder, processes, devices, **changes):
    """Losses and mask words, step by step, of a run with masks in its metrics."""
    words = tiny.arguments(folder, **changes)
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    jobs.run(processes, devices, words, module="tests.masks_logged", **quick)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    steps = [line for line in lines if "loss" in line]
    masks = [[v for k, v in one.items() if k.startswith("mask_")] for one in steps]
    return {one["step"]: one["loss"] for one in steps}, masks


def assert_same(found, wanted, name):
    (losses, masks), (other, others) = found, wanted
    assert losses.keys() == other.keys() and len(losses) >= STEPS
    assert masks == others
    assert all(masks) == hides(name), name
    for step, value in losses.items():
        assert math.isclose(value, other[step], rel_tol=1e-5, abs_tol=1e-5), step


def hides(name):
    """Whether a method hides anything that a picture shows."""
    return name not in (
        *("finetune", "linear_probe", "segment", "sma_finetune", "forecast"),
        *("local_siamese",),
    )


def test_every_method_is_here():
    assert {**METHODS, **OTHERS}.keys() == methods.METHODS.keys()


@pytest.mark.fault(19)
def test_a_divided_run_equals_a_whole_one_and_goes_on_elsewhere(tmp_path):
    whole = trained(tmp_path / "whole", 1, 4, steps=STEPS)
    run = tmp_path / "divided"
    divided = trained(run, 2, 2, steps=STEPS, mesh__fsdp=2)
    assert_same(divided, whole, "mae")
    # From its middle, by one process with eight devices.
    shutil.rmtree(run / "checkpoints" / "4")
    assert_same(trained(run, 1, 8, steps=STEPS), whole, "mae")


@pytest.mark.fault(19)
@pytest.mark.slow
@pytest.mark.parametrize("name", [*OTHERS, *METHODS])
def test_two_processes_train_as_one(name, tmp_path):
    given = fields(name, tmp_path)
    whole = trained(tmp_path / "whole", 1, 4, **given)
    parted = trained(tmp_path / "parted", 2, 2, **given)
    assert_same(parted, whole, name)
    # One copy of the state, held by all four devices.
    sharded = trained(tmp_path / "sharded", 2, 2, **given, mesh__fsdp=4)
    assert_same(sharded, whole, name)
    scores = [tmp_path / run / "scores.json" for run in ("whole", "parted")]
    assert scores[0].exists() == scores[1].exists()
