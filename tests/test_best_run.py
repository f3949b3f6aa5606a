"""Runs that keep their best step: chosen on validation, scored once on the test set."""

import itertools
import json
import shutil

import numpy as np
import pytest

from sgmae_jax.main import main
from tests.tiny import arguments

CHOOSING = {
    "method__name": "finetune",
    "eval__every": "2",
    "eval__choose_best": "True",
    "eval__validation_split": "train[19900:]",
    "eval__protocols": "knn",
    "data__split": "train[:320]",
    # So that the score goes up and down.
    "optim__base_lr": "1.0",
}


def validation(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    return {
        line["step"]: line["eval/validation"]
        for line in lines
        if "eval/validation" in line
    }


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    run = tmp_path_factory.mktemp("chosen") / "run"
    assert main(arguments(run, **CHOOSING)) == 0
    return run


def best_of(run):
    return max(int(folder.name) for folder in (run / "best").iterdir())


def test_the_first_of_the_best_steps_is_kept_and_scored(chosen, tmp_path):
    found = validation(chosen)
    assert sorted(found) == [2, 4, 6, 8]
    best = best_of(chosen)
    assert best == min(step for step in found if found[step] == max(found.values()))
    scores = json.loads((chosen / "scores.json").read_text())["trained encoder"]
    assert set(scores) == {"knn", "accuracy"}
    # What is evaluated and exported later is that step, too.
    words = ["--config", f"evaluate:{chosen}", "--workdir", str(tmp_path)]
    assert main([*words, "--config.eval.protocols=knn"]) == 0
    again = json.loads((tmp_path / "evaluation.json").read_text())
    assert again["step"] == best and again["scores"]["trained encoder"] == scores


def test_while_it_trains_the_test_images_are_not_looked_at(chosen):
    lines = [json.loads(line) for line in (chosen / "metrics.jsonl").open()]
    asked = {line["step"] for line in lines if "eval/knn" in line}
    assert asked == {8}


@pytest.mark.parametrize("step", [4, 8])
def test_a_run_that_ended_before_its_offer_makes_it_when_it_goes_on(
    chosen, tmp_path, step
):
    torn = tmp_path / "torn"
    shutil.copytree(chosen, torn)
    for kind in ("checkpoints", "best"):
        for folder in (torn / kind).iterdir():
            if int(folder.name) > step - (kind == "best"):
                shutil.rmtree(folder)
    assert main(arguments(torn, **CHOOSING)) == 0
    assert best_of(torn) == best_of(chosen)
    assert validation(torn) == validation(chosen)
    names = ("scores.json",)
    assert all((torn / n).read_text() == (chosen / n).read_text() for n in names)


def test_a_run_without_patience_left_ends_early_and_stays_ended(tmp_path, capsys):
    patient = {**CHOOSING, "steps": 40, "eval__patience": 1, "checkpoint__every": 3}
    assert main(arguments(tmp_path, **patient)) == 0
    found = validation(tmp_path)
    best, last = best_of(tmp_path), max(found)
    assert last == best + 2 < 40 and found[last] <= found[best]
    earlier = [step for step in found if step < last]
    assert all(found[b] > found[a] for a, b in itertools.pairwise(earlier))
    assert f"ended at step {last}" in capsys.readouterr().out
    scores = (tmp_path / "scores.json").read_text()
    assert main(arguments(tmp_path, **patient)) == 0
    assert validation(tmp_path) == found
    assert (tmp_path / "scores.json").read_text() == scores


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval__validation_split": "None"}, "must go with an eval.validation_split"),
        ({"eval__validation_split": "test[:50]"}, "must share no item with eval"),
        ({"eval__validation_split": "test"}, "must share no item with eval.split"),
        ({"method__name": "mae"}, "must be left to methods with a head of their own"),
        ({"eval__patience": 1, "eval__every": 0}, "must go with eval.every > 0"),
        ({"eval__patience": 1, "eval__choose_best": False}, "with eval.choose_best"),
        ({"eval__neighbours": "(5,5)"}, "several different ones"),
    ],
)
def test_what_does_not_go_together_is_one_line(tmp_path, capsys, changes, message):
    assert main(arguments(tmp_path / "run", **{**CHOOSING, **changes})) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_several_k_need_a_validation_split_to_choose_on(tmp_path, capsys):
    words = arguments(tmp_path / "run", eval__neighbours="(5,20)")
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "eval.neighbours" in error and "validation_split" in error
    words = arguments(
        tmp_path / "run",
        eval__neighbours="(5,20)",
        eval__validation_split="train[19950:]",
        steps=2,
    )
    assert main(words) == 0
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    row = scores["trained encoder"]
    assert set(row) == {"knn", "knn@5", "knn@20", "probe"}
    assert row["knn"] in (row["knn@5"], row["knn@20"]) and np.isfinite(row["knn"])
