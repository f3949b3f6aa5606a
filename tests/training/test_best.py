"""The best step by validation: kept, found again, and never by the test images."""

import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.checkpointing import folder_of, saved_steps
from sgmae_jax.training.best import Best


def params(value):
    return {"model": {"kernel": jnp.full((4,), float(value))}}


SHAPES = jax.eval_shape(lambda: params(0))


def test_the_highest_score_stays_and_the_first_of_equals(tmp_path):
    best = Best(tmp_path, print)
    for step, score in ((2, 0.3), (4, 0.5), (6, 0.5), (8, 0.4), (10, math.nan)):
        best.offer(step, score, params(step), {"step": step})
    step, found = best.params(SHAPES)
    best.close()
    assert step == 4
    np.testing.assert_array_equal(found["model"]["kernel"], 4.0)
    assert folder_of(tmp_path) == tmp_path / "best"


def test_a_run_that_goes_on_knows_what_was_best(tmp_path):
    first = Best(tmp_path, print)
    first.offer(4, 0.5, params(4), {})
    first.close()
    second = Best(tmp_path, print)
    second.offer(4, 0.5, params(-1), {})  # offered again: nothing is written
    second.offer(6, 0.4, params(6), {})
    step, found = second.params(SHAPES)
    assert step == 4 and found["model"]["kernel"][0] == 4
    second.offer(8, 0.6, params(8), {})
    assert second.params(SHAPES)[0] == 8
    second.close()


def test_a_damaged_best_step_falls_back_on_the_best_before_it(tmp_path):
    best = Best(tmp_path, print)
    best.offer(2, 0.3, params(2), {})
    best.offer(4, 0.5, params(4), {})
    best.close()
    (tmp_path / "best" / "4" / "digest.json").write_text(json.dumps({}))
    assert Best(tmp_path, print).params(SHAPES)[0] == 2


def test_without_a_kept_step_a_run_is_known_by_its_checkpoints(tmp_path):
    assert folder_of(tmp_path) == tmp_path / "checkpoints"
    best = Best(tmp_path, print)
    best.offer(2, math.nan, params(2), {})
    best.close()
    assert folder_of(tmp_path) == tmp_path / "checkpoints"
    assert not saved_steps(tmp_path / "best")
    shutil.rmtree(tmp_path / "best")


@pytest.mark.parametrize("score", [math.nan, -math.inf])
def test_no_score_is_no_best_step(tmp_path, score):
    from sgmae_jax.checkpointing import NoUsableCheckpoint

    best = Best(tmp_path, print)
    best.offer(2, score, params(2), {})
    with pytest.raises(NoUsableCheckpoint):
        best.params(SHAPES)
    best.close()
