"""A clock that was set back, and two runs in one directory."""

import os
import subprocess

import pytest

from sgmae_jax.main import main
from tests import tiny
from tests.checkpointing.states import make_state, target_of
from tests.tiny import arguments


@pytest.mark.fault(20)
def test_the_newest_step_is_the_one_of_the_highest_number(saved, lines):
    directory, checkpointer = saved
    for step, day in ((1, 30_000), (2, 1)):  # the newer one is of January 1970
        for path in (directory / str(step)).rglob("*"):
            os.utime(path, (day * 86_400, day * 86_400))
        os.utime(directory / str(step), (day * 86_400, day * 86_400))
    assert checkpointer.restore(target_of(make_state()))[0] == 2
    checkpointer.save(3, make_state(3), {})
    assert checkpointer.wait()
    os.utime(directory / "3", (0, 0))
    assert checkpointer.restore(target_of(make_state()))[0] == 3
    assert lines == []


@pytest.mark.slow
@pytest.mark.fault(20)
def test_a_second_run_in_a_directory_is_one_line(tmp_path, capsys):
    folder = tmp_path / "run"
    first = tiny.start(folder, steps=2000, checkpoint__every=1000, eval__limit=1)
    try:
        while not (folder / "metrics.jsonl").exists():
            assert first.poll() is None
        assert main(arguments(folder)) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"in use by process {first.pid} on " in error
        # On a shared disk it may be another machine's.
        assert subprocess.check_output(["hostname"], text=True).strip() in error
    finally:
        first.kill()
        first.communicate()
