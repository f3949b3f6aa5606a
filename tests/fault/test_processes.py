"""Processes of a job that die, that are told to stop, or that do not agree."""

import random
import signal
import time

import pytest

from tests import jobs, tiny

STEPS = 60
HEARTBEAT = 10  # seconds of silence; survivors have 30 in all
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def words(folder, **changes):
    return tiny.arguments(
        folder,
        steps=STEPS,
        eval__limit=1,
        distributed__heartbeat=HEARTBEAT,
        **changes,
    )


def started(folder, **changes):
    return jobs.start(2, 1, words(folder, **changes), **QUICK)


def reached(folder, step, job):
    """Waits until a run has logged a step."""
    while all(one.poll() is None for one in job):
        try:
            if max(tiny.losses(folder), default=0) >= step:
                return
        except (OSError, ValueError):
            pass  # not there yet, or half a line
        time.sleep(0.01)
    raise AssertionError(jobs.finish(job))


@pytest.mark.fault(2)
@pytest.mark.fault(16)
@pytest.mark.parametrize(
    "victim",
    [0, pytest.param(1, marks=pytest.mark.slow)],
    ids=["coordinator", "worker"],
)
def test_survivors_of_a_kill_end_and_the_next_job_goes_on(victim, tmp_path):
    jobs.run(1, 2, words(tmp_path / "whole"), **QUICK)
    torn = tmp_path / "torn"
    job = started(torn)
    reached(torn, random.Random(victim).randint(5, 20), job)
    job[victim].send_signal(signal.SIGKILL)
    began = time.monotonic()
    (code, output) = jobs.finish(job)[1 - victim]
    assert time.monotonic() - began < 30
    assert code != 0, output
    # The next job: one of its processes is told to stop, and both do, at one step.
    job = started(torn)
    reached(torn, random.Random(victim).randint(25, 40), job)
    job[victim].send_signal(signal.SIGTERM)
    began = time.monotonic()
    found = jobs.finish(job)
    assert time.monotonic() - began < 30
    assert [code for code, _ in found] == [0, 0], found
    stopped = max(tiny.losses(torn))
    assert f"stopped by a signal; step {stopped} is saved" in found[0][1]
    assert (torn / "checkpoints" / str(stopped)).is_dir() and stopped < STEPS
    output = jobs.run(2, 1, words(torn), **QUICK)
    assert f"resuming at step {stopped}" in output
    assert tiny.losses(torn) == tiny.losses(tmp_path / "whole")
    scores = [tmp_path / run / "scores.json" for run in ("whole", "torn")]
    assert scores[0].read_text() == scores[1].read_text()


@pytest.mark.fault(17)
@pytest.mark.parametrize(
    ("own", "line"),
    [
        (
            "--config.optim.base_lr=0.5",
            "process 1 has another config than process 0: optim.base_lr = 0.5, not",
        ),
        pytest.param(
            "--config.data.split=train[:4000]",
            "process 1 has another config than process 0: data.split = ",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_another_config_on_one_process_ends_both_before_step_1(own, line, tmp_path):
    job = jobs.start(2, 1, words(tmp_path / "run"), own=((), (own,)))
    for code, output in jobs.finish(job):
        assert code == 2
        (error,) = [one for one in output.splitlines() if one.startswith("error: ")]
        assert error.startswith(f"error: {line}")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.fault(17)
@pytest.mark.slow
def test_other_data_on_one_process_end_both(tmp_path):
    """The same folder by name, but not what is in it."""
    from PIL import Image

    own = []
    for index in range(2):
        folder = tmp_path / str(index) / "pictures"
        for label in ("a", "b"):
            (folder / "train" / label).mkdir(parents=True)
            for number in range(16 + index):
                picture = Image.new("RGB", (16, 16), (number, 40, 90))
                picture.save(folder / "train" / label / f"{number}.png")
        own.append((f"--config.data.path={folder}",))
    given = {"data__source": "folder", "eval__split": "train", "data__batch_size": 8}
    job = jobs.start(2, 1, words(tmp_path / "run", **given), own=own)
    for code, output in jobs.finish(job):
        assert code == 2, output
        assert "process 1 has another data set than process 0: fingerprint" in output


@pytest.mark.fault(16)
@pytest.mark.slow
def test_a_process_that_never_comes_is_one_line(tmp_path):
    given = words(tmp_path / "run", distributed__timeout=5)
    first = jobs.start(2, 1, given)
    first[1].kill()
    began = time.monotonic()
    code, output = jobs.finish(first)[0]
    assert time.monotonic() - began < 60
    assert code == 6, output
    assert "did not meet within 5 s" in output


@pytest.mark.fault(20)
def test_a_workdir_in_use_ends_both(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    import fcntl

    with (folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = jobs.finish(jobs.start(2, 1, words(folder)))
    assert [code for code, _ in found] == [2, 2], found
    assert "in use by" in found[0][1]
    assert "process 0 has stopped with an error" in found[1][1]
