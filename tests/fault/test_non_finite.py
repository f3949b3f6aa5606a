"""One poisoned step is void and the run goes on; a poisoned run stops."""

import json

import jax
import numpy as np
import pytest
from etils import epath

from sgmae_jax.checkpointing.fingerprint import as_text, fingerprints
from sgmae_jax.checkpointing.reading import array_entries, check_step
from sgmae_jax.main import main
from tests.fault.by_hand import by_hand
from tests.tiny import arguments, losses

MASKS = """
import jax.numpy as jnp
from sgmae_jax.masking import random_mask

def poisoned_at(keys, context, *, ratio, first, last):
    mask = random_mask(keys, context, ratio=ratio)
    bad = (first <= context.step) & (context.step < last) & (context.step > 0)
    # One example of the batch is enough.
    return mask._replace(
        loss_weight=mask.loss_weight.at[0].multiply(jnp.where(bad, jnp.nan, 1.0))
    )
"""


@pytest.fixture
def poison(tmp_path, monkeypatch):
    (tmp_path / "poison_masks.py").write_text(MASKS)
    monkeypatch.syspath_prepend(str(tmp_path))

    def words(name, first, last, **changes):
        return arguments(tmp_path / name, **poisoned(first, last), **changes)

    return words


def poisoned(first, last):
    options = {"first": first, "last": last}
    return {"mask__fn": "poison_masks:poisoned_at", "mask__options": options}


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
@pytest.mark.slow
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


@pytest.mark.fault(12)
def test_later_steps_equal_those_of_a_run_that_left_the_step_out(poison, tmp_path):
    """With a teacher: losses, parameters, averages and moments, bit for bit."""
    ours = {"method__name": "rc_mae", "method__momentum": 0.9}
    assert main(poison("torn", 5, 6, **ours)) == 0
    hand = by_hand(**poisoned(98, 99), **ours)
    state, expected = hand.state, {}
    for number in range(8):
        if number == 5:
            state = state._replace(step=state.step + 1)
            continue
        state, metrics = hand.step(state)
        expected[number + 1] = float(np.float64(metrics["loss"]))
    found = losses(tmp_path / "torn")
    assert found.pop(6) is None and found == expected
    folder = epath.Path(tmp_path / "torn" / "checkpoints" / "8")
    saved = dict(check_step(folder, 8).arrays)
    tree = state._asdict()
    wanted = dict(array_entries(tree, as_text(fingerprints(tree))))
    assert saved.pop("skipped") != wanted.pop("skipped")
    assert saved == wanted
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.fault(13)
def test_a_capture_replays(poison, tmp_path):
    """Its seed, ids and epochs are those of the batch, which is not finite again."""
    assert main(poison("run", 1, 99, guard__budget=0)) == 4
    folder = tmp_path / "run" / "nan_capture"
    capture = json.loads((folder / "step_2.json").read_text())
    hand = by_hand(seed=capture["seed"], **poisoned(1, 99))
    state, metrics = hand.step(hand.state)
    assert np.isfinite(metrics["loss"])
    batch = hand.loader.batch_at(capture["step"] - 1)
    said = capture["batches"]["train"]
    assert batch["id"].tolist() == said["ids"]
    assert batch["epoch"].tolist() == said["epochs"]
    _, metrics = hand.step(state)
    assert metrics["skipped"] == 1
    again = {name: repr(float(value)) for name, value in metrics.items()}
    assert again == capture["metrics"]
