"""The table of runs: who is one row, what is best, and what cannot be compared."""

import json
import math

import pytest

from sgmae_jax.analysis.comparison import (
    compare,
    markdown,
    read_result,
    write_comparison,
)
from sgmae_jax.main import main

CONFIG = {
    "method.name": "mae",
    "mask.ratio": 0.75,
    "seed": 0,
    "log.every": 20,
    "eval.split": "test",
}


def run(folder, name, scores, *, evaluation=None, **changes):
    """A run directory; `a__b=value` changes the config."""
    path = folder / name
    path.mkdir()
    fields = {key.replace("__", "."): value for key, value in changes.items()}
    (path / "config.json").write_text(json.dumps({**CONFIG, **fields}))
    (path / "scores.json").write_text(json.dumps(scores))
    if evaluation:
        (path / "evaluation.json").write_text(json.dumps(evaluation))
    return path


def trained(knn, **others):
    return {"trained encoder": {"knn": knn, **others}}


def test_runs_that_differ_in_seed_are_one_row_with_an_error(tmp_path):
    paths = [
        run(tmp_path, f"a_{seed}", trained(value), seed=seed, log__every=seed + 1)
        for seed, value in enumerate((0.2, 0.4, 0.6))
    ]
    lines, notes = compare([read_result(path) for path in paths])
    (line,) = lines
    assert line.label == "mae" and line.runs == ("a_0", "a_1", "a_2")
    assert line.scores["knn"] == pytest.approx(0.4)
    assert line.scores["knn error"] == pytest.approx(0.2 / math.sqrt(3))
    assert notes == []


def test_what_sets_runs_apart_is_their_label(tmp_path):
    paths = [
        run(tmp_path, "a", trained(0.2)),
        run(tmp_path, "b", trained(0.4), mask__ratio=0.5),
        run(tmp_path, "c", trained(0.3), method__name="rc_mae", method__momentum=0.9),
    ]
    lines, _ = compare([read_result(path) for path in paths])
    assert [line.label for line in lines] == [
        "mae, ratio 0.75",
        "mae, ratio 0.5",
        "rc_mae",
    ]


def test_encoders_of_other_seeds_are_repetitions_and_none_is_from_scratch(tmp_path):
    tuned = {"method__name": "finetune"}
    paths = [
        run(tmp_path, f"t{i}", trained(0.1 * i), **tuned, method__encoder=name, seed=i)
        for i, name in enumerate(("mae_0", "mae_1", "guided_0", ""))
    ]
    lines, _ = compare([read_result(path) for path in paths])
    assert [(line.label, len(line.runs)) for line in lines] == [
        ("finetune of mae", 2),
        ("finetune of guided", 1),
        ("finetune of a random start", 1),
    ]


def test_an_evaluation_goes_before_the_scores_of_the_run(tmp_path):
    found = {"step": 4, "scores": trained(0.9), "config": {**CONFIG, "eval.split": "x"}}
    path = run(tmp_path, "a", trained(0.1), evaluation=found)
    result = read_result(path)
    assert result.scores == trained(0.9) and result.step == 4
    assert result.config["eval.split"] == "x"


def test_scores_of_other_images_are_told_apart(tmp_path):
    paths = [
        run(tmp_path, "a", trained(0.2)),
        run(tmp_path, "b", trained(0.4), eval__split="train"),
    ]
    lines, notes = compare([read_result(path) for path in paths])
    assert len(lines) == 2 and notes == ["eval.split differs: test, train"]
    assert "eval.split differs" in markdown(lines, notes)


def test_a_field_of_a_later_version_sets_no_run_apart(tmp_path):
    later = {"weights__format": "ours", "model__norm_eps": 1e-6}
    paths = [
        run(tmp_path, "a", trained(0.2)),
        run(tmp_path, "b", trained(0.4), seed=1, **later),
    ]
    (line,), notes = compare([read_result(path) for path in paths])
    assert line.label == "mae" and len(line.runs) == 2 and not notes


def test_baselines_are_shown_once_and_below(tmp_path):
    both = {"raw pixels": {"knn": 0.1}, **trained(0.2)}
    paths = [run(tmp_path, "a", both), run(tmp_path, "b", both, mask__ratio=0.5)]
    lines, _ = compare([read_result(path) for path in paths])
    assert [line.label for line in lines] == [
        "mae, ratio 0.75",
        "mae, ratio 0.5",
        "raw pixels",
    ]


def test_the_files_say_the_same_and_the_best_is_marked(tmp_path):
    paths = [
        run(tmp_path, "a", trained(0.25, probe=0.5)),
        run(tmp_path, "b", trained(0.125, accuracy=1.0), mask__ratio=0.5),
    ]
    table, page = write_comparison([read_result(path) for path in paths], tmp_path)
    assert (tmp_path / "comparison.md").read_text() == table
    rows = [
        [cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()
    ]
    assert rows[0] == ["run", "runs", "features", "kNN", "probe", "own head"]
    assert rows[2] == ["mae, ratio 0.75", "1", "encoder", "**25.00**", "50.00", "–"]
    assert rows[3] == ["mae, ratio 0.5", "1", "encoder", "12.50", "–", "100.00"]
    text = page.read_text()
    assert ">25.00<" in text and ">12.50<" in text and str(tmp_path) not in text
    assert "<script" not in text and "http" not in text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no evaluation.json, scores.json or card.json"),
        ({"scores.json": "{", "config.json": "{}"}, "Expecting property name"),
        ({"scores.json": "{}", "config.json": "{}"}, "holds no scores"),
        ({"scores.json": "[1]", "config.json": "{}"}, "no attribute"),
        ({"scores.json": '{"a": {"knn": "x"}}', "config.json": "{}"}, "could not"),
        ({"scores.json": '{"a": {"knn": 1}}'}, "No such file"),
    ],
)
def test_a_directory_without_scores_is_one_line(tmp_path, capsys, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    words = ["--config", f"compare:{tmp_path}", "--workdir", str(tmp_path / "out")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_comparing_nothing_is_refused(tmp_path, capsys):
    assert main(["--config", "compare", "--workdir", str(tmp_path)]) == 2
    assert "must name runs to compare" in capsys.readouterr().err


def test_the_task_prints_the_table(tmp_path, capsys):
    first = run(tmp_path, "a", trained(0.25))
    second = run(tmp_path, "b", trained(0.5), mask__ratio=0.5)
    out = tmp_path / "out"
    assert main(["--config", f"compare:{first},{second}", "--workdir", str(out)]) == 0
    printed = capsys.readouterr().out
    assert (out / "comparison.md").read_text() in printed
    assert (out / "comparison.html").is_file()
