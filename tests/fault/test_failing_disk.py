"""A disk that refuses does not stop a run, until it has refused too often."""

import os
import resource
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import pytest
from orbax.checkpoint._src.path import deleter

from sgmae_jax.checkpointing import Checkpointer, SaveFailed, commit
from tests.checkpointing.states import assert_equal, make_state, names, target_of

# Runs alone: a limit on file sizes is for a whole process.
_LIMITED = """
import pathlib, resource, sys
import jax, jax.numpy as jnp, numpy as np
from sgmae_jax.checkpointing import Checkpointer

directory, what = sys.argv[1:]
checkpointer = Checkpointer(directory, keep=2)
# Random bits, as zstd would make any pattern small enough.
bits = np.random.default_rng(0).integers(0, 2**32, (4, 1 << 18), np.uint32)
state = {"params": {str(i): jnp.asarray(row) for i, row in enumerate(bits)}}
target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
checkpointer.save(1, state, {})
assert checkpointer.wait()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(what), hard))
checkpointer.save(2, state, {})
assert not checkpointer.wait()
checkpointer.save(3, state, {})
assert not checkpointer.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert checkpointer.restore(target)[0] == 1
checkpointer.save(4, state, {})
assert checkpointer.wait()
assert checkpointer.restore(target)[0] == 4
checkpointer.close()
"""


def run(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("limit", [200, 100_000])
@pytest.mark.fault(7)
def test_files_that_cannot_grow(tmp_path, limit):
    done = run(_LIMITED, tmp_path, limit)
    assert done.returncode == 0, done.stderr
    heard = [x for x in done.stdout.splitlines() if "unfinished; removed" not in x]
    assert heard == [
        f"checkpoint {step}: not saved: file too large (failed save {count} of 3 in"
        " a row); the run goes on"
        for step, count in ((2, 1), (3, 2))
    ]
    # Neither Orbax nor TensorStore has anything to add.
    assert done.stderr == ""
    assert names(tmp_path) == ["1", "4"]


@pytest.mark.slow
@pytest.mark.fault(7)
def test_full_disk(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        code = _LIMITED.replace(
            "resource.setrlimit(resource.RLIMIT_FSIZE, (int(what), hard))",
            "pathlib.Path(directory, 'filler').write_bytes(bytes(int(what)))",
        ).replace(
            "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))",
            "pathlib.Path(directory, 'filler').unlink()",
        )
        done = run(code, tmp_path, 3_500_000)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("not saved: no space left on device") == 2
        assert done.stderr == ""
        assert names(tmp_path) == ["1", "4"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def refuse(monkeypatch, error):
    def flush(path):
        raise error

    monkeypatch.setattr(commit, "_flush", flush)


@pytest.mark.fault(7)
def test_failures_in_a_row_end_the_run(tmp_path, lines, monkeypatch):
    checkpointer = Checkpointer(tmp_path, max_failures=2, log=lines.append)
    state = make_state()
    checkpointer.save(1, state, {})
    assert checkpointer.wait()
    with monkeypatch.context() as patch:
        refuse(patch, OSError(30, "Read-only file system"))
        checkpointer.save(2, state, {})
        assert not checkpointer.wait()
    checkpointer.save(3, state, {})
    assert checkpointer.wait()
    # The count starts anew after a save that succeeded.
    with monkeypatch.context() as patch:
        refuse(patch, OSError(28, "No space left on device"))
        checkpointer.save(4, state, {})
        checkpointer.save(5, state, {})
        with pytest.raises(SaveFailed) as failure:
            checkpointer.wait()
    assert lines == [
        "checkpoint 2: not saved: read-only file system (failed save 1 of 2 in a"
        " row); the run goes on",
        "checkpoint 4: not saved: no space left on device (failed save 1 of 2 in a"
        " row); the run goes on",
    ]
    assert str(failure.value) == (
        "checkpoint 5: not saved: no space left on device (failed save 2 of 2 in a row)"
    )
    assert names(tmp_path) == ["1", "3"]
    checkpointer.close()


@pytest.mark.fault(7)
def test_no_old_step_goes_for_a_failed_one(tmp_path, lines, monkeypatch):
    checkpointer = Checkpointer(tmp_path, keep=1, log=lines.append)
    checkpointer.save(1, make_state(1), {})
    assert checkpointer.wait()
    with monkeypatch.context() as patch:
        refuse(patch, OSError(5, "Input/output error"))
        for step in (2, 1):
            # Also when the very step is to be replaced.
            checkpointer.save(step, make_state(step + 10), {})
            assert not checkpointer.wait()
            assert names(tmp_path) == ["1"]
    assert_equal(checkpointer.restore(target_of(make_state()))[1], make_state(1))
    checkpointer.save(3, make_state(3), {})
    assert checkpointer.wait()
    assert names(tmp_path) == ["3"]
    checkpointer.close()


@pytest.mark.fault(8)
def test_an_old_step_that_cannot_be_deleted(saved, lines, monkeypatch):
    directory, checkpointer = saved
    checkpointer.close()
    checkpointer = Checkpointer(directory, keep=1, log=lines.append)

    def refuse_deletion(self, steps):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(
        deleter.StandardCheckpointDeleter, "delete_steps", refuse_deletion
    )
    checkpointer.save(3, make_state(3), {})
    assert checkpointer.wait()
    assert lines == ["checkpoint 3: saved; an older one stays: operation not permitted"]
    monkeypatch.undo()
    checkpointer.save(4, make_state(4), {})
    assert checkpointer.wait()
    assert names(directory) == ["4"]
    checkpointer.close()


@pytest.mark.fault(22)
def test_a_slow_disk_is_told_of(tmp_path, lines, monkeypatch):
    checkpointer = Checkpointer(tmp_path, log=lines.append)
    state = make_state()
    checkpointer.save(1, state, {})
    checkpointer.wait()
    flush = commit._flush
    monkeypatch.setattr(commit, "_flush", lambda path: (time.sleep(0.1), flush(path)))
    begin = time.monotonic()
    checkpointer.save(2, state, {})
    assert time.monotonic() - begin < 1.0  # the run goes on meanwhile
    checkpointer.save(3, state, {})
    assert len(lines) == 1
    assert lines[0].startswith("checkpoint 3: waited ") and "for 2 to end" in lines[0]
    checkpointer.close()
    assert names(tmp_path) == ["1", "2", "3"]


@pytest.mark.fault(8)
def test_a_directory_that_vanished_is_a_failed_save(tmp_path, lines):
    directory = tmp_path / "checkpoints"
    checkpointer = Checkpointer(directory, log=lines.append)
    checkpointer.save(1, make_state(), {})
    assert checkpointer.wait()
    directory.rename(tmp_path / "elsewhere")
    directory.write_text("in the way")
    checkpointer.save(2, make_state(), {})
    assert not checkpointer.wait()
    assert len(lines) == 1 and "not saved: not a directory" in lines[0]
    directory.unlink()
    (tmp_path / "elsewhere").rename(directory)
    checkpointer.save(3, make_state(), {})
    assert checkpointer.wait()
    assert names(directory) == ["1", "3"]
    checkpointer.close()


@pytest.mark.fault(8)
def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        Checkpointer(tmp_path / "file" / "checkpoints")
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.mark.fault(22)
def test_a_save_that_takes_too_long_is_a_failed_one(tmp_path, lines, monkeypatch):
    checkpointer = Checkpointer(tmp_path, timeout=1, max_failures=2, log=lines.append)
    state, free = make_state(), threading.Event()
    checkpointer.save(1, state, {})
    assert checkpointer.wait()
    with monkeypatch.context() as patch:
        patch.setattr(commit, "_flush", lambda path: free.wait(60))
        begin = time.monotonic()
        checkpointer.save(2, state, {})
        assert not checkpointer.wait()
        assert 0.9 < time.monotonic() - begin < 20
        assert lines[-1] == (
            "checkpoint 2: not saved: took over 1 s (checkpoint.timeout) (failed save 1"
            " of 2 in a row); the run goes on"
        )
        checkpointer.save(3, state, {})
        with pytest.raises(SaveFailed, match=r"checkpoint 3: .*failed save 2 of 2"):
            checkpointer.wait()
    free.set()
    # What comes late is not committed, and nothing is left of it.
    time.sleep(0.5)
    checkpointer.save(4, make_state(4), {})
    assert checkpointer.wait()
    checkpointer.close()
    assert names(tmp_path) == ["1", "4"]


@pytest.mark.fault(22)
def test_steps_go_on_while_the_disk_is_slow(tmp_path, lines, monkeypatch):
    """Between two saves that take a second each, a step takes what it always does."""
    checkpointer = Checkpointer(tmp_path, log=lines.append)
    state = make_state()
    checkpointer.save(1, state, {})
    checkpointer.wait()
    flush, slow = commit._flush, threading.Event()

    def throttled(path):
        slow.wait(0.1)
        flush(path)

    monkeypatch.setattr(commit, "_flush", throttled)

    advance = jax.jit(lambda x: jnp.tanh(x @ x))
    x = jax.block_until_ready(advance(jnp.ones((400, 400))))

    def steps(count):
        begin = time.monotonic()
        for _ in range(count):
            jax.block_until_ready(advance(x))
        return (time.monotonic() - begin) / count

    usual = steps(40)
    checkpointer.save(2, state, {})
    during = steps(40)
    assert checkpointer._manager.is_saving_in_progress()
    slow.set()
    assert checkpointer.wait() and during < 3 * usual + 0.01
    checkpointer.close()
