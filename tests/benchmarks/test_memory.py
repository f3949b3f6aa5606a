"""What the memory benchmark reads from programs, against what is known of them."""

import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import memory
from benchmarks.bare import Sizes
from benchmarks.step import CIFAR

TINY = Sizes(16, 4, 24, 2, 2, 16, 1, 2)
FLOATS = jax.ShapeDtypeStruct((1024,), jnp.float32)


def test_bytes_that_are_given_up_count_once():
    kept = jax.jit(lambda x: x + 1).lower(FLOATS).compile()
    given = jax.jit(lambda x: x + 1, donate_argnums=0).lower(FLOATS).compile()
    assert memory.planned_bytes(kept) == 2 * 4096
    assert memory.planned_bytes(given) == 4096


def _lines(capsys):
    return [json.loads(text) for text in capsys.readouterr().out.splitlines()]


def test_eight_devices_hide_what_one_hides(capsys, quick_compilation):
    memory.devices(TINY, 16, rounds=3, steps=3)
    (line,) = _lines(capsys)
    assert line["row"] == 19 and line["masks_equal"] is True
    assert line["loss_difference"] < 1e-5


def test_masks_of_two_seeds_would_be_told_apart(capsys, quick_compilation, monkeypatch):
    place = memory.put_batch
    calls = []

    def shifted(rows, mesh):
        calls.append(mesh)
        other = {**rows, "id": rows["id"] + (len(calls) > 1)}
        return place(other, mesh)

    monkeypatch.setattr(memory, "put_batch", shifted)
    memory.devices(TINY, 16, rounds=3, steps=1)
    assert _lines(capsys)[0]["masks_equal"] is False


@pytest.mark.slow
def test_what_is_computed_again_need_not_be_kept(capsys):
    memory.remat(CIFAR, 64, rounds=3)
    full, dots = _lines(capsys)
    assert full["row"] == dots["row"] == 12
    assert full["bytes_ratio"] < dots["bytes_ratio"] < 1
