"""Round trips, refusals, retention, permissions and donation."""

import json
import os
import shutil
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from sgmae_jax.checkpointing import (
    Checkpointer,
    NoUsableCheckpoint,
    RestoreRefused,
    read_meta,
    restore_params,
    restore_series,
    saved_steps,
)
from tests.checkpointing.states import assert_equal, make_state, names, target_of


def test_round_trip(saved):
    directory, checkpointer = saved
    step, state, meta = checkpointer.restore(target_of(make_state()))
    assert step == 2 and meta == {"step": 2}
    assert_equal(state, make_state(2))
    assert read_meta(directory) == (2, {"step": 2})
    params = restore_params(directory, target_of(make_state()["params"]))
    assert_equal(params, make_state(2)["params"])
    params = restore_params(directory, target_of(make_state()["params"]), step=1)
    assert_equal(params, make_state(1)["params"])


def test_nothing_there_is_no_error_and_no_restart(tmp_path):
    checkpointer = Checkpointer(tmp_path / "a" / "b")
    assert checkpointer.restore(target_of(make_state())) is None
    with pytest.raises(NoUsableCheckpoint, match="no usable checkpoint in"):
        read_meta(tmp_path / "a")
    assert NoUsableCheckpoint.exit_code == 3 and RestoreRefused.exit_code == 2


def test_sharded_arrays_restore_into_another_sharding(tmp_path):
    mesh = jax.make_mesh(
        (4, 2), ("data", "fsdp"), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )
    by_rows = NamedSharding(mesh, PartitionSpec("data"))
    by_columns = NamedSharding(mesh, PartitionSpec(None, "fsdp"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    arrays = {
        "w": jax.random.normal(jax.random.key(0), (8, 8)),
        "h": jax.random.normal(jax.random.key(1), (8, 8), jnp.bfloat16),
    }
    state = {"params": jax.device_put(arrays, by_rows)}
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(3, state, {})
    for sharding in (by_rows, by_columns, everywhere, None):
        _, restored, _ = checkpointer.restore(target_of(state, sharding))
        assert_equal(restored, state)
        leaf = restored["params"]["w"]
        if sharding is None:
            assert leaf.sharding.device_set == {jax.devices()[0]}
        else:
            assert leaf.sharding == sharding
    checkpointer.close()


def test_donation_right_after_save(tmp_path):
    checkpointer = Checkpointer(tmp_path, keep=10)
    advance = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    state = {"params": {str(i): jnp.full((256, 512), float(i)) for i in range(8)}}
    expected = jax.tree.map(np.array, state)
    for step in range(4):
        checkpointer.save(step, state, {})
        state = jax.block_until_ready(advance(state))
    for step in range(4):
        params = restore_params(tmp_path, target_of(expected["params"]), step=step)
        want = jax.tree.map(lambda x, s=step: x + np.float32(s), expected["params"])
        assert_equal(params, want)
    checkpointer.close()


CHANGES = {
    "shape": (
        lambda s: s["params"]["encoder"].update(kernel=jnp.zeros((16, 25))),
        "params/encoder/kernel is float32[16,24], not float32[16,25]",
    ),
    "type": (
        lambda s: s["params"]["encoder"].update(bias=jnp.zeros(24)),
        "params/encoder/bias is bfloat16[24], not float32[24]",
    ),
    "missing": (
        lambda s: s.update(teacher=jnp.zeros(3)),
        "teacher is absent, not float32[3]",
    ),
    "superfluous": (
        lambda s: s.pop("skipped"),
        "skipped is int32[], not expected",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.fault(9)
def test_other_arrays_are_refused_and_named(saved, lines, change):
    directory, checkpointer = saved
    alter, message = CHANGES[change]
    state = make_state()
    alter(state)
    with pytest.raises(RestoreRefused) as refusal:
        checkpointer.restore(target_of(state))
    assert f"checkpoint 2: 1 arrays differ from the model: {message}" == str(
        refusal.value
    )
    assert names(directory) == ["1", "2"] and lines == []


def test_at_most_five_differences_are_listed(saved):
    _, checkpointer = saved
    with pytest.raises(RestoreRefused, match=r"\d+ arrays differ.*; and \d+ more$"):
        checkpointer.restore({"other": jax.ShapeDtypeStruct((1,), jnp.float32)})


@pytest.mark.fault(9)
def test_params_of_another_type_are_refused(saved):
    directory, _ = saved
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float16),
        make_state()["params"],
    )
    with pytest.raises(RestoreRefused, match="not float16"):
        restore_params(directory, target)


def test_accept_decides_and_nothing_falls_back(saved, lines):
    directory, checkpointer = saved
    with pytest.raises(RestoreRefused, match="checkpoint 2: batch size 8, not 16"):
        checkpointer.restore(
            target_of(make_state()),
            accept=lambda meta: "batch size 8, not 16" if meta["step"] == 2 else None,
        )
    assert names(directory) == ["1", "2"] and lines == []


@pytest.mark.parametrize("keep", [1, 2])
def test_the_newest_steps_are_kept(tmp_path, keep):
    checkpointer = Checkpointer(tmp_path, keep=keep)
    for step in (5, 10, 100, 1000):
        checkpointer.save(step, make_state(step), {})
    assert checkpointer.wait()
    assert names(tmp_path) == sorted(map(str, (10, 100, 1000)[-keep:]))
    checkpointer.close()
    again = Checkpointer(tmp_path, keep=keep)
    again.save(1001, make_state(1), {})
    assert again.wait()
    assert names(tmp_path) == sorted(map(str, (100, 1000, 1001)[-keep:]))
    again.close()


def test_steps_of_the_period_are_never_deleted(tmp_path):
    checkpointer = Checkpointer(tmp_path, keep=2, keep_period=10)
    for step in range(5, 40, 5):
        checkpointer.save(step, make_state(step), {})
    assert checkpointer.wait()
    checkpointer.close()
    assert saved_steps(tmp_path) == [10, 20, 30, 35]
    # Another process knows of them from the disk alone.
    again = Checkpointer(tmp_path, keep=2, keep_period=10)
    for step in (40, 45, 50, 55):
        again.save(step, make_state(step), {})
    assert again.wait()
    again.close()
    assert saved_steps(tmp_path) == [10, 20, 30, 40, 50, 55]


def test_a_series_is_restored_in_order(tmp_path):
    checkpointer = Checkpointer(tmp_path, keep=9)
    for step in (8, 9, 10, 11):
        checkpointer.save(step, make_state(step), {})
    assert checkpointer.wait()
    checkpointer.close()
    assert saved_steps(tmp_path) == [8, 9, 10, 11]
    target = target_of(make_state()["params"])
    found = list(restore_series(tmp_path, target, (11, 9, 10, 12)))
    assert [step for step, _ in found] == [9, 10, 11]
    for step, params in found:
        assert_equal(params, make_state(step)["params"])
    assert saved_steps(tmp_path / "nothing") == []
    assert list(restore_series(tmp_path / "nothing", target, (1,))) == []


def test_a_series_of_another_model_is_refused(saved):
    directory, _ = saved
    with pytest.raises(RestoreRefused, match=r"checkpoint 1: .* arrays differ"):
        list(restore_series(directory, target_of({"w": np.zeros(3)}), (1, 2)))


def test_a_step_can_be_saved_again(saved, lines):
    directory, checkpointer = saved
    checkpointer.save(2, make_state(7), {"again": True})
    assert (directory / "2.replaced").exists() or (directory / "2").exists()
    assert checkpointer.wait()
    assert names(directory) == ["1", "2"]
    _, state, meta = checkpointer.restore(target_of(state := make_state(7)))
    assert_equal(state, make_state(7))
    assert meta == {"again": True} and lines == []


@pytest.mark.parametrize("finished", [False, True])
def test_a_kill_while_saving_again_loses_nothing(saved, finished):
    directory, checkpointer = saved
    if finished:
        # The successor is committed, its predecessor not yet removed.
        shutil.copytree(directory / "1", directory / "2.replaced")
    else:
        (directory / "2").rename(directory / "2.replaced")
    assert read_meta(directory)[0] == 2
    _, state, _ = checkpointer.restore(target_of(make_state()))
    assert_equal(state, make_state(2))
    assert "2.replaced" not in names(directory)


def test_others_may_not_read(tmp_path):
    mask = os.umask(0o022)
    try:
        checkpointer = Checkpointer(tmp_path / "checkpoints")
        checkpointer.save(1, make_state(), {})
        assert checkpointer.wait()
        checkpointer.close()
    finally:
        os.umask(mask)
    for folder, _, files in os.walk(tmp_path / "checkpoints"):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o770
        for name in files:
            mode = os.stat(os.path.join(folder, name)).st_mode
            assert stat.S_IMODE(mode) == 0o660


def test_meta_that_json_cannot_hold_is_an_error_at_once(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    with pytest.raises(TypeError):
        checkpointer.save(1, make_state(), {"x": object()})
    assert names(tmp_path) == [] and checkpointer.wait()


def test_the_digest_lists_every_array(saved):
    directory, _ = saved
    arrays = json.loads((directory / "2" / "digest.json").read_text())["arrays"]
    assert len(arrays) == len(jax.tree.leaves(make_state()))
    assert arrays["params/encoder/bias"]["dtype"] == "bfloat16"
    assert arrays["opt/1/0/mu/decoder/kernel"]["shape"] == [24, 8]
