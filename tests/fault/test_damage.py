"""Every harm to a step directory is found, named, and fallen back from."""

import json
import os
import shutil

import numpy as np
import pytest

from sgmae_jax.checkpointing import (
    Checkpointer,
    NoUsableCheckpoint,
    RestoreRefused,
    read_meta,
    restore_params,
    restore_series,
)
from sgmae_jax.checkpointing.digest import _canonical, _self_hash
from tests.checkpointing.states import (
    assert_equal,
    files_of,
    make_state,
    names,
    target_of,
)


def expect_fallback(directory, lines, reason):
    """Reads fall back to step 1 without a change; a restore keeps 2 aside."""
    before = names(directory)
    heard = []
    assert read_meta(directory, log=heard.append)[0] == 1
    assert heard == [f"checkpoint 2: {reason}; passed over"]
    assert names(directory) == before
    del lines[:]
    checkpointer = Checkpointer(directory, log=lines.append)
    step, state, _ = checkpointer.restore(target_of(make_state()))
    assert step == 1
    assert_equal(state, make_state(1))
    assert lines == [f"checkpoint 2: {reason}; kept aside as 2.bad"]
    assert "2" not in names(directory) and "2.bad" in names(directory)
    checkpointer.save(2, make_state(2), {})
    assert checkpointer.wait()
    step, state, _ = checkpointer.restore(target_of(make_state()))
    assert step == 2
    assert_equal(state, make_state(2))
    checkpointer.close()


def flip(path, share):
    raw = bytearray(path.read_bytes())
    raw[min(int(len(raw) * share), len(raw) - 1)] ^= 0xFF
    path.write_bytes(raw)


def check_flips(directory, lines, shares):
    files = files_of(directory / "2")
    assert len(files) > 10 and "digest.json" in files
    found = 0
    for name in files:
        path = directory / "2" / name
        sound = path.read_bytes()
        for share in shares:
            flip(path, share)
            heard = []
            assert read_meta(directory, log=heard.append)[0] == 1, (name, share)
            assert len(heard) == 1 and name in heard[0]
            path.write_bytes(sound)
            found += 1
    assert read_meta(directory)[0] == 2
    assert found == len(files) * len(shares)


@pytest.mark.fault(4)
def test_a_flipped_byte_in_any_file(saved, lines):
    directory, _ = saved
    check_flips(directory, lines, [0.5])


@pytest.mark.fault(3)
def test_each_file_in_turn_cut_in_half(saved):
    directory, _ = saved
    for name in files_of(directory / "2"):
        path = directory / "2" / name
        sound = path.read_bytes()
        path.write_bytes(sound[: len(sound) // 2])
        heard = []
        found = read_meta(directory, log=heard.append)[0]
        assert found == (1 if sound else 2), name
        assert len(heard) == (1 if sound else 0) and all(name in one for one in heard)
        path.write_bytes(sound)
    assert read_meta(directory)[0] == 2


@pytest.mark.slow
@pytest.mark.fault(4)
def test_a_flipped_byte_at_many_positions(saved, lines):
    directory, _ = saved
    check_flips(directory, lines, [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])


@pytest.mark.fault(4)
def test_any_flipped_bit_of_the_digest(saved):
    directory, _ = saved
    path = directory / "2" / "digest.json"
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.choice(len(sound), 200, replace=False):
        raw = bytearray(sound)
        raw[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(raw)
        assert read_meta(directory, log=lambda line: None)[0] == 1


def biggest(folder):
    return max(files_of(folder), key=lambda name: (folder / name).stat().st_size)


def harm_flip(folder):
    name = "state/" + biggest(folder / "state")
    flip(folder / name, 0.5)
    return f"file {name}: hash differs"


def harm_truncate(folder):
    name = "state/manifest.ocdbt"
    raw = (folder / name).read_bytes()
    (folder / name).write_bytes(raw[: len(raw) // 2])
    return f"file {name}: {len(raw) // 2} bytes instead of {len(raw)}"


def harm_delete(folder):
    (folder / "state" / "_METADATA").unlink()
    return "file state/_METADATA: missing"


def harm_extra(folder):
    (folder / "state" / "d" / "more").write_text("x")
    return "file state/d/more: not in digest.json"


def harm_link(folder):
    path = folder / "meta" / "metadata"
    outside = folder.parent / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    return "file meta/metadata: is a symbolic link"


def harm_linked_folder(folder):
    (folder / "state" / "d").rename(folder.parent / "outside")
    (folder / "state" / "d").symlink_to(folder.parent / "outside")
    return "file state/d: is a symbolic link"


def harm_step_link(folder):
    folder.rename(folder.parent / "elsewhere")
    folder.symlink_to(folder.parent / "elsewhere")
    return "is a symbolic link"


def harm_pipe(folder):
    os.mkfifo(folder / "state" / "pipe")
    return "file state/pipe: is no regular file"


def harm_empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()
    return "file digest.json: missing"


def harm_no_digest(folder):
    (folder / "digest.json").unlink()
    return "file digest.json: missing"


def harm_digest_link(folder):
    (folder / "digest.json").rename(folder.parent / "outside")
    (folder / "digest.json").symlink_to(folder.parent / "outside")
    return "file digest.json: is a symbolic link"


def harm_digest_blanks(folder):
    path = folder / "digest.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    return "file digest.json: does not match its own hash"


def harm_other_step(folder):
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "1", folder)
    return "file digest.json: belongs to step 1"


def harm_forged_path(folder):
    path = folder / "digest.json"
    body = json.loads(path.read_text())
    body["files"]["../1/digest.json"] = {"size": 1, "blake2b": ""}
    del body["digest"]
    body["digest"] = _self_hash(body)
    path.write_bytes(_canonical(body))
    return "file ../1/digest.json: leads out of the checkpoint"


def harm_array(folder):
    """Files that are sound and arrays that are not those of the device."""
    path = folder / "digest.json"
    body = json.loads(path.read_text())
    body["arrays"]["params/decoder/kernel"]["fingerprint"] = "0" * 16
    del body["digest"]
    body["digest"] = _self_hash(body)
    path.write_bytes(_canonical(body))
    return "array params/decoder/kernel: fingerprint differs"


HARMS = {name: harm for name, harm in globals().items() if name.startswith("harm_")}


@pytest.mark.parametrize("name", [name for name in HARMS if name != "harm_array"])
@pytest.mark.fault(3)
@pytest.mark.fault(4)
@pytest.mark.fault(5)
@pytest.mark.fault(6)
def test_harm_is_named_and_fallen_back_from(saved, lines, name):
    directory, checkpointer = saved
    checkpointer.close()
    reason = HARMS[name](directory / "2")
    expect_fallback(directory, lines, reason)


@pytest.mark.parametrize("name", HARMS)
@pytest.mark.fault(3)
@pytest.mark.fault(4)
@pytest.mark.fault(5)
@pytest.mark.fault(6)
def test_a_series_passes_over_harm_and_alters_nothing(saved, name):
    directory, checkpointer = saved
    checkpointer.close()
    reason = HARMS[name](directory / "2")
    before, heard = names(directory), []
    target = target_of(make_state()["params"])
    found = list(restore_series(directory, target, (1, 2), log=heard.append))
    assert [step for step, _ in found] == [1]
    assert_equal(found[0][1], make_state(1)["params"])
    assert heard == [f"checkpoint 2: {reason}; passed over"]
    assert names(directory) == before


@pytest.mark.fault(4)
def test_arrays_damaged_before_they_reached_the_disk(saved, lines):
    directory, checkpointer = saved
    reason = harm_array(directory / "2")
    with pytest.raises(NoUsableCheckpoint, match=f"checkpoint 2: {reason}"):
        restore_params(directory, target_of(make_state()["params"]))
    step, state, _ = checkpointer.restore(target_of(make_state()))
    assert step == 1
    assert_equal(state, make_state(1))
    assert lines == [f"checkpoint 2: {reason}; kept aside as 2.bad"]


@pytest.mark.fault(5)
def test_no_step_left_is_never_a_restart(saved, lines):
    directory, checkpointer = saved
    for step in ("1", "2"):
        harm_flip(directory / step)
    with pytest.raises(NoUsableCheckpoint, match=r"kept there as \*\.bad"):
        checkpointer.restore(target_of(make_state()))
    assert [line.split(":")[0] for line in lines] == ["checkpoint 2", "checkpoint 1"]
    # The next start must not begin anew either.
    with pytest.raises(NoUsableCheckpoint):
        checkpointer.restore(target_of(make_state()))
    with pytest.raises(NoUsableCheckpoint):
        read_meta(directory)


@pytest.mark.fault(5)
def test_names_of_earlier_victims_are_kept(saved, lines):
    directory, checkpointer = saved
    for expected in ("2.bad", "2.bad2", "2.bad3"):
        harm_flip(directory / "2")
        assert checkpointer.restore(target_of(make_state()))[0] == 1
        assert expected in names(directory)
        checkpointer.save(2, make_state(2), {})
        assert checkpointer.wait()


@pytest.mark.fault(5)
def test_strange_names_are_left_alone(saved, lines):
    directory, checkpointer = saved
    (directory / "latest").write_text("nonsense")
    (directory / "3").write_text("a file with the name of a step")
    for name in ("007", "-5", "1e3", "4.orbax-checkpoint-tmp", "notes"):
        (directory / name).mkdir()
    (directory / "4.orbax-checkpoint-tmp" / "x").write_text("x")
    assert checkpointer.restore(target_of(make_state()))[0] == 2
    assert lines == ["checkpoint 4.orbax-checkpoint-tmp: unfinished; removed"]
    assert names(directory) == ["-5", "007", "1", "1e3", "2", "3", "latest", "notes"]
    checkpointer.save(3, make_state(3), {})
    assert checkpointer.wait()
    assert lines[1:] == ["checkpoint 3: is no directory; kept aside as 3.bad"]
    assert checkpointer.restore(target_of(make_state()))[0] == 3


@pytest.mark.fault(9)
def test_a_later_schema_is_refused(saved):
    directory, checkpointer = saved
    path = directory / "2" / "digest.json"
    body = json.loads(path.read_text())
    del body["digest"]
    body["schema"] = 99
    body["digest"] = _self_hash(body)
    path.write_bytes(_canonical(body))
    with pytest.raises(RestoreRefused, match="digest schema 99, this version reads 1"):
        checkpointer.restore(target_of(make_state()))
    assert names(directory) == ["1", "2"]
