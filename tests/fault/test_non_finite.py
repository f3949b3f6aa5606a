"""One poisoned step is void and the run goes on; a poisoned run stops."""

import json

import pytest

from sgmae_jax.main import main
from tests.tiny import arguments, losses

MASKS = """
import jax.numpy as jnp
from sgmae_jax.masking import random_mask

def poisoned_at(keys, context, *, ratio, first, last):
    mask = random_mask(keys, context, ratio=ratio)
    bad = (first <= context.step) & (context.step < last) & (context.step > 0)
    return mask._replace(loss_weight=mask.loss_weight * jnp.where(bad, jnp.nan, 1.0))
"""


@pytest.fixture
def poison(tmp_path, monkeypatch):
    (tmp_path / "poison_masks.py").write_text(MASKS)
    monkeypatch.syspath_prepend(str(tmp_path))

    def words(name, first, last, **changes):
        options = {"first": first, "last": last}
        return arguments(
            tmp_path / name,
            mask__fn="poison_masks:poisoned_at",
            mask__options=options,
            **changes,
        )

    return words


def lines(folder):
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.fault(12)
def test_one_bad_step_is_skipped_counted_and_described(poison, tmp_path, capsys):
    assert main(poison("run", 3, 4)) == 0
    rows = [row for row in lines(tmp_path / "run") if "skipped" in row]
    assert [row["skipped"] for row in rows] == [0, 0, 0, 1, 0, 0, 0, 0]
    assert rows[3]["loss"] is None and all(row["loss"] for row in rows[4:])
    capture = json.loads((tmp_path / "run" / "nan_capture" / "step_4.json").read_text())
    assert len(capture["batches"]["train"]["ids"]) == 16
    assert "step 4: loss or gradient not finite" in capsys.readouterr().out


@pytest.mark.fault(12)
def test_nothing_changes_before_the_bad_step_and_the_rest_stays_finite(
    poison, tmp_path
):
    assert main(poison("clean", 99, 100)) == 0
    assert main(poison("torn", 5, 6)) == 0
    clean, torn = losses(tmp_path / "clean"), losses(tmp_path / "torn")
    assert [torn[step] for step in range(1, 6)] == [clean[step] for step in range(1, 6)]
    assert torn[6] is None
    # Step 7 sees the parameters that step 5 left, on the batch that is its own.
    assert torn[7] is not None and torn[7] != clean[7]


@pytest.mark.fault(13)
def test_too_many_bad_steps_stop_the_run_with_exit_code_4(poison, tmp_path, capsys):
    assert main(poison("run", 1, 99, guard__budget=2)) == 4
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "3 of the last 1000 steps" in error
    captured = sorted(
        file.name for file in (tmp_path / "run" / "nan_capture").iterdir()
    )
    assert captured == ["step_2.json", "step_3.json", "step_4.json"]
