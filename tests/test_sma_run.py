"""Runs on tables and texts from the command line: whole, torn, wrong, and handed on."""

import json
import random
import re
import signal

import numpy as np
import pytest

from sgmae_jax.config import load_config
from sgmae_jax.main import main
from tests import tiny
from tests.conftest import REPOSITORY, quickly
from tests.data.tables import rows, write_csv
from tests.fault.test_restart import interrupted

SMALL = {
    "method__name": "sma",
    "data__source": "table",
    "data__split": "train[:60%]",
    "eval__split": "train[80%:]",
    "mask__ratio": 0.3,
    "model__decoder_heads": 1,
}
CHOOSING = {
    "method__name": "sma_finetune",
    "eval__validation_split": "train[60%:80%]",
    "eval__choose_best": True,
    "eval__every": 2,
    "table__target": "y",
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_csv(tmp_path_factory.mktemp("data") / "mine.csv", rows(80))


@pytest.fixture(scope="module")
def pretrained(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "pretrained"
    given = {**SMALL, "data__path": table, "table__ignore": ("y",), "steps": 4}
    with quickly():
        assert main(tiny.arguments(folder, **given, log__pictures=4)) == 0
    return folder


def test_a_run_knows_its_columns_for_ever(pretrained):
    scores = json.loads((pretrained / "scores.json").read_text())
    assert np.isfinite(scores["trained"]["reconstruction"])
    assert list((pretrained / "pictures").glob("reconstruction_*.png"))
    assert "reconstruction" in (pretrained / "report.html").read_text()
    meta = next((pretrained / "checkpoints" / "4").rglob("meta*"), None)
    assert meta is not None


@pytest.mark.usefixtures("quick_compilation")
def test_fine_tuning_from_it_and_scoring_again(pretrained, table, tmp_path, capsys):
    given = {**SMALL, **CHOOSING, "data__path": table, "steps": 4}
    run = tmp_path / "tuned"
    words = tiny.arguments(
        run, **given, method__encoder=pretrained, eval__baselines=True
    )
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "validation: roc_auc" in said and "best on train[60%:80%]" in said
    scores = json.loads((run / "scores.json").read_text())
    assert list(scores) == ["constant", "untrained", "trained"]
    assert set(scores["trained"]) == {"roc_auc", "accuracy"}
    # The run is all that is needed to score it again, on its own rows or on others.
    words = ["--config", f"evaluate:{run}", "--workdir", str(tmp_path / "again")]
    assert main([*words, f"--config.data.path={table}"]) == 0
    again = json.loads((tmp_path / "again" / "evaluation.json").read_text())
    assert again["scores"]["trained"] == scores["trained"]
    words = ["--config", f"export:{run}", "--workdir", str(tmp_path / "out")]
    assert main(words) == 0
    card = json.loads((tmp_path / "out" / "export" / "card.json").read_text())
    assert card["facts"]["target"]["classes"] == ["0", "1"]
    assert card["config"]["model.width"] == 24
    words = ["--config", f"export:{run}", "--workdir", str(tmp_path / "no")]
    assert main([*words, "--config.weights.format=timm"]) == 2
    assert "config.weights.format = 'timm': must be 'ours'" in capsys.readouterr().err
    assert main(["--config", f"analyze:{run}", "--workdir", str(tmp_path / "a")]) == 2
    assert "must be asked of a run on images" in capsys.readouterr().err


def test_the_readme_s_two_lines_are_a_config_for_a_table(tmp_path):
    text = (REPOSITORY / "README.md").read_text()
    blocks = re.findall(r"```python\n(.+?)```", text, re.DOTALL)
    (block,) = [block for block in blocks if "get_config" in block]
    (tmp_path / "my_table.py").write_text(block)
    config = load_config(str(tmp_path / "my_table.py"))
    assert config.data.path == "my_table.csv" and config.table.ignore == ("id",)
    assert config.method.name == "sma" and config.method.mask_self


# Shrunk, the others compile what these and the runs above do.
SHIPPED = [
    "sma_higgs",
    "sma_finetune_smiles",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("sma_table", "sma_smiles", "sma_finetune_higgs")
    ),
]


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_takes_a_step(name, tmp_path):
    rng = np.random.default_rng(0)
    if "smiles" in name:
        made = [["CC(=O)N" * (1 + i % 3), f"{rng.normal():.2f}"] for i in range(100)]
        path = write_csv(tmp_path / "m.csv", made, header=("smiles", "target"))
    else:
        made = [[str(i % 2), *map(str, rng.normal(size=28))] for i in range(100)]
        path = write_csv(tmp_path / "h.csv", made, header=[f"c{i}" for i in range(29)])
        if "higgs" in name:
            path = write_csv(tmp_path / "h.csv", made, header=None)
    small = {
        "data.path": path,
        "data.split": "train[:70%]",
        "epochs": None,
        "steps": 1,
        "data.batch_size": 8,
        "model.width": 16,
        "model.heads": 2,
        "model.depth": 1,
        "optim.warmup_epochs": 0,
        "eval.every": 1,
        "eval.batch_size": 32,
        "log.tensorboard": False,
    }
    words = ["--config", name, "--workdir", str(tmp_path / "run")]
    words += [f"--config.{field}={value}" for field, value in small.items()]
    words += ["--config.eval.split=train[90%:]"]
    assert main(words) == 0
    assert np.isfinite(tiny.losses(tmp_path / "run")[1])


def test_an_encoder_of_other_columns_is_refused(pretrained, tmp_path, capsys):
    other = write_csv(
        tmp_path / "other.csv", rows(40), header=("a", "b", "weight", "y")
    )
    given = {**SMALL, **CHOOSING, "data__path": other, "method__encoder": pretrained}
    assert main(tiny.arguments(tmp_path / "run", **given)) == 2
    error = capsys.readouterr().err
    assert "must have been trained on the same columns" in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("quick_compilation")
def test_texts_are_regressed_with_patience(tmp_path, capsys):
    rng = np.random.default_rng(0)
    made = [["C" * (1 + i % 9) + "O", f"{i % 9 + rng.normal():.2f}"] for i in range(80)]
    path = write_csv(tmp_path / "m.csv", made, header=("smiles", "y"))
    given = {
        **SMALL,
        **CHOOSING,
        "data__source": "text",
        "data__path": path,
        "table__text": "smiles",
        "table__length": 12,
        "table__task": "regression",
        "eval__patience": 1,
        "eval__every": 1,
        "optim__base_lr": 1e-30,
        "steps": 8,
    }
    assert main(tiny.arguments(tmp_path / "run", **given)) == 0
    assert "nothing better on train[60%:80%]" in capsys.readouterr().out
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert set(scores["trained"]) == {"rmse", "spearman"}


@pytest.mark.slow
def test_killed_and_going_on_is_bit_equal(table, tmp_path):
    given = {**SMALL, "data__path": table, "method__random_start": 1.0, "steps": 20}
    given |= {"table__ignore": ("y",), "method__head_mix": "random_mix"}
    code, output = tiny.run(tmp_path / "whole", **given, eval__limit=1)
    assert code == 0, output
    steps, rng = given.pop("steps"), random.Random(3)
    torn = tmp_path / "torn"
    assert interrupted(torn, 1, rng, signal.SIGKILL, steps, **given) == 1
    assert tiny.losses(torn) == tiny.losses(tmp_path / "whole")
    scores = [(run / "scores.json").read_text() for run in (torn, tmp_path / "whole")]
    assert scores[0] == scores[1]


# what is put into which cell (or how the file is spoilt), options, words of the error
BAD = {
    "ragged": (lambda r: r[5].pop(), {}, "mine.csv, row 7: has 3 cells"),
    "no number": (
        lambda r: r[5].__setitem__(0, "?!"),
        {},
        "mine.csv, row 7, column 'size': '?!' is no number",
    ),
    "nan": (lambda r: r[5].__setitem__(0, "nan"), {}, "row 7, column 'size': 'nan'"),
    "inf": (lambda r: r[5].__setitem__(0, "-inf"), {}, "column 'size': '-inf' is not"),
    "empty": (lambda r: r.clear(), {}, "mine.csv: is empty, it has no rows"),
    "no column": (
        lambda r: None,
        {"table__target": "label", "table__ignore": ()},
        "mine.csv: has no column 'label' (table.target)",
    ),
    "no such ignored": (
        lambda r: None,
        {"table__ignore": ("colours",)},
        "(table.ignore); did you mean 'colour'?",
    ),
    "too many words": (
        lambda r: [row.__setitem__(1, f"w{i}") for i, row in enumerate(r)],
        {"table__max_categories": 5},
        "column 'colour' has 48 different words",
    ),
    "too long": (
        lambda r: r[5].__setitem__(1, "x" * 50),
        {"data__source": "text", "table__text": "colour", "table__length": 16},
        "mine.csv, row 7, column 'colour': has 50 bytes, table.length = 16",
    ),
    "shared rows": (
        lambda r: None,
        {"eval__split": "train[50%:]"},
        "must share no item with",
    ),
    "no test file": (lambda r: None, {"eval__split": "test"}, "table.test_path"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_one_line_before_training(case, tmp_path, capsys):
    spoil, options, words = BAD[case]
    made = rows(80)
    spoil(made)
    path = write_csv(tmp_path / "mine.csv", made)
    given = {**SMALL, "data__path": path, "table__ignore": ("y",), **options}
    assert main(tiny.arguments(tmp_path / "run", **given)) == 2
    error = capsys.readouterr().err
    assert words in error and error.startswith("error: ") and error.count("\n") == 1


def test_an_unseen_category_of_a_test_row_is_known_before_training(tmp_path, capsys):
    made = rows(10, seed=1)
    made[2][1] = "violet"
    test = write_csv(tmp_path / "test.csv", made)
    path = write_csv(tmp_path / "mine.csv", rows(80))
    given = {
        **SMALL,
        "data__path": path,
        "table__test_path": test,
        "eval__split": "test",
    }
    assert main(tiny.arguments(tmp_path / "run", **given)) == 2
    error = capsys.readouterr().err
    assert "test.csv, row 4, column 'colour': 'violet' is no category" in error
    assert error.count("\n") == 1
